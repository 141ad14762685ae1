import Engine

/// Where the time of one step goes.
package struct StepProfile: Sendable {
  /// All stages of one kind.
  package struct Line: Sendable {
    package var name: String
    package var count: Int
    /// Microseconds of all of them, without what lies between.
    package var microseconds: Double
    /// Microseconds behind them in which nothing runs: the barriers.
    package var idleMicroseconds: Double
    /// Bytes of weights and cache that they read.
    package var bytes: Double
  }

  /// In the order in which their first stages run.
  package var lines: [Line]

  /// The whole step.
  package var total: Line {
    lines.reduce(into: Line(name: "total", count: 0, microseconds: 0, idleMicroseconds: 0, bytes: 0)) {
      $0.count += $1.count
      $0.microseconds += $1.microseconds
      $0.idleMicroseconds += $1.idleMicroseconds
      $0.bytes += $1.bytes
    }
  }

  /// Gathers several runs of the same step.
  struct Builder {
    private var lines: [Line] = []
    private var times: [String: [(busy: Double, idle: Double)]] = [:]

    /// Adds one run, stage by stage.
    mutating func add(_ stages: [(name: String, bytes: Double, time: ModelRunner.StageTime)]) {
      let isFirst = times.isEmpty
      var sums: [String: (busy: Double, idle: Double)] = [:]
      for (name, bytes, time) in stages {
        sums[name, default: (0, 0)].busy += time.microseconds
        sums[name, default: (0, 0)].idle += time.idleMicroseconds
        guard isFirst else { continue }
        let index = lines.firstIndex { $0.name == name } ?? lines.count
        if index == lines.count {
          lines.append(Line(name: name, count: 0, microseconds: 0, idleMicroseconds: 0, bytes: 0))
        }
        lines[index].count += 1
        lines[index].bytes += bytes
      }
      for (name, sum) in sums { times[name, default: []].append(sum) }
    }

    /// The medians of all runs.
    var profile: StepProfile {
      StepProfile(
        lines: lines.map { line in
          var line = line
          guard let runs = times[line.name] else { return line }
          line.microseconds = Samples(runs.map(\.busy)).median
          line.idleMicroseconds = Samples(runs.map(\.idle)).median
          return line
        })
    }
  }
}
