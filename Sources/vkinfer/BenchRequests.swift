import ArgumentParser
import Benchmark
import Engine
import ModelFiles
import Transformer

/// `vkinfer bench requests`: many requests of mixed lengths against the best that a fixed batch reaches.
struct BenchRequests: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "requests",
    abstract: "Measure many requests of mixed lengths at once.",
    discussion: """
      All requests arrive at once; --parallel of them run at a time (default: the best of --batch). Lengths are drawn \
      from --seed, all powers of two of a range being about as likely. Before, batches of equal sequences are \
      measured in the same run, with the cache as full as it is on average: what the requests could reach if there \
      were no prompts and all had the same length. They run on one device, whatever devices the requests run on.
      """)

  @OptionGroup var source: BenchSubject

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The format of the random weights.", valueName: "type"),
    transform: FormatList.init(text:))
  var type = FormatList([.q4_k])

  @Option(parsing: .unconditional, help: ArgumentHelp("How many requests.", valueName: "count"))
  var requests = 256

  @Option(parsing: .unconditional, help: ArgumentHelp("Least tokens of a prompt.", valueName: "count"))
  var minPrompt = 16

  @Option(parsing: .unconditional, help: ArgumentHelp("Most tokens of a prompt.", valueName: "count"))
  var maxPrompt = 2048

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Least tokens to generate for a request.", valueName: "count")
  )
  var minOutput = 16

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Most tokens to generate for a request.", valueName: "count"))
  var maxOutput = 512

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Where the random lengths and tokens start.", valueName: "number"))
  var seed: UInt64 = 1

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Fixed batches to compare with, as a list.", valueName: "counts"))
  var batch = CountList([8, 32, 64, 128])

  @Option(
    name: [.customShort("n"), .customLong("tokens")],
    parsing: .unconditional,
    help: ArgumentHelp("Tokens that each sequence of a fixed batch generates.", valueName: "count"))
  var tokens = 32

  @Option(parsing: .unconditional, help: ArgumentHelp("Requests that run at a time.", valueName: "count"))
  var parallel: Int?

  @OptionGroup var cache: CacheOptions

  @OptionGroup(title: "Engine")
  var mesh: MeshOptions

  @OptionGroup(title: "Engine")
  var replicas: ReplicaOptions

  @OptionGroup var common: BenchOptions

  @Flag(help: "Cut products by rule, not as measured at the first use of the device.")
  var noTuning = false

  @Flag(help: "Let a constant, not measured time, say how much of prompts enters beside running texts.")
  var noPacing = false

  func validate() throws {
    guard type.types.count == 1 else { throw ValidationError("--type takes one format here") }
    guard (1...1_000_000).contains(requests) else {
      throw ValidationError("--requests must be from 1 to 1000000")
    }
    for (name, least, most) in [("prompt", minPrompt, maxPrompt), ("output", minOutput, maxOutput)] {
      guard least >= 1, least <= most, most <= CountList.most else {
        throw ValidationError(
          "--min-\(name) \(least) and --max-\(name) \(most) are no range: use 1 to \(CountList.most), the least first"
        )
      }
    }
    guard batch.counts.allSatisfy({ (1...4096).contains($0) }) else {
      throw ValidationError("--batch takes counts from 1 to 4096")
    }
    guard (1...CountList.most).contains(tokens) else {
      throw ValidationError("-n \(tokens) is not possible: use 1 to \(CountList.most)")
    }
    try mesh.check(device: common.device)
    if let parallel, !(1...4096).contains(parallel) {
      throw ValidationError("--parallel must be from 1 to 4096")
    }
  }

  private static let columns = [
    Report.Column(key: "model", title: "model", width: 24, isHidden: true),
    Report.Column(key: "test", title: "test", width: 34),
    Report.Column(key: "kind", title: "kind", width: 8, isHidden: true),
    Report.Column(key: "sequences", title: "at once", width: 7),
    Report.Column(key: "tokens_per_second", title: "tokens/s", width: 10),
    Report.Column(key: "tokens_per_second_with_prompts", title: "with prompts", width: 12),
    Report.Column(key: "first_token_median", title: "first ms", width: 9),
    Report.Column(key: "first_token_p99", title: "p99", width: 9),
    Report.Column(key: "between_tokens_median", title: "between ms", width: 10),
    Report.Column(key: "between_tokens_p99", title: "p99", width: 9),
    Report.Column(key: "percent_of_best_batch", title: "% of best", width: 9),
  ]

  func run() throws {
    let subject = try source.open(type.types[0])
    let workload = RequestWorkload(
      count: requests, prompt: minPrompt...maxPrompt, output: minOutput...maxOutput, seed: seed)
    let report = Report(style: common.style, columns: Self.columns)
    let progress = Progress()
    defer { progress.clear() }
    let best = try measureBatches(of: subject, depth: workload.meanDepth, report, progress)
    try measureRequests(workload, of: subject, best: best, report, progress)
    if common.style == .json {
      try Output.write(
        JSON.object([
          ("model", .string(subject.path)), ("requests", .int(requests)), ("seed", .int(Int(clamping: seed))),
          ("prompt_tokens", .int(workload.promptTokens)), ("output_tokens", .int(workload.outputTokens)),
          ("results", report.json),
        ]).text + "\n")
    }
  }

  /// Steps of equal sequences; the model is gone from the device afterwards.
  private func measureBatches(
    of subject: LanguageModel, depth: Int, _ report: Report, _ progress: Progress
  ) throws -> (batch: Int, speed: Double) {
    let benchmark = try common.open()
    try report.note("device   \(benchmark.name)")
    let measured = try ModelBenchmark(
      benchmark: benchmark, model: subject,
      workload: ModelWorkload(
        prompts: [], depths: [depth], batches: batch.counts, tokens: tokens, tunes: !noTuning,
        cacheType: cache.kvType)
    ) { loaded, total in
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
      progress.draw(
        "loading", done: loaded, total: total, detail: "\(Format.bytes(loaded)) of \(Format.bytes(total))")
    }
    var best = (batch: 1, speed: 0.0)
    for count in batch.counts {
      progress.draw("measuring", detail: "a batch of \(count) after \(depth)")
      let seconds = try measured.decode(depth: depth, batch: count, repetitions: common.repetitions).median
      let speed = Double(count) / seconds
      if speed > best.speed { best = (count, speed) }
      progress.clear()
      try report.add([
        .text(subject.path), .text("decode \(tokens) after \(depth)"), .text("batch"), .count(count),
        .number(speed, decimals: 1), .none, .none, .none, .number(seconds * 1e3, decimals: 2), .none, .none,
      ])
    }
    try common.close(benchmark)
    return best
  }

  private func measureRequests(
    _ workload: RequestWorkload, of subject: LanguageModel, best: (batch: Int, speed: Double),
    _ report: Report, _ progress: Progress
  ) throws {
    var options = EngineOptions()
    options.device = common.device
    mesh.apply(to: &options, dataParallel: replicas.dataParallel)
    options.contextLength = workload.longest
    options.maxSequences = parallel ?? best.batch
    options.tunes = !noTuning
    options.cacheType = cache.kvType
    options.pacesPrompts = !noPacing
    let loaded = try LoadedEngine(subject, since: .now, options: options, verbose: common.verbose)
    let total = workload.outputTokens
    let figures = try workload.run(
      on: loaded.server, parallel: loaded.maxSequences, vocabulary: subject.program.vocabularySize
    ) { done in
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
      progress.draw("requests", done: done, total: total, detail: "\(done) of \(total) tokens")
    }
    progress.clear()
    let speed = Double(total) / figures.seconds
    let milliseconds = { (seconds: Double?) -> Report.Cell in
      seconds.map { .number($0 * 1e3, decimals: 2) } ?? .none
    }
    try report.add([
      .text(subject.path),
      .text("\(requests) requests, \(minPrompt)-\(maxPrompt) + \(minOutput)-\(maxOutput)"),
      .text("requests"), .count(loaded.maxSequences), .number(speed, decimals: 1),
      .number(Double(total + workload.promptTokens) / figures.seconds, decimals: 1),
      milliseconds(figures.firstToken.median), milliseconds(figures.firstToken.percentile(0.99)),
      milliseconds(figures.betweenTokens?.median), milliseconds(figures.betweenTokens?.percentile(0.99)),
      .number(speed / best.speed * 100, decimals: 1),
    ])
    loaded.savePipelines(verbose: common.verbose)
    try loaded.checkValidation()
  }
}
