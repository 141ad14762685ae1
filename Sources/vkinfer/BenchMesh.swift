import ArgumentParser
import Benchmark
import Engine
import ModelFiles
import Transformer

/// `vkinfer bench mesh`: prompt and decode speed of a model over several devices, driven as requests drive it.
struct BenchMesh: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mesh",
    abstract: "Measure prompt and decode speed over several devices.",
    discussion: """
      --batch requests of --prompt tokens each generate --tokens tokens together. The prompt figure is that of one \
      request alone; decode figures count the tokens of all requests from when all have their first until the last ends. \
      Each is the median of the repetitions, after a run that does not count.
      """)

  @OptionGroup var source: BenchSubject

  @Option(
    help: ArgumentHelp("The format of the random weights.", valueName: "type"),
    transform: FormatList.init(text:))
  var type = FormatList([.f16])

  @Option(help: ArgumentHelp("Tokens of each prompt.", valueName: "count"))
  var prompt = 64

  @Option(name: [.customShort("n"), .long], help: ArgumentHelp("Tokens of each text.", valueName: "count"))
  var tokens = 64

  @Option(help: ArgumentHelp("Requests at a time, as a list.", valueName: "counts"))
  var batch = CountList([1])

  @Option(help: ArgumentHelp("How often each figure is measured.", valueName: "count"))
  var repetitions = 3

  @OptionGroup(title: "Engine")
  var place: EnginePlace

  @OptionGroup(title: "Memory")
  var memory: MemoryBudgetOptions

  @Flag(help: "Write comma-separated values.")
  var csv = false

  func validate() throws {
    guard type.types.count == 1 else { throw ValidationError("--type takes one format here") }
    guard (1...10000).contains(repetitions) else {
      throw ValidationError("--repetitions must be from 1 to 10000")
    }
    guard prompt > 0, tokens > 1, batch.counts.allSatisfy({ $0 > 0 }) else {
      throw ValidationError("--prompt and --batch must be 1 or more, --tokens 2 or more")
    }
  }

  func run() throws {
    Interruption.watch()
    let start = ContinuousClock.now
    var options = EngineOptions()
    try place.apply(to: &options)
    options.contextLength = place.context ?? prompt + tokens
    options.maxSequences = batch.counts.max() ?? 1
    options.expectedPrompt = prompt
    options.memory = memory.options
    let loaded = try LoadedEngine(source.open(type.types[0]), since: start, options: options, verbose: false)
    let engine = loaded.engine
    let report = Report(
      style: csv ? .csv : .table,
      columns: [
        Report.Column(key: "tensor_parallel", title: "tensor", width: 6),
        Report.Column(key: "pipeline_parallel", title: "pipeline", width: 8),
        Report.Column(key: "batch", title: "batch", width: 5),
        Report.Column(key: "prompt_tokens_per_second", title: "prompt t/s", width: 10),
        Report.Column(key: "decode_tokens_per_second", title: "decode t/s", width: 10),
        Report.Column(key: "decode_least", title: "least", width: 10),
        Report.Column(key: "decode_most", title: "most", width: 10),
        Report.Column(key: "milliseconds", title: "ms a token", width: 10),
      ])
    try report.note("device   \(engine.deviceName), loaded in \(Format.decimal(loaded.loadSeconds, 2)) s")
    for (text, memory) in zip(engine.placementTexts, engine.deviceMemories) {
      try report.note("\(text), \(Format.bytes(memory.peak)) of memory")
    }
    for count in batch.counts {
      _ = try Run(command: self, engine: engine, count: count).measure()
      let alone = Samples(
        try (0..<repetitions).map { _ in
          try Run(command: self, engine: engine, count: 1).measure().prompt
        })
      let decode = Samples(
        try (0..<repetitions).map { _ in
          try Run(command: self, engine: engine, count: count).measure().decode
        })
      try report.add([
        .count(options.tensorParallel), .count(options.pipelineParallel), .count(count),
        .number(alone.median, decimals: 1), .number(decode.median, decimals: 1),
        .number(decode.least, decimals: 1), .number(decode.most, decimals: 1),
        .number(1000 * Double(count) / decode.median, decimals: 3),
      ])
    }
    loaded.savePipelines(verbose: false)
    try loaded.checkValidation()
  }

  /// Requests that are generated together.
  private struct Run {
    let command: BenchMesh
    let engine: Engine
    let count: Int

    func measure() throws -> (prompt: Double, decode: Double) {
      let counts = TokenCounts(count)
      let start = ContinuousClock.now
      for index in 0..<count {
        // Different from the first token on: no prompt shares another's pages.
        var request = GenerationRequest(
          prompt: (0..<command.prompt).map { _ in Int32.random(in: 1..<1000) })
        request.maxTokens = command.tokens
        request.ignoresEndOfText = true
        try engine.submit(request) { counts.take($0, index: index) }
      }
      while try engine.step() {
        if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
      }
      if let failure = counts.failure { throw failure }
      let (first, tokens) = counts.whenAllHadStarted
      let end = ContinuousClock.now
      return (
        Double(command.prompt * count) / (first - start).inSeconds,
        Double(count * command.tokens - tokens) / (end - first).inSeconds
      )
    }
  }
}
