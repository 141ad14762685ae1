import ArgumentParser
import Benchmark
import Engine
import Transformer

/// How tokens are drawn.
struct SamplingOptions: ParsableArguments {
  @Option(
    parsing: .unconditional, help: ArgumentHelp("Randomness; 0 always takes the best token.", valueName: "t"))
  var temperature: Float = 0

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Keep only the k best tokens; 0 keeps all.", valueName: "k"))
  var topK = 0

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Keep only the best tokens with this probability in sum; 1 keeps all.", valueName: "p")
  )
  var topP: Float = 1

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Keep only tokens at least this fraction as probable as the best.", valueName: "p"))
  var minP: Float = 0

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Divides the logits of tokens seen before; 1 is none.", valueName: "x"))
  var repeatPenalty: Float = 1

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Subtracted from the logits of tokens generated before.", valueName: "x"))
  var presencePenalty: Float = 0

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Subtracted for each time a token was generated before.", valueName: "x"))
  var frequencyPenalty: Float = 0

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "With it, the same text every time (default: random, in the summary).", valueName: "number"))
  var seed: UInt64?

  func validate() throws {
    do { try parameters().validate() } catch { throw ValidationError("\(error)") }
  }

  func parameters() -> SamplingParameters {
    var parameters = SamplingParameters()
    parameters.temperature = temperature
    parameters.topK = topK
    parameters.topP = topP
    parameters.minP = minP
    parameters.repeatPenalty = repeatPenalty
    parameters.presencePenalty = presencePenalty
    parameters.frequencyPenalty = frequencyPenalty
    if temperature > 0 { parameters.seed = drawSeed() }
    return parameters
  }

  /// The seed that is given, or else a new one every time.
  func drawSeed() -> UInt64 {
    // Ten digits can be typed again.
    seed ?? UInt64(UInt32.random(in: 0...UInt32.max))
  }
}

/// Where a model runs, and how much of a text it sees.
struct EnginePlace: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Tokens of prompt and text together (default: up to 4096, more for a longer prompt).",
      valueName: "tokens"))
  var context: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("A device's number in `vkinfer devices`, or part of its name.", valueName: "device"))
  var device: String?

  @OptionGroup var mesh: MeshOptions

  /// Sets which devices an engine takes, or each of several.
  func apply(to options: inout EngineOptions, dataParallel: Int? = nil) throws {
    options.device = device
    mesh.apply(to: &options, dataParallel: dataParallel)
  }

  func validate() throws {
    try mesh.check(device: device)
    if let context, !(1...Int(Int32.max)).contains(context) {
      throw ValidationError("--context \(context) is not possible: use 1 to \(Int32.max)")
    }
  }
}

/// How several devices share the work.
struct MeshOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "The devices of a mesh, with commas between; one may be there several times.", valueName: "devices"))
  var devices: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Devices that split every layer between them (default: 1).", valueName: "count"))
  var tensorParallel: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Stages of consecutive layers, on devices of their own (default: 1).", valueName: "count"))
  var pipelineParallel: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "How devices wait for one another: flags (in shared memory), semaphores (of one device) or threads (of the "
        + "host); default: the fastest.",
      valueName: "path"))
  var meshPath: MeshPath?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Where devices leave things for one another: device (memory of the one that reads, which the others import) or "
        + "host; default: the fastest.",
      valueName: "memory"))
  var meshMemory: MeshMemory?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Layers of each pipeline stage, as 20,12 (default: what takes all stages as long, as far as memory allows).",
      valueName: "counts"))
  var stageLayers: CountList?

  /// Sets which devices an engine takes, or each of several.
  func apply(to options: inout EngineOptions, dataParallel: Int? = nil) {
    options.setMesh(
      devices: devices, tensorParallel: tensorParallel, pipelineParallel: pipelineParallel,
      dataParallel: dataParallel)
    options.meshPath = meshPath
    options.meshMemory = meshMemory
    options.stageLayers = stageLayers?.counts ?? []
  }

  /// - Parameter device: what `--device` says.
  func check(device: String?) throws {
    if let devices, devices.split(separator: ",").isEmpty {
      throw ValidationError("--devices names no device: give numbers of `vkinfer devices`, or leave it out")
    }
    if device != nil, devices != nil {
      throw ValidationError("--device and --devices both say where the model runs: use one of them")
    }
  }

}

/// Whether several engines share the work.
struct ReplicaOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Engines that share out requests, each with all of the model on devices of its own (default: 1).",
      valueName: "count"))
  var dataParallel: Int?

  func validate() throws {
    if let dataParallel, !(1...64).contains(dataParallel) {
      throw ValidationError("--data-parallel \(dataParallel) is not possible: use 1 to 64")
    }
  }
}

/// What is kept of keys and values.
struct CacheOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "What the KV cache holds: f16, or q8_0 (8.5 bits an element: room for almost twice the tokens).",
      valueName: "type"))
  var kvType = KVCacheType.f16
}

extension KVCacheType: ExpressibleByArgument {}

/// How much memory a run may take.
struct MemoryBudgetOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Most device memory to take, as 640MB or 8GB (default: what is free). Weights beyond it stream in every step.",
      valueName: "size"),
    transform: MemoryBudgetOptions.bytes)
  var gpuMemory: Int?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Most host memory for weights that stream (default: most of what is free).", valueName: "size"),
    transform: MemoryBudgetOptions.bytes)
  var hostMemory: Int?

  @Option(
    help: ArgumentHelp(
      "Where weights stream from: host (pinned memory), file, or auto (host as far as it goes).",
      valueName: "place"))
  var weightsFrom = WeightsFrom.auto

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Copies of weights ahead of the one computed with; 0 is none (default: as many as it takes).",
      valueName: "count"))
  var prefetch: Int?

  func validate() throws {
    if let prefetch, prefetch < 0 {
      throw ValidationError("--prefetch \(prefetch) is not possible: use 0 or more")
    }
  }

  var options: MemoryOptions {
    var options = MemoryOptions()
    options.device = gpuMemory
    options.host = hostMemory
    options.weightsFrom = weightsFrom
    options.prefetch = prefetch
    return options
  }

  /// "640MB", "8GB", "500000000".
  static func bytes(_ text: String) throws -> Int {
    let units: [(String, Double)] = [("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("B", 1), ("", 1)]
    let upper = text.uppercased()
    for (unit, factor) in units where upper.hasSuffix(unit) {
      if let number = Double(upper.dropLast(unit.count)), number > 0, number * factor < 1e15 {
        return Int(number * factor)
      }
    }
    throw ValidationError("\"\(text)\" is no amount of memory: use one such as 640MB or 8GB")
  }
}

/// Where keys and values are that the device has no room for.
struct OffloadOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Keys and values in host memory, brought to the device layer by layer: auto (as many as a context that does not fit "
        + "takes), on (all) or off.",
      valueName: "when"))
  var kvOffload = KVOffload.auto
}

extension KVOffload: ExpressibleByArgument {}

extension WeightsFrom: ExpressibleByArgument {}

extension MeshPath: ExpressibleByArgument {}

extension MeshMemory: ExpressibleByArgument {}
