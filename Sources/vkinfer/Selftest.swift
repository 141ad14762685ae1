import ArgumentParser
import SelfTest

/// `vkinfer selftest`: every kernel on a device against the reference.
struct Selftest: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check every kernel on a device against a reference in double precision.",
    discussion: """
      Inputs are random; the seed that is printed gives the same ones again. One line a check, or one for each kernel \
      without --verbose; the exit code is not 0 when any fails.
      """)

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("A device's number in `vkinfer devices`, or part of its name.", valueName: "device"))
  var device: String?

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Only checks whose name contains this.", valueName: "text"))
  var filter: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Of the random inputs (default: random).", valueName: "number"))
  var seed: UInt64?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Checks that run at a time, as far as there are cores (default: 8 on GPUs, 1 on CPU drivers).",
      valueName: "count"))
  var jobs: Int?

  @Flag(
    help: "Only compile every pipeline, and show registers and spills where the driver tells; nothing runs.")
  var compileOnly = false

  @Flag(help: "Write one JSON object instead of the table.")
  var json = false

  @Flag(help: "Show every check.")
  var verbose = false

  func validate() throws {
    if compileOnly, filter != nil || seed != nil || jobs != nil {
      throw ValidationError("--compile-only takes none of --filter, --seed and --jobs")
    }
    if let jobs, !(1...64).contains(jobs) {
      throw ValidationError("--jobs \(jobs) is not possible: use 1 to 64")
    }
  }

  func run() throws {
    Interruption.watch()
    if compileOnly { try compile() } else { try check() }
  }

  /// What the checks of one kernel came to.
  private struct Line {
    var name: String
    var count = 0
    var failures = 0
    /// The largest error as a fraction of what is allowed.
    var worst = 0.0
    var microseconds = 0.0
  }

  private func check() throws {
    let progress = Progress()
    var output = Lines()
    var lines: [Line] = []
    var checks = 0
    let summary = try SelfTest.run(
      device: device, filter: filter, seed: seed, jobs: jobs, isCancelled: { Interruption.isRequested }
    ) { result in
      checks += 1
      let kernel = String(result.name.prefix { $0 != " " })
      let last = lines.firstIndex { $0.name == kernel } ?? lines.count
      if last == lines.count { lines.append(Line(name: kernel)) }
      lines[last].count += 1
      lines[last].failures += result.passed ? 0 : 1
      lines[last].worst = max(lines[last].worst, result.relativeError / result.tolerance)
      lines[last].microseconds += result.microseconds
      if !json, verbose || !result.passed {
        progress.clear()
        let detail = result.detail.isEmpty ? "" : ", \(result.detail)"
        output.add(
          "\(result.passed ? "ok  " : "FAIL") \(result.name): error \(Self.scientific(result.relativeError)), "
            + "allowed \(Self.scientific(result.tolerance))\(detail)")
      } else {
        progress.draw("checking", detail: "\(checks) checks, now \(kernel)")
      }
    }
    progress.clear()
    guard summary.checkCount > 0 || Interruption.isRequested else {
      throw CommandError(
        "no check has \"\(Format.oneLine(filter ?? "", limit: 200))\" in its name; leave --filter out to see all with --verbose"
      )
    }
    if json {
      try Output.write(
        JSON.object([
          ("device", .string(summary.device)), ("seed", .string(String(summary.seed))),
          ("checks", .int(summary.checkCount)),
          ("failures", .array(summary.failures.map { .string($0.name) })),
        ]).text + "\n")
    } else {
      output.add("device \(summary.device), seed \(summary.seed)")
      for line in lines {
        output.add(
          "\(line.failures == 0 ? "ok  " : "FAIL") \(line.name): \(Format.count(line.count, "check")), "
            + "\(line.failures) failed, largest error \(Format.decimal(line.worst * 100, 1)) % of what is allowed, "
            + "\(Format.decimal(line.microseconds / 1000, 1)) ms")
      }
      output.add("\(summary.checkCount - summary.failures.count) passed, \(summary.failures.count) failed")
    }
    try output.check()
    try LoadedEngine.checkValidation(messages: summary.validationMessageCount)
    if !summary.failures.isEmpty { throw ExitCode.failure }
    try endIfInterrupted()
  }

  private func compile() throws {
    let progress = Progress()
    var output = Lines()
    var done = 0
    var registers: [String: Double] = [:]
    let summary = try SelfTest.compileAll(device: device, isCancelled: { Interruption.isRequested }) {
      result in
      done += 1
      for statistic in result.statistics where statistic.name.contains("GPRs") || statistic.name == "LDS size"
      {
        registers[statistic.name] = max(registers[statistic.name] ?? 0, statistic.value)
      }
      let reason = result.failure ?? (result.spills ? "registers spill to memory" : nil)
      if !json, verbose || reason != nil {
        progress.clear()
        let statistics = result.statistics
          .filter { $0.name.contains("GPR") || $0.name.contains("pill") || $0.name.contains("cratch") }
          .map { "\($0.name) \(Format.decimal($0.value, 0))" }.joined(separator: ", ")
        output.add("\(reason == nil ? "ok  " : "FAIL") \(result.name): \(reason ?? statistics)")
      } else {
        progress.draw("compiling", detail: "\(done) pipelines")
      }
    }
    progress.clear()
    if json {
      try Output.write(
        JSON.object([
          ("device", .string(summary.device)), ("pipelines", .int(summary.pipelineCount)),
          ("spilling", .int(summary.spillCount)), ("failed", .int(summary.failureCount)),
          ("has_statistics", .bool(summary.hasStatistics)),
        ]).text + "\n")
    } else {
      let most = registers.sorted { $0.key < $1.key }.map { "\($0.key) up to \(Format.decimal($0.value, 0))" }
      output.add(
        "device \(summary.device): \(Format.count(summary.pipelineCount, "pipeline")), \(summary.spillCount) with "
          + "spills, \(summary.failureCount) failed"
          + (summary.hasStatistics ? "; \(most.joined(separator: ", "))" : "; the driver tells no statistics")
      )
    }
    try output.check()
    if summary.spillCount + summary.failureCount > 0 { throw ExitCode.failure }
    try endIfInterrupted()
  }

  private func endIfInterrupted() throws {
    guard Interruption.isRequested else { return }
    Output.note("interrupted: what is shown is of what was done until then")
    throw ExitCode(Interruption.exitCode)
  }

  /// Lines of output from where nothing can be thrown: the first that cannot be written is the last, and an error.
  private struct Lines {
    private var failure: (any Error)?

    mutating func add(_ line: String) {
      guard failure == nil else { return }
      do { try Output.write(line + "\n") } catch { failure = error }
    }

    func check() throws {
      if let failure { throw failure }
    }
  }

  /// "3.2e-07".
  private static func scientific(_ value: Double) -> String {
    guard value.isFinite, value > 0 else { return "\(value)" }
    var (mantissa, exponent) = (value, 0)
    while mantissa >= 10 {
      mantissa /= 10
      exponent += 1
    }
    while mantissa < 1 {
      mantissa *= 10
      exponent -= 1
    }
    return "\(Format.decimal(mantissa, 1))e\(exponent)"
  }
}
