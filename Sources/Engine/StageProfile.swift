import CShaderInterface
import Kernels
import Transformer
import VulkanRuntime

/// What one kind of stage takes in a step.
package struct StageProfile: Sendable {
  package var name: String
  package var count: Int
  /// Microseconds of all stages of the kind, from the end of the stage before to the end of this one.
  package var microseconds: Double
  /// Bytes of weights that they read.
  package var weightBytes: Int
}

extension Engine {
  /// Runs one step of `rowCount` tokens at `depth` several times, and gives the time of each kind of stage (median).
  package func profile(rowCount: Int, depth: Int, repetitions: Int) throws -> [StageProfile] {
    var held: [UInt32] = []
    defer {
      try? runner.drain()
      pages.release(&held)
    }
    guard rowCount > 0, rowCount <= promptChunk, pages.grow(&held, tokens: depth + rowCount) else {
      throw EngineError(.option, "a step of \(rowCount) tokens at depth \(depth) does not fit the context")
    }
    try runner.setPages(held, sequence: 0, from: 0)
    let rows = (0..<rowCount).map { index in
      StepRow(
        token: UInt32(index % model.program.vocabularySize), position: UInt32(depth + index), sequence: 0,
        output_row: 0)
    }
    let sample = SamplingParameters().device(sequence: 0, position: depth + rowCount)
    var times: [String: [Double]] = [:]
    var counts: [String: Int] = [:]
    var bytes: [String: Int] = [:]
    var order: [String] = []
    for repetition in 0..<repetitions {
      let profile = try runner.profile(rows: rows, outputs: [rowCount - 1], samples: [sample])
      var sums: [String: Double] = [:]
      for (stage, microseconds) in profile {
        let name = stage.map { Self.name(of: model.program.stages[$0]) } ?? "sample"
        sums[name, default: 0] += microseconds
        guard repetition == 0 else { continue }
        if counts[name] == nil { order.append(name) }
        counts[name, default: 0] += 1
        if let stage { bytes[name, default: 0] += runner.model.stages[stage].matrixBytes }
      }
      for (name, sum) in sums { times[name, default: []].append(sum) }
    }
    return order.map { name in
      let sorted = times[name, default: [0]].sorted()
      return StageProfile(
        name: name, count: counts[name] ?? 0, microseconds: sorted[sorted.count / 2],
        weightBytes: bytes[name] ?? 0)
    }
  }

  private static func name(of stage: Stage) -> String {
    switch stage {
    case .embed: "embed"
    case .queryKeyValue: "norm+QKV+rope"
    case .attention: "attention"
    case .residualProjection(let stage): stage.input == .attention ? "output projection" : "down projection"
    case .gatedFeedForward: "norm+gate/up"
    case .logits: "norm+logits"
    }
  }
}
