import ArgumentParser
import Benchmark
import Engine

/// `vkinfer bench collectives`: what passing activations between devices costs.
struct BenchCollectives: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "collectives",
    abstract: "Measure all-reduces between devices.",
    discussion: """
      Each figure is the time of one all-reduce of float32 sums between all --devices, 32 of which make a step, and the \
      bytes of it that a device takes a second. The same device may be there several times.
      """)

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The devices, with commas between.", valueName: "devices"))
  var devices = "0,0"

  @Option(help: ArgumentHelp("Bytes of each all-reduce, as a list.", valueName: "counts"))
  var bytes = CountList([4096, 16384, 65536, 1 << 20])

  @Option(help: ArgumentHelp("How often each figure is measured.", valueName: "count"))
  var repetitions = 5

  @Flag(help: "Write comma-separated values.")
  var csv = false

  func validate() throws {
    guard (1...10000).contains(repetitions) else {
      throw ValidationError("--repetitions must be from 1 to 10000")
    }
    guard names.count > 1 else { throw ValidationError("--devices must name two devices or more") }
  }

  private var names: [String] { devices.split(separator: ",").map(String.init) }

  func run() throws {
    Interruption.watch()
    let report = Report(
      style: csv ? .csv : .table,
      columns: [
        Report.Column(key: "bytes", title: "bytes", width: 10),
        Report.Column(key: "microseconds", title: "us", width: 10),
        Report.Column(key: "least", title: "least", width: 10),
        Report.Column(key: "most", title: "most", width: 10),
        Report.Column(key: "gigabytes_per_second", title: "GB/s", width: 8),
      ])
    for count in bytes.counts {
      let benchmark = try CollectiveBenchmark(
        devices: names, byteCount: count, pipelineDirectory: EngineOptions.usualCacheDirectory)
      let seconds = try benchmark.run(repetitions: repetitions) {
        if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
      }
      try report.add([
        .count(count), .number(seconds.median * 1e6, decimals: 1), .number(seconds.least * 1e6, decimals: 1),
        .number(seconds.most * 1e6, decimals: 1), .number(Double(count) / seconds.median / 1e9, decimals: 2),
      ])
    }
  }
}
