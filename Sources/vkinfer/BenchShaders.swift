import ArgumentParser
import Benchmark

/// `vkinfer bench shaders`: single kernels.
struct BenchShaders: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "shaders", abstract: "Measure single kernels, and what the device can do.")
  @OptionGroup var common: BenchOptions
  func run() throws {}
}
