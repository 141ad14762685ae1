import ArgumentParser
import Benchmark
import Kernels
import ModelFiles
import Transformer

/// `vkinfer bench shaders`: single kernels, and what the device can do at best.
struct BenchShaders: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "shaders",
    abstract: "Measure single kernels, and what the device can do at best.",
    discussion: """
      First memory, copies and commands; then every kernel alone over the matrices of each --shape and --type, for \
      each number of --columns (tokens at once: from 64 on those of one prompt, below of as many sequences), \
      attention after each --depth, and sampling. Weights rotate over so many copies that no cache serves them. \
      Times are of the device's clock, a dispatch with the barrier behind it; percentages are of what a kernel that \
      only reads reaches. --linear naive,sbi compares the plain product kernel with the tuned ones, --gemm \
      direct,matrix,bytes,tiles,columns those for many columns; --tilings tries every sound tiling of the matrix products \
      instead, and shows the fastest below the default.
      """)

  @Option(parsing: .unconditional, help: ArgumentHelp("Only what has this in its name.", valueName: "text"))
  var filter: String?

  @Option(
    parsing: .singleValue,
    help: ArgumentHelp("A shape, by name or by numbers; may be given again.", valueName: "shape"))
  var shape = ["llama-3.1-8b"]

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The formats of the weights, as a list.", valueName: "types"),
    transform: FormatList.init(text:))
  var type = FormatList([.q4_k])

  @Option(parsing: .unconditional, help: ArgumentHelp("Tokens at once, as a list.", valueName: "counts"))
  var columns = CountList([1, 8])

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Tokens in the cache for attention, as a list.", valueName: "counts"))
  var depth = CountList([64, 8192])

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Which kernels compute products, as a list.", valueName: "naive,sbi"))
  var linear = ChoiceList<StepMethod.Linear>([.sbi])

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Which kernels compute products of many columns, as a list.",
      valueName: "direct,matrix,bytes,tiles,columns"))
  var gemm: ChoiceList<StepMethod.Gemm>?

  @Flag(help: "Compare the tilings of matrix products.")
  var tilings = false

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Tilings to show below the default.", valueName: "count"))
  var best = 5

  @OptionGroup var cache: CacheOptions

  @OptionGroup var common: BenchOptions

  func validate() throws {
    guard columns.counts.allSatisfy({ (1...4096).contains($0) }) else {
      throw ValidationError("--columns takes counts from 1 to 4096")
    }
    guard !tilings || linear.values == [.sbi] else {
      throw ValidationError("--tilings compares cuts of the tuned kernels: leave --linear out")
    }
    guard gemm == nil || linear.values == [.sbi] else {
      throw ValidationError("--gemm compares the tuned kernels: leave --linear out")
    }
    guard
      !tilings
        || gemm.map({ $0.values.allSatisfy { $0 == .matrix || $0 == .bytes || $0 == .direct } }) ?? true
    else {
      throw ValidationError(
        "--tilings compares cuts on matrix units: of --gemm, it takes direct, matrix and bytes")
    }
    guard (1...1000).contains(best) else { throw ValidationError("--best must be from 1 to 1000") }
  }

  private var methods: [StepMethod] {
    gemm?.values.map { StepMethod(gemm: $0) } ?? linear.values.map { StepMethod(linear: $0) }
  }

  private var reportColumns: [Report.Column] {
    [
      Report.Column(key: "shape", title: "shape", width: 16, isHidden: true),
      Report.Column(key: "kernel", title: "kernel", width: tilings ? 98 : 52),
      Report.Column(key: "type", title: "type", width: 6),
      Report.Column(key: "columns", title: "columns", width: 7),
      Report.Column(key: "microseconds", title: "us", width: 10),
      Report.Column(key: "least", title: "least", width: 10),
      Report.Column(key: "most", title: "most", width: 10),
      Report.Column(key: "gigabytes_per_second", title: "GB/s", width: 8),
      Report.Column(key: "percent_of_read_bandwidth", title: "% of read", width: 9),
      Report.Column(key: "teraflops", title: "TFLOPS", width: 8),
      Report.Column(key: "compiler", title: "compiler", width: 8),
    ]
  }

  func run() throws {
    let shapes = try shape.map { try SyntheticShape(text: $0) }
    // What does not go together is said before anything is measured.
    for shape in shapes {
      for type in type.types { _ = try ModelDescription.synthetic(shape: shape, weights: type) }
      try shape.heads.check(cache.kvType)
    }
    let benchmark = try common.open(captureStatistics: true)
    for method in methods { try benchmark.check(method) }
    let report = Report(style: common.style, columns: reportColumns)
    let progress = Progress()
    defer { progress.clear() }
    let repetitions = common.repetitions
    progress.draw("measuring", detail: "read bandwidth")
    let bandwidth = try Bandwidth(benchmark: benchmark, repetitions: repetitions).read().median
    progress.clear()
    try report.note("device   \(benchmark.name), a kernel reads \(Format.decimal(bandwidth / 1e9, 1)) GB/s")
    let filter = filter
    var count = 0
    func wants(_ name: String) -> Bool {
      progress.draw("measuring", detail: name)
      return filter.map(name.contains) ?? true
    }
    var lastShape: String?
    func add(_ figure: KernelFigure, shape: String?) throws {
      progress.clear()
      count += 1
      if let shape, shape != lastShape {
        try report.note("shape    \(shape)")
        report.startTable()
        lastShape = shape
      }
      try report.add(Self.cells(figure, shape: shape, bandwidth: bandwidth))
    }
    if !tilings {
      try DeviceFigures(benchmark: benchmark, repetitions: repetitions, wants: wants).run {
        try add($0, shape: nil)
      }
    }
    for shape in shapes {
      let kernels = KernelBenchmark(
        benchmark: benchmark, shape: shape, repetitions: repetitions, cacheType: cache.kvType, wants: wants)
      for type in type.types {
        for method in methods {
          if tilings {
            try kernels.tilings(type, columns: columns.counts, method: method, count: best) {
              try add($0, shape: shape.name)
            }
          } else {
            try kernels.weights(type, columns: columns.counts, method: method) {
              try add($0, shape: shape.name)
            }
          }
        }
      }
      if !tilings {
        try kernels.others(columns: columns.counts, depths: depth.counts) { try add($0, shape: shape.name) }
      }
    }
    progress.clear()
    guard count > 0 else {
      throw CommandError("nothing has \"\(filter ?? "")\" in its name; leave --filter out to see all names")
    }
    if common.style == .json {
      try Output.write(
        JSON.object([
          ("device", .string(benchmark.name)), ("read_gigabytes_per_second", .double(bandwidth / 1e9)),
          ("results", report.json),
        ]).text + "\n")
    }
    if common.verbose {
      var variants = VariantNotes()
      variants.noteNew(benchmark)
    }
    try common.close(benchmark)
  }

  private static func cells(_ figure: KernelFigure, shape: String?, bandwidth: Double) -> [Report.Cell] {
    let seconds = figure.microseconds.median / 1e6
    let speed = figure.bytes.map { $0 / seconds }
    return [
      .text(shape ?? ""), .text(figure.name), .text(figure.type ?? ""),
      figure.columns.map(Report.Cell.count) ?? .none,
      .number(figure.microseconds.median, decimals: 2), .number(figure.microseconds.least, decimals: 2),
      .number(figure.microseconds.most, decimals: 2), speed.map { .number($0 / 1e9, decimals: 1) } ?? .none,
      speed.map { .number($0 / bandwidth * 100, decimals: 1) } ?? .none,
      figure.operations.map { .number($0 / seconds / 1e12, decimals: 3) } ?? .none, .text(figure.compiler),
    ]
  }
}
