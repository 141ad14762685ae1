import ArgumentParser
import Benchmark
import Engine
import Kernels
import ModelFiles
import Transformer

/// `vkinfer bench model`, the default: prompt and decode speed of a file, or of random weights of some shape.
struct BenchModel: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "model",
    abstract: "Measure prompt and decode speed (the default).",
    discussion: """
      Of a model file (-m), or of random weights that the device makes itself (--shape and --type). Each figure is \
      the median of the repetitions, with the least and the most, after 0.4 s of load that bring the clock up. \
      Decode figures are steps that generate a token for each of the --batch sequences, greedily, when --depth \
      tokens are in the cache of each; bytes are those of weights and cache, and percentages are of what a kernel \
      that only reads reaches on the same device.

      SHAPE is \(SyntheticShape.all.map(\.name).joined(separator: ", ")), or numbers: \
      layers=32,width=4096,heads=32,kv-heads=8,head-size=128,ff=14336,vocabulary=128256[,tied]. TYPE is one of \
      \(FormatList.known); output matrices get the type that files usually give them.
      """)

  @OptionGroup var source: BenchSubject

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The formats of the random weights, as a list.", valueName: "types"),
    transform: FormatList.init(text:))
  var type = FormatList([.q4_k])

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Tokens of the prompts, as a list; 0 is none.", valueName: "counts"))
  var prompt = CountList([512])

  @Option(
    name: [.customShort("n"), .customLong("tokens")],
    parsing: .unconditional,
    help: ArgumentHelp("Tokens to generate for each sequence; 0 is none.", valueName: "count"))
  var tokens = 128

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Tokens in the cache before generation, as a list.", valueName: "counts"))
  var depth = CountList([64])

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Sequences that generate at once, as a list; auto for as many as memory allows.", valueName: "counts"))
  var batch = BatchChoice.counts(CountList([1]))

  @Flag(
    help: "Show where the time of one step goes, stage by stage, for every --depth and --batch.")
  var plan = false

  @OptionGroup(title: "Ablation")
  var ablation: AblationOptions

  @OptionGroup(title: "Memory")
  var memory: MemoryBudgetOptions

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Keys and values in host memory, brought to the device layer by layer: auto (as many as do not fit), on (all) or off; "
        + "a list measures each.",
      valueName: "when"))
  var kvOffload = ChoiceList<KVOffload>([.auto])

  @OptionGroup var cache: CacheOptions

  @OptionGroup var common: BenchOptions

  @Flag(help: "Cut products by rule, not as measured at the first use of the device.")
  var noTuning = false

  @Flag(
    name: .customLong("no-overlap"),
    help: "Let each stage of a token wait at a barrier for the one before, on devices that need not.")
  var noOverlap = false

  func validate() throws {
    if case .counts(let list) = batch {
      guard list.counts.allSatisfy({ (1...ModelWorkload.mostSequences).contains($0) }) else {
        throw ValidationError("--batch takes counts from 1 to \(ModelWorkload.mostSequences), or auto")
      }
    }
    guard (0...CountList.most).contains(tokens) else {
      throw ValidationError("-n \(tokens) is not possible: use 0 to \(CountList.most)")
    }
    guard ablation.methods.allSatisfy(\.isFast) || !memory.options.isGiven else {
      throw ValidationError(
        "--fusion off and --linear naive want all weights on the device: leave out the memory options")
    }
  }

  private static func columns(isAblation: Bool, isOffload: Bool) -> [Report.Column] {
    [
      Report.Column(key: "model", title: "model", width: 24, isHidden: true),
      Report.Column(key: "test", title: "test", width: 28),
      Report.Column(key: "fusion", title: "fusion", width: 6, isHidden: !isAblation),
      Report.Column(key: "linear", title: "linear", width: 6, isHidden: !isAblation),
      Report.Column(key: "gemm", title: "gemm", width: 7, isHidden: !isAblation),
      Report.Column(key: "kv_offload", title: "kv", width: 4, isHidden: !isOffload),
      Report.Column(key: "kind", title: "kind", width: 6, isHidden: true),
      Report.Column(key: "tokens", title: "tokens", width: 6, isHidden: true),
      Report.Column(key: "depth", title: "depth", width: 6, isHidden: true),
      Report.Column(key: "batch", title: "batch", width: 5, isHidden: true),
      Report.Column(key: "tokens_per_second", title: "tokens/s", width: 10),
      Report.Column(key: "least", title: "least", width: 10),
      Report.Column(key: "most", title: "most", width: 10),
      Report.Column(key: "gigabytes_per_second", title: "GB/s", width: 8),
      Report.Column(key: "percent_of_read_bandwidth", title: "% of read", width: 9),
      Report.Column(key: "teraflops", title: "TFLOPS", width: 7),
      Report.Column(key: "link_gigabytes_per_second", title: "link GB/s", width: 9),
      Report.Column(key: "percent_of_link", title: "% of link", width: 9),
    ]
  }

  private static let planColumns = [
    Report.Column(key: "model", title: "model", width: 24, isHidden: true),
    Report.Column(key: "depth", title: "depth", width: 6, isHidden: true),
    Report.Column(key: "batch", title: "batch", width: 5, isHidden: true),
    Report.Column(key: "fusion", title: "fusion", width: 6, isHidden: true),
    Report.Column(key: "linear", title: "linear", width: 6, isHidden: true),
    Report.Column(key: "gemm", title: "gemm", width: 7, isHidden: true),
    Report.Column(key: "stage", title: "stage", width: 22),
    Report.Column(key: "count", title: "count", width: 5),
    Report.Column(key: "microseconds", title: "us", width: 10),
    Report.Column(key: "microseconds_each", title: "us each", width: 8),
    Report.Column(key: "megabytes", title: "MB", width: 9),
    Report.Column(key: "gigabytes_per_second", title: "GB/s", width: 8),
    Report.Column(key: "percent_of_read_bandwidth", title: "% of read", width: 9),
    Report.Column(key: "idle_microseconds", title: "idle us", width: 9),
  ]

  func run() throws {
    // What is wrong with them is said before anything is measured.
    let subjects = try subjects()
    let benchmark = try common.open()
    for method in ablation.methods { try benchmark.check(method) }
    let report = Report(
      style: common.style,
      columns: Self.columns(isAblation: ablation.isGiven, isOffload: kvOffload.values != [.auto]))
    let plans = Report(style: common.style, columns: Self.planColumns)
    let progress = Progress()
    defer { progress.clear() }
    progress.draw("measuring", detail: "read bandwidth")
    let bandwidth = try Bandwidth(benchmark: benchmark, repetitions: common.repetitions).read()
    progress.clear()
    try report.note(
      "device   \(benchmark.name), a kernel reads \(Format.decimal(bandwidth.median / 1e9, 1)) GB/s")
    var models: [JSON] = []
    var variants = VariantNotes()
    for (model, method, offload) in subjects.flatMap({ model in
      ablation.methods.flatMap { method in kvOffload.values.map { (model, method, $0) } }
    }) {
      let subject = try load(model, method, offload, on: benchmark, progress: progress)
      progress.clear()
      try report.note(
        "model    \(model.path)"
          + (ablation.isGiven
            ? ", fusion \(method.fusionText), linear \(method.linear), gemm \(method.gemmText)" : "")
          + ", loaded in \(Format.decimal(subject.loadSeconds, 2)) s, "
          + "\(Format.bytes(subject.weightBytes)) of weights a step")
      if let text = subject.placementText { try report.note("weights  \(text)") }
      if let cache = subject.cacheStreaming {
        let text = StreamText.prediction(
          cache, weights: subject.streaming, positions: depth.counts.max() ?? 1)
        try report.note("cache    \(text)")
      }
      for text in StreamText.predictions(subject.streaming.map { [$0] } ?? []) {
        try report.note("stream   \(text)")
      }
      report.startTable()
      let runner = Runner(
        command: self, subject: subject, method: method, offload: offload, bandwidth: bandwidth.median,
        progress: progress)
      try runner.measure(report)
      if plan { try runner.profile(plans) }
      if subject.placementText != nil {
        try report.note(
          "memory   \(Format.bytes(subject.deviceMemory)) of the device's, "
            + "at most \(peakHostMemory().map(Format.bytes) ?? "unknown") of the host's")
      }
      models.append(
        .object([
          ("model", .string(model.path)), ("fusion", .string(method.fusionText)),
          ("linear", .string(method.linear.rawValue)), ("gemm", .string(method.gemmText)),
          ("load_seconds", .double(subject.loadSeconds)),
          ("weight_bytes", .int(subject.weightBytes)),
        ]))
      if common.verbose { variants.noteNew(benchmark) }
    }
    if common.style == .json {
      try Output.write(
        JSON.object([
          ("device", .string(benchmark.name)),
          ("read_gigabytes_per_second", .double(bandwidth.median / 1e9)),
          ("models", .array(models)), ("results", report.json), ("stages", plans.json),
        ]).text + "\n")
    }
    try common.close(benchmark)
  }

  /// Every model that is asked for, none of them loaded.
  private func subjects() throws -> [LanguageModel] {
    // A file has formats of its own.
    try (source.model == nil ? type.types : [type.types[0]]).map(source.open)
  }

  private func load(
    _ model: LanguageModel, _ method: StepMethod, _ offload: KVOffload, on benchmark: BenchmarkDevice,
    progress: Progress
  ) throws -> ModelBenchmark {
    var workload = ModelWorkload(
      prompts: prompt.counts.filter { $0 > 0 }, depths: tokens > 0 || plan ? depth.counts : [],
      batches: [1], tokens: tokens, tunes: !noTuning, overlaps: !noOverlap, method: method,
      memory: memory.options, cacheType: cache.kvType
    ).offloading(offload)
    switch batch {
    case .counts(let list): workload.batches = list.counts
    case .largest:
      workload.batches = [
        try ModelBenchmark.largestBatch(benchmark: benchmark, model: model, workload: workload)
      ]
    }
    return try ModelBenchmark(benchmark: benchmark, model: model, workload: workload) { loaded, total in
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
      progress.draw(
        "loading", done: loaded, total: total, detail: "\(Format.bytes(loaded)) of \(Format.bytes(total))")
    }
  }

  /// The figures of one model.
  private struct Runner {
    let command: BenchModel
    let subject: ModelBenchmark
    let method: StepMethod
    let offload: KVOffload
    /// Bytes a second that a kernel reads.
    let bandwidth: Double
    let progress: Progress

    func measure(_ report: Report) throws {
      let repetitions = command.common.repetitions
      for count in command.prompt.counts where count > 0 {
        progress.draw("measuring", detail: "a prompt of \(count)")
        let seconds = try watching { try subject.prompt(count, repetitions: repetitions) }
        let speed = seconds.map { Double(count) / $0 }
        progress.clear()
        try report.add(
          [
            .text(subject.model.path), .text("prompt \(count)"),
          ] + methodCells + [
            .text(offload.rawValue), .text("prompt"), .count(count), .count(0),
            .count(1),
          ] + Self.cells(speed) + [
            .none, .none, .number(subject.promptOperations(count) / seconds.median / 1e12, decimals: 2),
            .none,
            .none,
          ])
      }
      guard command.tokens > 0 else { return }
      try forEachStep { depth, batch in
        progress.draw("measuring", detail: "generation for \(batch) after \(depth)")
        let seconds = try watching {
          try subject.decode(depth: depth, batch: batch, repetitions: repetitions)
        }
        let bytes = subject.bytesRead(depth: depth, batch: batch) / seconds.median
        progress.clear()
        try report.add(
          [
            .text(subject.model.path),
            .text("decode \(command.tokens) after \(depth)" + (batch > 1 ? " x \(batch)" : "")),
          ] + methodCells + [
            .text(offload.rawValue), .text("decode"), .count(command.tokens), .count(depth), .count(batch),
          ] + Self.cells(seconds.map { Double(batch) / $0 }) + [
            .number(bytes / 1e9, decimals: 1), .number(bytes / bandwidth * 100, decimals: 1), .none,
          ] + link(seconds, depth: depth, batch: batch))
      }
    }

    /// What a step brings to the device a second, and how that compares with a copy alone.
    private func link(_ seconds: Samples, depth: Int, batch: Int) -> [Report.Cell] {
      let (weights, cache) = (subject.streaming, subject.cacheStreaming)
      let alone = max(weights?.linkRate ?? 0, cache?.linkRate ?? 0)
      guard alone > 0 else { return [.none, .none] }
      let middle = depth + command.tokens / 2
      let bytes =
        (weights.map { $0.hostBytes + $0.fileBytes } ?? 0)
        + (cache?.byteCount(positions: middle, sequences: batch) ?? 0)
      let rate = Double(bytes) / seconds.median
      return [.number(rate / 1e9, decimals: 1), .number(rate / alone * 100, decimals: 1)]
    }

    /// With --verbose, says what link and disk did meanwhile.
    private func watching(_ body: () throws -> Samples) throws -> Samples {
      guard command.common.verbose, let before = subject.streaming, let watch = subject.watchStream() else {
        return try body()
      }
      let result = Result { try body() }
      let times = watch.end()
      progress.clear()
      if let after = subject.streaming {
        Output.note("stream   \(StreamText.activity(from: before, to: after, times))")
      }
      return try result.get()
    }

    func profile(_ report: Report) throws {
      try forEachStep { depth, batch in
        progress.draw("measuring", detail: "the stages of a step for \(batch) after \(depth)")
        let profile = try subject.profile(
          depth: depth, batch: batch, repetitions: max(20, command.common.repetitions))
        progress.clear()
        try report.note(
          "one step for \(Format.count(batch, "sequence")) after \(depth) tokens, time stamps around every barrier:"
        )
        report.startTable()
        for line in profile.lines + [profile.total] {
          let speed = line.microseconds > 0 && line.bytes > 0 ? line.bytes / line.microseconds * 1e6 : nil
          try report.add(
            [
              .text(subject.model.path), .count(depth), .count(batch),
            ] + methodCells + [
              .text(line.name), .count(line.count),
              .number(line.microseconds, decimals: 1),
              .number(line.microseconds / Double(max(line.count, 1)), decimals: 2),
              line.bytes > 0 ? .number(line.bytes / 1e6, decimals: 2) : .none,
              speed.map { .number($0 / 1e9, decimals: 1) } ?? .none,
              speed.map { .number($0 / bandwidth * 100, decimals: 1) } ?? .none,
              .number(line.idleMicroseconds, decimals: 1),
            ])
        }
      }
    }

    private var methodCells: [Report.Cell] {
      [.text(method.fusionText), .text(method.linear.rawValue), .text(method.gemmText)]
    }

    private func forEachStep(_ body: (_ depth: Int, _ batch: Int) throws -> Void) throws {
      for depth in command.depth.counts {
        for batch in subject.batches { try body(depth, batch) }
      }
    }

    /// Median, least and most.
    private static func cells(_ speed: Samples) -> [Report.Cell] {
      [
        .number(speed.median, decimals: 1), .number(speed.least, decimals: 1),
        .number(speed.most, decimals: 1),
      ]
    }
  }
}

/// How many sequences generate at once.
enum BatchChoice: ExpressibleByArgument, CustomStringConvertible {
  case counts(CountList)
  /// As many as memory allows.
  case largest

  init?(argument: String) {
    if argument == "auto" {
      self = .largest
    } else if let list = CountList(argument) {
      self = .counts(list)
    } else {
      return nil
    }
  }

  var description: String {
    switch self {
    case .counts(let list): list.description
    case .largest: "auto"
    }
  }
}
