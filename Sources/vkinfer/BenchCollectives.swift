import ArgumentParser
import Benchmark
import Engine
import Transformer

/// `vkinfer bench collectives`: what passing activations between devices costs.
struct BenchCollectives: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "collectives",
    abstract: "Measure what passes between devices: all-reduces and the like.",
    discussion: """
      Each figure is the time of one operation on float32 values between all --devices, up to 32 of which are submitted \
      together. GB/s are bytes of the operation a second; those of the link are what a device writes to the memory \
      that all share, or reads there, whichever is more. The same device may be there several times.
      """)

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The devices, with commas between.", valueName: "devices"))
  var devices = "0,0"

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Bytes of each operation, as a list.", valueName: "counts"))
  var bytes = CountList([4096, 16384, 65536, 1 << 20])

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "The operations, with commas between: "
        + Collective.allCases.map(\.rawValue).joined(separator: ", ") + "; or all.", valueName: "operations"))
  var operations = Collective.allReduce.rawValue

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "How devices wait for one another, with commas between: flags (in shared memory), semaphores (of one device), threads (of the host); default: those that work.",
      valueName: "paths"))
  var paths: String?

  @Option(
    name: .customLong("memory"),
    parsing: .unconditional,
    help: ArgumentHelp(
      "Where devices leave things for one another, with commas between: device (memory of the one that reads), host; default: those that work.",
      valueName: "kinds"))
  var memories: String?

  @Option(
    parsing: .unconditional, help: ArgumentHelp("How often each figure is measured.", valueName: "count"))
  var repetitions = 5

  @Flag(help: "Write comma-separated values.")
  var csv = false

  func validate() throws {
    guard (1...10000).contains(repetitions) else {
      throw ValidationError("--repetitions must be from 1 to 10000")
    }
    guard names.count > 1 else { throw ValidationError("--devices must name two devices or more") }
    guard bytes.counts.allSatisfy({ (1...(1 << 30)).contains($0) }) else {
      throw ValidationError("--bytes must be from 1 to \(1 << 30)")
    }
    _ = try (chosen, chosenPaths, chosenMemories)
  }

  private var names: [String] { devices.split(separator: ",").map(String.init) }

  private var chosen: [Collective] {
    get throws {
      if operations == "all" { return Collective.allCases }
      let names = operations.split(separator: ",")
      guard !names.isEmpty else { throw ValidationError("--operations names none: use all, or leave it out") }
      return try names.map { name in
        guard let operation = Collective(rawValue: String(name)) else {
          throw ValidationError("there is no operation \(name)")
        }
        return operation
      }
    }
  }

  /// Nil takes those that work.
  private var chosenPaths: Set<MeshPath>? { get throws { try Self.list(paths, "path") } }
  private var chosenMemories: Set<MeshMemory>? { get throws { try Self.list(memories, "memory") } }

  private static func list<Choice: RawRepresentable & Hashable>(
    _ text: String?, _ what: String
  ) throws -> Set<Choice>? where Choice.RawValue == String {
    try text.map { text in
      Set(
        try text.split(separator: ",").map { name in
          guard let choice = Choice(rawValue: String(name)) else {
            throw ValidationError("there is no \(what) \(name)")
          }
          return choice
        })
    }
  }

  func run() throws {
    Interruption.watch()
    let report = Report(
      style: csv ? .csv : .table,
      columns: [
        Report.Column(key: "operation", title: "operation", width: 20),
        Report.Column(key: "memory", title: "memory", width: 6),
        Report.Column(key: "path", title: "path", width: 10),
        Report.Column(key: "bytes", title: "bytes", width: 10),
        Report.Column(key: "microseconds", title: "us", width: 10),
        Report.Column(key: "predicted_microseconds", title: "predicted", width: 10),
        Report.Column(key: "least", title: "least", width: 10),
        Report.Column(key: "most", title: "most", width: 10),
        Report.Column(key: "gigabytes_per_second", title: "GB/s", width: 8),
        Report.Column(key: "link_gigabytes_per_second", title: "link GB/s", width: 9),
      ])
    let benchmark = try CollectiveBenchmark(
      devices: names, pipelineDirectory: EngineOptions.usualCacheDirectory)
    let (memories, paths) = (try chosenMemories, try chosenPaths)
    let trial = try benchmark.trial(
      memory: memories?.count == 1 ? memories?.first : nil, path: paths?.count == 1 ? paths?.first : nil)
    if !csv { Output.note(trial.text) }
    let transports = trial.working.filter {
      memories?.contains($0.memory) ?? true && paths?.contains($0.path) ?? true
    }
    guard !transports.isEmpty else { throw CommandError("nothing of what is asked for works: \(trial.text)") }
    let links = try transports.map { transport in
      (
        transport,
        try benchmark.link(transport, repetitions: repetitions) {
          if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
        }
      )
    }
    for operation in try chosen {
      for (transport, link) in links {
        for count in bytes.counts {
          let figure = try benchmark.run(
            operation, byteCount: count, transport: transport, repetitions: repetitions
          ) {
            if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
          }
          let seconds = figure.seconds
          let predicted = link.seconds(operation, byteCount: figure.byteCount, ranks: names.count)
          let rate = Double(figure.byteCount) / seconds.median / 1e9
          try report.add([
            .text(operation.rawValue), .text(transport.memory.rawValue), .text(transport.path.rawValue),
            .count(figure.byteCount),
            .number(seconds.median * 1e6, decimals: 1),
            .number(predicted * 1e6, decimals: 1), .number(seconds.least * 1e6, decimals: 1),
            .number(seconds.most * 1e6, decimals: 1), .number(rate, decimals: 2),
            .number(rate * figure.traffic, decimals: 2),
          ])
        }
      }
    }
  }
}
