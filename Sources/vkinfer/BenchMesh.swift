import ArgumentParser
import Benchmark
import Engine
import FoundationEssentials
import ModelFiles
import Placement
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

  @OptionGroup var cache: CacheOptions

  @OptionGroup(title: "Memory")
  var memory: MemoryBudgetOptions

  @Option(
    help: ArgumentHelp(
      "Most tokens of a prompt in one step (default: by rule).", valueName: "tokens"))
  var promptChunk: Int?

  @Flag(help: "Measure the stages of a pipeline while loading, and cut prompts as they pass it soonest.")
  var measureStages = false

  @Option(
    help: ArgumentHelp("Groups of texts that take turns (default: as many as stages).", valueName: "count"))
  var groups: Int?

  @Flag(help: "Let all groups end a token before the next one begins.")
  var flush = false

  @Option(
    help: ArgumentHelp(
      "Make each step on each device last so many ms longer, or as many as so many ms a token give: 20 or 20,0.5.",
      valueName: "ms"),
    transform: BenchMesh.delay)
  var stageDelay: StageDelay?

  @Flag(help: "Show when each device computes and when it idles, for one prompt and for texts.")
  var plan = false

  @Option(help: ArgumentHelp("Draw that into a file.", valueName: "file"))
  var svg: String?

  @Flag(help: "Write comma-separated values.")
  var csv = false

  static func delay(_ text: String) throws -> StageDelay {
    let numbers = text.split(separator: ",").map { Double($0) ?? -1 }
    guard (1...2).contains(numbers.count), numbers.allSatisfy({ (0...10000).contains($0) }) else {
      throw ValidationError(
        "--stage-delay \(text) is not possible: use ms of a step, or with a comma ms of a token, too")
    }
    return StageDelay(fixed: numbers[0] / 1000, perToken: numbers.count > 1 ? numbers[1] / 1000 : 0)
  }

  func validate() throws {
    guard type.types.count == 1 else { throw ValidationError("--type takes one format here") }
    guard (1...10000).contains(repetitions) else {
      throw ValidationError("--repetitions must be from 1 to 10000")
    }
    if let groups, !(1...64).contains(groups) {
      throw ValidationError("--groups \(groups) is not possible: use 1 to 64")
    }
    guard place.mesh.dataParallel ?? 1 == 1 else {
      throw ValidationError("--data-parallel is for many requests: use bench requests")
    }
    if stageDelay != nil, place.mesh.meshPath ?? .threads != .threads {
      throw ValidationError("--stage-delay works by --mesh-path threads alone: leave --mesh-path out")
    }
    guard prompt > 0, promptChunk ?? 1 > 0, tokens > 1, batch.counts.allSatisfy({ $0 > 0 }) else {
      throw ValidationError("--prompt and --batch must be 1 or more, --tokens 2 or more")
    }
  }

  func run() throws {
    Interruption.watch()
    let start = ContinuousClock.now
    var options = EngineOptions()
    try place.apply(to: &options)
    options.cacheType = cache.kvType
    guard stageDelay == nil || options.tensorParallel * options.pipelineParallel > 1 else {
      throw ValidationError(
        "--stage-delay is for several devices: use --tensor-parallel or --pipeline-parallel")
    }
    options.contextLength = place.context ?? prompt + tokens
    options.maxSequences = batch.counts.max() ?? 1
    options.expectedPrompt = prompt
    options.memory = memory.options
    options.promptChunk = promptChunk
    if measureStages { options.measuresStages = true }
    options.groups = groups
    options.flushes = flush
    options.stageDelay = stageDelay
    // Where devices wait within parts of a step, the timeline takes that for work.
    if plan || svg != nil || stageDelay != nil, options.meshPath == nil { options.meshPath = .threads }
    guard !(plan || svg != nil) || options.tensorParallel * options.pipelineParallel > 1 else {
      throw ValidationError(
        "--plan and --svg are for several devices: use --tensor-parallel or --pipeline-parallel")
    }
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
    for (index, memory) in engine.deviceMemories.enumerated() {
      try report.note(
        "\(engine.placementTexts[index]), \(Format.bytes(memory.now)) of memory (\(Format.bytes(memory.peak)) while "
          + "loading), its share \(Format.bytes(engine.memoryShares[index]))")
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
    if plan || svg != nil { try showPlan(engine) }
    loaded.savePipelines(verbose: false)
    try loaded.checkValidation()
  }

  /// One prompt alone, then the last of `--batch` together, as timelines.
  private func showPlan(_ engine: Engine) throws {
    func timeline(_ count: Int) throws -> MeshTimeline {
      try engine.timeline { _ = try Run(command: self, engine: engine, count: count).measure() }
        ?? MeshTimeline(mesh: MeshShape(), spans: [])
    }
    // Recordings that note the clock are made anew: the first run makes them.
    let count = batch.counts.last ?? 1
    let prompts = try timeline(1).steps { $0.tokens > $0.outputs }
    let all = try timeline(count)
    let texts = all.steady
    let report = Report(
      style: csv ? .csv : .table,
      columns: [
        Report.Column(key: "timeline", title: "timeline", width: 28),
        Report.Column(key: "device", title: "device", width: 6),
        Report.Column(key: "steps", title: "steps", width: 5),
        Report.Column(key: "step_milliseconds", title: "ms a step", width: 9),
        Report.Column(key: "idle_percent", title: "idle %", width: 7),
        Report.Column(key: "computed_percent", title: "computed", width: 8),
      ])
    let stages = prompts.mesh.pipeline
    let sequences = min(count, engine.maxSequences)
    let turns = min(groups ?? stages, sequences)
    for (name, timeline, bubble) in [
      ("prompt of \(prompt)", prompts, MeshCost.bubble(stages: stages, chunks: prompts.stepCount)),
      (
        "texts of \(sequences)", texts,
        flush
          ? MeshCost.bubble(stages: stages, chunks: turns)
          : max(0, 1 - Double(turns) / Double(stages))
      ),
    ] where !timeline.spans.isEmpty {
      for device in 0..<timeline.mesh.deviceCount {
        let busy = timeline.busy(device)
        try report.add([
          .text(name), .text("\(device)"), .count(timeline.stepCount),
          .number(busy / Double(max(1, timeline.stepCount)) * 1000, decimals: 3),
          .number(100 * (1 - busy / timeline.seconds), decimals: 1), .none,
        ])
      }
      try report.add([
        .text(name), .text("all"), .count(timeline.stepCount), .none,
        .number(100 * timeline.bubble, decimals: 1), .number(100 * bubble, decimals: 1),
      ])
    }
    if let times = engine.stageTimes {
      let points = times.points.map { "\($0.tokens): \(Format.decimal($0.seconds * 1000, 2)) ms" }
      try report.note("slowest stage by tokens: \(points.joined(separator: ", "))")
    }
    guard let svg else { return }
    let text = TimelinePicture(all.steps { $0.step < 64 }).svg
    do {
      try Data(text.utf8).write(to: URL(filePath: svg))
    } catch {
      throw CommandError("\(svg) cannot be written: check the folder and the room on the disk")
    }
    try report.note("the first \(min(64, all.stepCount)) steps are drawn in \(svg)")
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
        Double(command.prompt * count) / ((first - start) / .seconds(1)),
        Double(count * command.tokens - tokens) / ((end - first) / .seconds(1))
      )
    }
  }
}
