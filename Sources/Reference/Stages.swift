import Transformer

#if canImport(Glibc)
  import Glibc
#endif

/// Every stage of a `Program` in double precision: the oracle that the GPU's kernels are held against.
///
/// Activations are flat arrays, a row for each token. The functions take what the stage takes and return what it
/// writes; weights come from a `WeightReader`. Written for clarity first: nothing is fused, nothing is approximated.
package enum ReferenceStages {

  /// `x = table[token] * scale`: [tokens, width].
  package static func embed(
    _ stage: EmbedStage, tokens: [Int32], weights: WeightReader
  ) throws -> [Double] {
    for token in tokens where token < 0 || Int(token) >= stage.table.rows.count {
      throw ReferenceError("token \(token) is outside the vocabulary of \(stage.table.rows.count)")
    }
    return try weights.rows(tokens.map(Int.init), of: stage.table).map { $0 * Double(stage.scale) }
  }

  /// Queries [tokens, heads * headSize], keys and values [tokens, kvHeads * headSize] of one layer.
  package static func queryKeyValue(
    _ stage: QueryKeyValueStage, x: [Double], positions: [Int], weights: WeightReader
  ) throws -> (queries: [Double], keys: [Double], values: [Double]) {
    try queryKeyValue(
      stage, normed: norm(x, stage.norm, weights: weights), positions: positions, weights: weights)
  }

  /// The same of inputs that the norm has been applied to, perhaps as a device rounds them.
  package static func queryKeyValue(
    _ stage: QueryKeyValueStage, normed: [Double], positions: [Int], weights: WeightReader
  ) throws -> (queries: [Double], keys: [Double], values: [Double]) {
    var queries = try linear(normed, stage.query, bias: stage.queryBias, weights: weights)
    var keys = try linear(normed, stage.key, bias: stage.keyBias, weights: weights)
    let values = try linear(normed, stage.value, bias: stage.valueBias, weights: weights)
    if let headNorm = stage.queryNorm { queries = try norm(queries, headNorm, weights: weights) }
    if let headNorm = stage.keyNorm { keys = try norm(keys, headNorm, weights: weights) }
    rotate(&queries, positions: positions, headSize: stage.heads.headSize, stage.rope)
    rotate(&keys, positions: positions, headSize: stage.heads.headSize, stage.rope)
    return (queries, keys, values)
  }

  /// Causal attention [tokens, heads * headSize] of queries at `positions` over one sequence's keys and values,
  /// which start at position 0 and reach at least the last query's.
  package static func attention(
    _ stage: AttentionStage, queries: [Double], positions: [Int], keys: [Double], values: [Double]
  ) -> [Double] {
    let heads = stage.heads
    let size = heads.headSize
    let queriesPerKV = heads.headCount / heads.kvHeadCount
    let kvWidth = heads.kvHeadCount * size
    var output = [Double](repeating: 0, count: queries.count)
    for (token, position) in positions.enumerated() {
      let first = stage.window.map { max(0, position - $0 + 1) } ?? 0
      for head in 0..<heads.headCount {
        let query = (token * heads.headCount + head) * size
        let kvHead = head / queriesPerKV * size
        let scores = (first...position).map { seen in
          var sum = 0.0
          for i in 0..<size { sum += queries[query + i] * keys[seen * kvWidth + kvHead + i] }
          return softcapped(sum * Double(stage.scale), stage.softcap)
        }
        for (offset, probability) in softmax(scores).enumerated() {
          let value = (first + offset) * kvWidth + kvHead
          for i in 0..<size { output[query + i] += probability * values[value + i] }
        }
      }
    }
    return output
  }

  /// `x + postNorm(weight * input + bias)`: [tokens, width].
  package static func residualProjection(
    _ stage: ResidualProjectionStage, x: [Double], input: [Double], weights: WeightReader
  ) throws -> [Double] {
    var added = try linear(input, stage.weight, bias: stage.bias, weights: weights)
    if let postNorm = stage.postNorm { added = try norm(added, postNorm, weights: weights) }
    return zip(x, added).map { $0 + $1 }
  }

  /// `activation(gate * norm(x)) * (up * norm(x))`: [tokens, feedForwardWidth].
  package static func gatedFeedForward(
    _ stage: GatedFeedForwardStage, x: [Double], weights: WeightReader
  ) throws -> [Double] {
    try gatedFeedForward(stage, normed: norm(x, stage.norm, weights: weights), weights: weights)
  }

  /// The same of inputs that the norm has been applied to.
  package static func gatedFeedForward(
    _ stage: GatedFeedForwardStage, normed: [Double], weights: WeightReader
  ) throws -> [Double] {
    let gate = try linear(normed, stage.gate, weights: weights)
    let up = try linear(normed, stage.up, weights: weights)
    return zip(gate, up).map { activate($0, stage.activation) * $1 }
  }

  /// `softcap(table * norm(x))`: [tokens, vocabulary].
  package static func logits(
    _ stage: LogitsStage, x: [Double], weights: WeightReader
  ) throws -> [Double] {
    try logits(stage, normed: norm(x, stage.norm, weights: weights), weights: weights)
  }

  /// The same of inputs that the norm has been applied to.
  package static func logits(
    _ stage: LogitsStage, normed: [Double], weights: WeightReader
  ) throws -> [Double] {
    try linear(normed, stage.table, weights: weights).map { softcapped($0, stage.softcap) }
  }

  // MARK: - Parts of stages

  /// Root-mean-square norm of every row of `x`; rows are as long as the norm's weight (a head's, for head norms).
  package static func norm(_ x: [Double], _ norm: Norm, weights: WeightReader) throws -> [Double] {
    let weight = try weights.vector(norm.weight)
    var result = x
    for start in stride(from: 0, to: x.count, by: weight.count) {
      var squares = 0.0
      for i in 0..<weight.count { squares += x[start + i] * x[start + i] }
      let scale = 1 / (squares / Double(weight.count) + Double(norm.epsilon)).squareRoot()
      for i in 0..<weight.count { result[start + i] = x[start + i] * scale * weight[i] }
    }
    return result
  }

  /// `matrix * x + bias` for every row of `x`: [tokens, rows of the matrix].
  package static func linear(
    _ x: [Double], _ matrix: TensorSlice, bias: TensorSlice? = nil, weights: WeightReader
  ) throws -> [Double] {
    let columns = matrix.columns.count
    let rows = matrix.rows.count
    let tokens = x.count / columns
    let biases = try bias.map { try weights.vector($0) }
    var result = [Double](repeating: 0, count: tokens * rows)
    try x.withUnsafeBufferPointer { x in
      try weights.forEachRow(of: matrix) { row, weights in
        for token in 0..<tokens {
          let dot = dotProduct(
            weights, UnsafeBufferPointer(rebasing: x[token * columns..<(token + 1) * columns]))
          result[token * rows + row] = dot + (biases?[row] ?? 0)
        }
      }
    }
    return result
  }

  /// Turns the pairs of every head of `x` by the angle of its token's position.
  package static func rotate(_ x: inout [Double], positions: [Int], headSize: Int, _ rope: Rope) {
    let frequencies = rope.frequencies
    let magnitude = Double(rope.magnitude)
    guard !positions.isEmpty else { return }
    let width = x.count / positions.count
    for (token, position) in positions.enumerated() {
      for head in stride(from: token * width, to: (token + 1) * width, by: headSize) {
        for (pair, frequency) in frequencies.enumerated() {
          let (first, second) =
            switch rope.pairing {
            case .adjacent: (head + 2 * pair, head + 2 * pair + 1)
            case .halves: (head + pair, head + pair + rope.rotatedSize / 2)
            }
          let cosine = cos(Double(position) * frequency) * magnitude
          let sine = sin(Double(position) * frequency) * magnitude
          (x[first], x[second]) = (
            x[first] * cosine - x[second] * sine, x[first] * sine + x[second] * cosine
          )
        }
      }
    }
  }

  package static func activate(_ x: Double, _ activation: Activation) -> Double {
    switch activation {
    case .silu: x / (1 + exp(-x))
    case .geluTanh: 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
    }
  }

  package static func softcapped(_ x: Double, _ softcap: Float?) -> Double {
    softcap.map { Double($0) * tanh(x / Double($0)) } ?? x
  }

  package static func softmax(_ x: [Double]) -> [Double] {
    let largest = x.max() ?? 0
    let powers = x.map { exp($0 - largest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
  }

  /// Four sums side by side: the one place where the reference's time goes.
  private static func dotProduct(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Double>) -> Double
  {
    var sums = (0.0, 0.0, 0.0, 0.0)
    var i = 0
    while i + 4 <= a.count {
      sums.0 += Double(a[i]) * b[i]
      sums.1 += Double(a[i + 1]) * b[i + 1]
      sums.2 += Double(a[i + 2]) * b[i + 2]
      sums.3 += Double(a[i + 3]) * b[i + 3]
      i += 4
    }
    while i < a.count {
      sums.0 += Double(a[i]) * b[i]
      i += 1
    }
    return (sums.0 + sums.1) + (sums.2 + sums.3)
  }
}
