import ArgumentParser
import Engine
import ModelFiles
import Transformer

/// `vkinfer bench`: prompt and decode speed of a model file, or of random weights of a well-known shape.
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure prompt and decode speed.",
    discussion: """
      Of a model file (-m), or of random weights of a well-known shape (--shape and --type), which need no file. Each \
      figure is the median of the repetitions, after a run that warms the device up.
      """)

  @Option(name: .shortAndLong, help: ArgumentHelp("The model: a GGUF file.", valueName: "file"))
  var model: String?

  @Option(help: ArgumentHelp("Random weights of this shape.", valueName: "shape"))
  var shape: String?

  @Option(
    help: ArgumentHelp("The format of the random weights (q4_k, q8_0, f16, bf16, ...).", valueName: "type"))
  var type = "q4_k"

  @Option(help: ArgumentHelp("Tokens of the prompts, as a list: 64,512.", valueName: "counts"))
  var prompt = "512"

  @Option(
    name: [.customShort("n"), .long], help: ArgumentHelp("Tokens to generate after 64.", valueName: "count"))
  var tokens = 128

  @Option(help: ArgumentHelp("How often each is measured.", valueName: "count"))
  var repetitions = 5

  @Option(
    help: ArgumentHelp("A device's number in `vkinfer devices`, or part of its name.", valueName: "device"))
  var device: String?

  @Flag(help: "Profile one step of generation, stage by stage.")
  var plan = false

  func validate() throws {
    guard (model == nil) != (shape == nil) else {
      throw ValidationError("give a model file with -m, or a shape with --shape")
    }
    guard repetitions > 0, tokens > 1 else {
      throw ValidationError("--repetitions must be 1 or more, and -n 2 or more")
    }
  }

  func run() throws {
    let prompts = try prompt.split(separator: ",").map { text in
      guard let count = Int(text), count > 0 else {
        throw CommandError("--prompt \(prompt) is not a list of counts such as 64,512")
      }
      return count
    }
    let start = ContinuousClock.now
    let model = try subject()
    var options = EngineOptions()
    options.device = device
    options.contextLength = max(prompts.max() ?? 1, 64 + tokens) + 64
    let loaded = try LoadedEngine(model, since: start, options: options, verbose: false)
    let engine = loaded.engine
    print("\(model.path) on \(engine.deviceName), loaded in \(Format.decimal(loaded.loadSeconds, 2)) s")

    func request(_ promptCount: Int, _ count: Int) -> GenerationRequest {
      // Any tokens do: the arithmetic is the same.
      var request = GenerationRequest(prompt: (0..<promptCount).map { Int32($0 % 997 + 1) })
      request.maxTokens = count
      request.ignoresEndOfText = true
      return request
    }
    for count in prompts {
      try warmUp(engine, request(count, 1))
      let speeds = try (0..<repetitions).map { _ in
        try engine.generate(request(count, 1)).promptTokensPerSecond
      }
      report("prompt of \(count)", speeds)
    }
    try warmUp(engine, request(64, 16))
    let speeds = try (0..<repetitions).map { _ in
      try engine.generate(request(64, tokens)).decodeTokensPerSecond
    }
    report("decode, \(tokens) after 64", speeds)
    if plan { try profile(engine) }
    loaded.savePipelines(verbose: false)
    try loaded.checkValidation()
  }

  private func subject() throws -> LanguageModel {
    if let model { return try LanguageModel(path: model) }
    guard let weights = TensorType.allCases.first(where: { $0.name == type }) else {
      throw CommandError(
        "weight format \(type) is not known; known are "
          + TensorType.allCases.map(\.name).joined(separator: ", "))
    }
    return try LanguageModel(shape: SyntheticShape.named(shape ?? ""), weights: weights, seed: 1)
  }

  /// Idle GPUs need some 0.3 s of load to reach their full clock.
  private func warmUp(_ engine: Engine, _ request: GenerationRequest) throws {
    let start = ContinuousClock.now
    repeat {
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
      _ = try engine.generate(request)
    } while ContinuousClock.now - start < .milliseconds(400)
  }

  private func report(_ what: String, _ speeds: [Double]) {
    let sorted = speeds.sorted()
    print(
      "\(what): \(Format.decimal(sorted[sorted.count / 2], 1)) tokens/s "
        + "(\(Format.decimal(sorted[0], 1)) to \(Format.decimal(sorted[sorted.count - 1], 1)))")
  }

  private func profile(_ engine: Engine) throws {
    print("one step after 64 tokens, with a time stamp between all stages:")
    for stage in try engine.profile(rowCount: 1, depth: 64, repetitions: 40) {
      let speed = Double(stage.weightBytes) / stage.microseconds / 1000
      print(
        "  \(stage.count) x \(stage.name): \(Format.decimal(stage.microseconds, 1)) us"
          + (stage.weightBytes > 0 ? ", \(Format.decimal(speed, 1)) GB/s" : ""))
    }
  }
}
