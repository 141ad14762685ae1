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
      --batch requests of --depth tokens each generate --tokens tokens together. The prompt figure is that of one \
      request of --prompt tokens alone; decode figures count the tokens of all requests from when all have their first \
      until the last ends. Each is the median of the repetitions, after a run that does not count. The exchange column \
      is the part of the steps of texts in which devices leave things for others of their stage and wait for them.

      --compare loads the model onto the first device alone first. Speedup is over that one, efficiency its part for \
      each physical device; predictions are those of the cost model (bench predict) with what that device does, \
      and with the latency and rate that bench collectives finds between the devices.
      """)

  @OptionGroup var source: BenchSubject

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The format of the random weights.", valueName: "type"),
    transform: FormatList.init(text:))
  var type = FormatList([.f16])

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Tokens of the prompt that is measured alone.", valueName: "count"))
  var prompt = 64

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Tokens before each text (default: as many as of a prompt).", valueName: "count"))
  var depth: Int?

  private var textDepth: Int { depth ?? prompt }

  @Option(
    name: [.customShort("n"), .long], parsing: .unconditional,
    help: ArgumentHelp("Tokens of each text.", valueName: "count"))
  var tokens = 64

  @Option(parsing: .unconditional, help: ArgumentHelp("Requests at a time, as a list.", valueName: "counts"))
  var batch = CountList([1])

  @Option(
    parsing: .unconditional, help: ArgumentHelp("How often each figure is measured.", valueName: "count"))
  var repetitions = 3

  @OptionGroup(title: "Engine")
  var place: EnginePlace

  @OptionGroup var cache: CacheOptions

  @OptionGroup(title: "Memory")
  var memory: MemoryBudgetOptions

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Most tokens of a prompt in one step (default: by rule).", valueName: "tokens"))
  var promptChunk: Int?

  @Flag(help: "Measure the stages of a pipeline while loading, and cut prompts as they pass it soonest.")
  var measureStages = false

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Groups of texts that take turns (default: as many as stages).", valueName: "count"))
  var groups: Int?

  @Flag(help: "Let all groups end a token before the next one begins.")
  var flush = false

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Make each step on each device last so many ms longer, or as many as so many ms a token give: 20 or 20,0.5.",
      valueName: "ms"),
    transform: BenchMesh.delay)
  var stageDelay: StageDelay?

  @Flag(help: "Measure one device alone, too, and show what the cost model predicts.")
  var compare = false

  @Flag(help: "Show when each device computes and when it idles, for one prompt and for texts.")
  var plan = false

  @Option(parsing: .unconditional, help: ArgumentHelp("Draw that into a file.", valueName: "file"))
  var svg: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "At the end let this device of the mesh, from 0 on, be lost in the middle of a step, and show how soon requests "
        + "know and the others go on.", valueName: "number"))
  var lose: Int?

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
    if stageDelay != nil, place.mesh.meshPath ?? .threads != .threads {
      throw ValidationError("--stage-delay works by --mesh-path threads alone: leave --mesh-path out")
    }
    guard prompt > 0, depth ?? 1 > 0, promptChunk ?? 1 > 0, tokens > 1, batch.counts.allSatisfy({ $0 > 0 })
    else {
      throw ValidationError("--prompt, --depth and --batch must be 1 or more, --tokens 2 or more")
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
    options.contextLength = place.context ?? max(prompt, textDepth) + tokens
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
    let mesh = MeshShape(tensor: options.tensorParallel, pipeline: options.pipelineParallel)
    guard !compare || mesh.deviceCount > 1 else {
      throw ValidationError("--compare is for several devices: use --tensor-parallel or --pipeline-parallel")
    }
    if let lose, !(0..<mesh.deviceCount).contains(lose) || mesh.deviceCount == 1 {
      throw ValidationError("--lose \(lose) is not possible: use the number of a device of a mesh, from 0 on")
    }
    let model = try source.open(type.types[0])
    let counts = batch.counts
    let alone =
      compare
      ? try DeviceAlone(
        model, options: options,
        batches: Set(counts + counts.map { MeshPrediction.texts(batch: $0, mesh: mesh) }), prompt: prompt,
        depth: textDepth, tokens: tokens, repetitions: repetitions) : nil
    let loaded = try LoadedEngine(model, since: compare ? .now : start, options: options, verbose: false)
    let engine = loaded.engine
    let prediction = try alone.map {
      try MeshPrediction(
        engine, mesh: mesh, alone: $0, prompt: prompt, depth: textDepth, tokens: tokens,
        repetitions: repetitions)
    }
    let report = Report(
      style: csv ? .csv : .table,
      columns: [
        Report.Column(key: "tensor_parallel", title: "tensor", width: 6),
        Report.Column(key: "pipeline_parallel", title: "pipeline", width: 8),
        Report.Column(key: "batch", title: "batch", width: 5),
        Report.Column(key: "memory", title: "memory", width: 6),
        Report.Column(key: "path", title: "path", width: 10),
        Report.Column(key: "prompt_tokens_per_second", title: "prompt t/s", width: 10),
        Report.Column(key: "prompt_predicted", title: "predicted", width: 9),
        Report.Column(key: "decode_tokens_per_second", title: "decode t/s", width: 10),
        Report.Column(key: "decode_predicted", title: "predicted", width: 9),
        Report.Column(key: "decode_least", title: "least", width: 10),
        Report.Column(key: "decode_most", title: "most", width: 10),
        Report.Column(key: "milliseconds", title: "ms a token", width: 10),
        Report.Column(key: "exchange_percent", title: "exchange %", width: 10),
        Report.Column(key: "speedup", title: "speedup", width: 7),
        Report.Column(key: "efficiency_percent", title: "efficiency", width: 10),
      ])
    try report.note("device   \(engine.deviceName), loaded in \(Format.decimal(loaded.loadSeconds, 2)) s")
    for (index, memory) in engine.deviceMemories.enumerated() {
      try report.note(
        "\(engine.placementTexts[index]), \(Format.bytes(memory.now)) of memory (\(Format.bytes(memory.peak)) while "
          + "loading), its share \(Format.bytes(engine.memoryShares[index]))")
    }
    if let text = engine.meshPathText { try report.note(text) }
    if let note = alone?.note { try report.note(note) }
    if let link = prediction?.link {
      try report.note(
        "between devices \(Format.decimal(link.latency * 1e6, 1)) us an all-reduce of next to nothing, "
          + "\(Format.decimal(link.rate / 1e9, 1)) GB/s")
    }
    let physicalDevices = Set(engine.deviceNumbers).count
    func number(_ value: Double?, decimals: Int) -> Report.Cell {
      value.map { .number($0, decimals: decimals) } ?? Report.Cell.none
    }
    let run = MeshRun(prompt: prompt, depth: textDepth, tokens: tokens, engine: engine)
    for count in counts {
      let samples = try run.samples(count, repetitions: repetitions)
      let decode = samples.decode
      let speedup = alone?.decode[count].map { decode.median / $0 }
      let share = mesh.deviceCount > 1 ? try run.exchangeShare(count) : nil
      try report.add([
        .count(mesh.tensor), .count(mesh.pipeline), .count(count),
        .text(engine.meshTransport?.memory.rawValue ?? "-"),
        .text(engine.meshTransport?.path.rawValue ?? "-"),
        .number(samples.prompt.median, decimals: 1),
        number(prediction?.promptSeconds.map { Double(prompt) / $0 }, decimals: 1),
        .number(decode.median, decimals: 1),
        number(prediction?.decode(batch: count).map { Double(count) / $0 }, decimals: 1),
        .number(decode.least, decimals: 1), .number(decode.most, decimals: 1),
        .number(1000 * Double(count) / decode.median, decimals: 3),
        number(share.map { 100 * $0 }, decimals: 1), number(speedup, decimals: 2),
        number(speedup.map { 100 * $0 / Double(physicalDevices) }, decimals: 1),
      ])
    }
    if plan || svg != nil { try showPlan(engine) }
    if let lose { try report.note(try run.loss(of: lose, batch: counts.last ?? 1)) }
    loaded.savePipelines(verbose: false)
    try loaded.checkValidation()
  }

  /// One prompt alone, then the last of `--batch` together, as timelines.
  private func showPlan(_ engine: Engine) throws {
    let run = MeshRun(prompt: prompt, depth: textDepth, tokens: tokens, engine: engine)
    func timeline(_ count: Int, prompt: Int? = nil) throws -> MeshTimeline {
      try engine.timeline { _ = try run.measure(count, prompt: prompt) }
        ?? MeshTimeline(mesh: MeshShape(), spans: [])
    }
    // Recordings that note the clock are made anew: the first run makes them.
    let count = batch.counts.last ?? 1
    let prompts = try timeline(1, prompt: prompt).steps { $0.tokens > $0.outputs }
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
}
