import ModelFiles
import Testing

@Suite struct RandomTensorSourceTests {
  private func weights(_ source: RandomTensorSource, _ name: String, rows: Range<Int>? = nil) throws
    -> [Float]
  {
    let tensor = try #require(source.tensor(name))
    return try source.withBytes(of: tensor, rows: rows ?? 0..<tensor.rows) {
      dequantize($0, type: tensor.type)
    }
  }

  private func tensor(_ name: String, _ shape: [Int], _ type: TensorType) throws -> TensorInfo {
    try #require(TensorInfo(name: name, shape: shape, type: type))
  }

  @Test(arguments: TensorType.allCases, [256, 4096])
  func weightsHaveTheSpreadOfATrainedModel(type: TensorType, columns: Int) throws {
    let source = RandomTensorSource(tensors: [try tensor("w", [columns, 65_536 / columns], type)], seed: 1)
    let weights = try weights(source, "w").map(Double.init)
    let mean = weights.reduce(0, +) / Double(weights.count)
    let deviation = (weights.reduce(0) { $0 + $1 * $1 } / Double(weights.count)).squareRoot()
    let expected = 1 / Double(columns).squareRoot()
    // The scales of mxfp4 are powers of two.
    let tolerance = type == .mxfp4 ? 0.45 : 0.1
    #expect(abs(deviation / expected - 1) < tolerance)
    #expect(abs(mean) < 0.05 * expected)
  }

  @Test func theSameSeedGivesTheSameBytes() throws {
    let tensors = [try tensor("a", [256, 8], .q4_k), try tensor("b", [256, 8], .q4_k)]
    let first = RandomTensorSource(tensors: tensors, seed: 7)
    // What else is in the model makes no difference.
    let second = RandomTensorSource(tensors: [tensors[1], try tensor("c", [64], .f32)], seed: 7)
    let other = RandomTensorSource(tensors: tensors, seed: 8)
    #expect(try weights(first, "b") == weights(second, "b"))
    #expect(try weights(first, "a") != weights(first, "b"))
    #expect(try weights(first, "a") != weights(other, "a"))
  }

  /// Larger than the pool, so that it is read round more than once.
  @Test func rowsDoNotDependOnHowTheyAreAskedFor() throws {
    let source = RandomTensorSource(tensors: [try tensor("w", [4096, 1200], .q8_0)], seed: 3)
    let tensor = try #require(source.tensor("w"))
    let whole = try source.withBytes(of: tensor, rows: 0..<1200) { Array($0) }
    #expect(whole.count == tensor.byteCount)
    for start in stride(from: 0, to: 1200, by: 100) {
      let rows = start..<start + 100
      let part = try source.withBytes(of: tensor, rows: rows) { Array($0) }
      #expect(part[...] == whole[rows.lowerBound * tensor.rowBytes..<rows.upperBound * tensor.rowBytes])
    }
    let rows = Set((0..<1200).map { whole[$0 * tensor.rowBytes..<($0 + 1) * tensor.rowBytes] })
    #expect(rows.count == 1200)
    #expect(try source.withBytes(of: tensor, rows: 5..<5) { $0.count } == 0)
  }

  /// Rows that lie in several pieces in the pool stay as they are while others are asked for.
  @Test func rowsStayWhileOthersAreRead() throws {
    let source = RandomTensorSource(tensors: [try tensor("w", [4096, 4800], .q8_0)], seed: 3)
    let tensor = try #require(source.tensor("w"))
    try source.withBytes(of: tensor, rows: 0..<2400) { first in
      let before = Array(first)
      try source.withBytes(of: tensor, rows: 2400..<4800) { second in
        #expect(first.baseAddress != second.baseAddress)
        #expect(!second.elementsEqual(before))
      }
      #expect(first.elementsEqual(before))
    }
  }

  @Test func normsAreNearOneAndBiasesNearZero() throws {
    let source = RandomTensorSource(
      tensors: [
        try tensor("blk.0.attn_norm.weight", [576], .f32), try tensor("blk.0.attn_q.bias", [576], .f32),
      ], seed: 1)
    #expect(try weights(source, "blk.0.attn_norm.weight").allSatisfy { (0.9...1.1).contains($0) })
    #expect(try weights(source, "blk.0.attn_q.bias").allSatisfy { (-0.1...0.1).contains($0) })
  }
}
