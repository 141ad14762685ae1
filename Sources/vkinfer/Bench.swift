import ArgumentParser
import Benchmark
import Engine
import ModelFiles

/// `vkinfer bench`: how fast models, and single kernels, are on a device.
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure prompt and decode speed, many requests, or single kernels.",
    discussion: """
      Without a subcommand it is `model`, as in: vkinfer bench --shape llama-3.1-8b --type f16,q4_k --batch 1,8. See \
      `vkinfer help bench model` for its options.
      """,
    subcommands: [
      BenchModel.self, BenchRequests.self, BenchShaders.self, BenchMesh.self, BenchCollectives.self,
      BenchPredict.self,
    ], defaultSubcommand: BenchModel.self)
}

/// Where measurements are made, how often, and how they are written.
struct BenchOptions: ParsableArguments {
  @Option(help: ArgumentHelp("How often each figure is measured.", valueName: "count"))
  var repetitions = 5

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("A device's number in `vkinfer devices`, or part of its name.", valueName: "device"))
  var device: String?

  @Flag(help: "Write one JSON object.")
  var json = false

  @Flag(help: "Write comma-separated values.")
  var csv = false

  @Flag(help: "Name the kernel variants that ran, on standard error.")
  var verbose = false

  func validate() throws {
    guard (1...10000).contains(repetitions) else {
      throw ValidationError("--repetitions must be from 1 to 10000")
    }
    guard !json || !csv else { throw ValidationError("--json and --csv do not go together") }
  }

  var style: Report.Style { json ? .json : csv ? .csv : .table }

  /// Opens the device; Ctrl-C ends what goes on.
  func open(captureStatistics: Bool = false) throws -> BenchmarkDevice {
    Interruption.watch()
    return try BenchmarkDevice(
      spec: device, pipelineDirectory: EngineOptions.usualCacheDirectory, captureStatistics: captureStatistics
    ) {
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
    }
  }

  /// Keeps the pipelines of this run, and throws when a validation layer found fault with it.
  func close(_ benchmark: BenchmarkDevice) throws {
    do {
      try benchmark.device.savePipelineCache()
    } catch {
      // The next start is slower, nothing else.
      if verbose { Output.note("\(error)") }
    }
    try LoadedEngine.checkValidation(messages: benchmark.validationMessageCount)
  }
}

extension CountList: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}

/// A list of weight formats as an option gives it: "f16,q4_k".
struct FormatList: CustomStringConvertible {
  var types: [TensorType]

  init(_ types: [TensorType]) {
    self.types = types
  }

  init(text: String) throws {
    types = try text.split(separator: ",", omittingEmptySubsequences: false).map { name in
      guard let type = TensorType.allCases.first(where: { $0.name == name }) else {
        throw ValidationError("weight format \"\(name)\" is not known; known are \(Self.known)")
      }
      return type
    }
  }

  var description: String { types.map(\.name).joined(separator: ",") }

  /// Every format there is.
  static var known: String { TensorType.allCases.map(\.name).joined(separator: ", ") }
}

/// Names kernel variants, and how products are cut, on standard error, each once.
struct VariantNotes {
  private var known: Set<String> = []

  mutating func noteNew(_ benchmark: BenchmarkDevice) {
    for text in benchmark.variantTexts where known.insert(text).inserted { Output.note("kernel   \(text)") }
    for text in benchmark.tuningTexts where known.insert(text).inserted { Output.note("tiling   \(text)") }
  }
}
