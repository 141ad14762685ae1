import CShaderInterface
import Kernels
import ModelFiles
import Reference
import Transformer
import VulkanRuntime

/// One dispatch of the linear kernel with random inputs.
struct LinearCheck {
  let bench: TestBench
  let name: String
  let reader: WeightReader
  let columnCount: Int
  /// Nil: the kernel's own choice.
  let tiling: LinearTiling?

  static let tolerance = 2e-5
  /// Halves have 11 bits.
  static let halfTolerance = 1e-3

  func run(_ stage: Stage, _ weights: DeviceStage) throws {
    switch (stage, weights) {
    case (.logits(let stage), .logits(let weights)): try logits(stage, weights)
    case (.residualProjection(let stage), .residualProjection(let weights)): try residual(stage, weights)
    case (.gatedFeedForward(let stage), .gatedFeedForward(let weights)): try gated(stage, weights)
    case (.queryKeyValue(let stage), .queryKeyValue(let weights)): try queryKeyValue(stage, weights)
    default: preconditionFailure("a stage without a linear kernel")
    }
  }

  private func doubles(_ values: [Float]) -> [Double] { values.map(Double.init) }

  /// Columns that are dispatched: more than the step has, as in a plan recorded for a larger one.
  private var dispatched: Int {
    var count = 1
    while count < columnCount { count *= 2 }
    return count
  }

  private func record(_ kernel: LinearKernel, _ push: LinearPush, _ commands: CommandBuffer) throws {
    let chosen = kernel.tiling(columnCount: dispatched, traits: bench.traits)
    if tiling == nil { bench.chosenTilings.insert(LinearTiling(chosen)) }
    try kernel.record(
      commands, push: push, columnCount: dispatched, cache: bench.cache, traits: bench.traits,
      tiling: tiling?.applied(to: chosen) ?? chosen)
  }

  private func plainRows(_ count: Int) -> [StepRow] {
    (0..<count).map { StepRow(token: 0, position: UInt32($0), sequence: 0, output_row: 0) }
  }

  private func logits(_ stage: LogitsStage, _ weights: DeviceStage.Logits) throws {
    var random = bench.random(name)
    let width = stage.table.columns.count
    let rowCount = columnCount + 3
    let x = random.normals(rowCount * width)
    let outputRows = Array((0..<rowCount).shuffled(using: &random).prefix(columnCount))
    var rows = plainRows(rowCount)
    for (index, row) in outputRows.enumerated() { rows[index].output_row = UInt32(row) }
    var image = bench.newImage()
    let stride = (stage.table.rows.count + 63) / 64 * 64
    let outputs = image.addPoisoned(columnCount * stride)
    var push = LinearPush()
    push.inputs = image.addActivations(x, width: width).address
    push.input_stride = UInt32(activationStride(width))
    push.step = image.addStep(rows, outputCount: columnCount).address
    push.norm = weights.norm
    push.epsilon = stage.norm.epsilon
    push.outputs = outputs.address
    push.output_stride = UInt32(stride)
    push.softcap = stage.softcap ?? 0
    let kernel = LinearKernel(matrix: weights.matrix, epilogue: .store, hasNorm: true, gathersOutputs: true)
    try bench.check(name, image: image) { commands in
      try record(kernel, push, commands)
    } compare: { outcome in
      let gathered = outputRows.flatMap { x[$0 * width..<($0 + 1) * width] }
      let expected = try ReferenceStages.logits(stage, x: doubles(gathered), weights: reader)
      let count = stage.table.rows.count
      let found = expected.indices.map { outcome.float(outputs, $0 / count * stride + $0 % count) }
      return [Comparison(found: found, expected: expected, tolerance: Self.tolerance)]
    }
  }

  private func residual(
    _ stage: ResidualProjectionStage, _ weights: DeviceStage.ResidualProjection
  ) throws {
    var random = bench.random(name)
    let width = stage.weight.columns.count
    let outputWidth = stage.weight.rows.count
    let input = random.normals(columnCount * width)
    let x = random.normals(columnCount * outputWidth)
    var image = bench.newImage()
    let stride = activationStride(outputWidth)
    let outputs = image.addActivations(x, width: outputWidth)
    var push = LinearPush()
    push.inputs = image.addActivations(input, width: width).address
    push.input_stride = UInt32(activationStride(width))
    push.step = image.addStep(plainRows(columnCount)).address
    push.outputs = outputs.address
    push.output_stride = UInt32(stride)
    push.bias = weights.bias
    let scratch = image.addPoisoned(columnCount * stride)
    if let norm = stage.postNorm {
      var extras = LinearExtrasData()
      extras.scratch = scratch.address
      extras.scratch_stride = UInt32(stride)
      extras.counters = image.add([UInt32](repeating: 0, count: dispatched)).address
      extras.post_norm = weights.postNorm
      extras.norm_epsilon = norm.epsilon
      push.extras = image.add(structs: [extras]).address
    }
    let kernel = LinearKernel(
      matrix: weights.matrix, epilogue: stage.postNorm == nil ? .residual : .residualNorm,
      hasBias: stage.bias != nil)
    try bench.check(name, image: image) { commands in
      try record(kernel, push, commands)
    } compare: { outcome in
      if stage.postNorm != nil { outcome.ignore(scratch) }
      let expected = try ReferenceStages.residualProjection(
        stage, x: doubles(x), input: doubles(input), weights: reader)
      let found = expected.indices.map {
        outcome.float(outputs, $0 / outputWidth * stride + activationIndex($0 % outputWidth))
      }
      return [Comparison(found: found, expected: expected, tolerance: Self.tolerance)]
    }
  }

  private func gated(_ stage: GatedFeedForwardStage, _ weights: DeviceStage.GatedFeedForward) throws {
    var random = bench.random(name)
    let width = stage.gate.columns.count
    let outputWidth = stage.gate.rows.count
    let x = random.normals(columnCount * width)
    var image = bench.newImage()
    let stride = activationStride(outputWidth)
    let outputs = image.addPoisoned(columnCount * stride)
    var push = LinearPush()
    push.inputs = image.addActivations(x, width: width).address
    push.input_stride = UInt32(activationStride(width))
    push.step = image.addStep(plainRows(columnCount)).address
    push.norm = weights.norm
    push.epsilon = stage.norm.epsilon
    push.outputs = outputs.address
    push.output_stride = UInt32(stride)
    let kernel = LinearKernel(
      matrix: weights.matrix, epilogue: .gated, hasNorm: true, activation: stage.activation)
    try bench.check(name, image: image) { commands in
      try record(kernel, push, commands)
    } compare: { outcome in
      let expected = try ReferenceStages.gatedFeedForward(stage, x: doubles(x), weights: reader)
      let found = expected.indices.map {
        outcome.float(outputs, $0 / outputWidth * stride + activationIndex($0 % outputWidth))
      }
      return [Comparison(found: found, expected: expected, tolerance: Self.tolerance)]
    }
  }

  private func queryKeyValue(_ stage: QueryKeyValueStage, _ weights: DeviceStage.QueryKeyValue) throws {
    var random = bench.random(name)
    let width = stage.query.columns.count
    let heads = stage.heads
    let x = random.normals(columnCount * width)
    let pages = PageTable(columnCount: columnCount, pagesPerSequence: 5, &random)
    var image = bench.newImage()
    let cacheWords = pages.pageCount * pages.tokens * heads.kvHeadCount * heads.headSize / 2
    let keys = image.addPoisoned(cacheWords)
    let values = image.addPoisoned(cacheWords)
    let queryStride = heads.headCount * heads.headSize
    let queries = image.addPoisoned(columnCount * queryStride)
    let scratchStride = (heads.headCount + heads.kvHeadCount) * heads.headSize
    let scratch = image.addPoisoned(columnCount * scratchStride)
    var extras = LinearExtrasData()
    extras.keys = keys.address
    extras.values = values.address
    extras.block_tables = image.add(pages.table).address
    extras.table_stride = UInt32(pages.pagesPerSequence)
    extras.rope = weights.rope
    extras.query_norm = weights.queryNorm
    extras.key_norm = weights.keyNorm
    extras.scratch = scratch.address
    extras.scratch_stride = UInt32(scratchStride)
    extras.counters =
      image.add(
        [UInt32](repeating: 0, count: (heads.headCount + heads.kvHeadCount) * dispatched)
      ).address
    extras.head_count = UInt32(heads.headCount)
    extras.kv_head_count = UInt32(heads.kvHeadCount)
    extras.head_size = UInt32(heads.headSize)
    extras.rotated_size = UInt32(stage.rope.rotatedSize)
    extras.rope_magnitude = stage.rope.magnitude
    extras.norm_epsilon = stage.queryNorm?.epsilon ?? 0
    var push = LinearPush()
    push.inputs = image.addActivations(x, width: width).address
    push.input_stride = UInt32(activationStride(width))
    push.step = image.addStep(pages.rows).address
    push.norm = weights.norm
    push.epsilon = stage.norm.epsilon
    push.outputs = queries.address
    push.output_stride = UInt32(queryStride)
    push.extras = image.add(structs: [extras]).address
    try bench.check(name, image: image) { commands in
      for matrix in weights.matrices {
        var push = push
        push.bias = weights.bias == 0 ? 0 : weights.bias + UInt64(4 * matrix.rowOffset)
        let kernel = LinearKernel(
          matrix: matrix, epilogue: stage.queryNorm == nil ? .queryKeyValue : .queryKeyValueNorm,
          hasNorm: true,
          hasBias: weights.bias != 0)
        try record(kernel, push, commands)
      }
    } compare: { outcome in
      if stage.queryNorm != nil { outcome.ignore(scratch) }
      let expected = try ReferenceStages.queryKeyValue(
        stage, x: doubles(x), positions: pages.rows.map { Int($0.position) }, weights: reader)
      let order = PairOrder(headSize: heads.headSize, rope: stage.rope)
      let foundQueries = expected.queries.indices.map { outcome.float(queries, $0) }
      let expectedQueries = expected.queries.indices.map {
        expected.queries[$0 / queryStride * queryStride + order.source($0 % queryStride)]
      }
      var found: [Double] = []
      var expectedCache: [Double] = []
      let kvWidth = heads.kvHeadCount * heads.headSize
      for (column, row) in pages.rows.enumerated() {
        for element in 0..<kvWidth {
          let place = pages.place(of: row, element: element, heads: heads)
          found.append(outcome.half(keys, place.key))
          expectedCache.append(expected.keys[column * kvWidth + order.source(element)])
          found.append(outcome.half(values, place.value))
          expectedCache.append(expected.values[column * kvWidth + element])
        }
      }
      return [
        Comparison("queries", found: foundQueries, expected: expectedQueries, tolerance: Self.tolerance),
        Comparison("keys and values", found: found, expected: expectedCache, tolerance: Self.halfTolerance),
      ]
    }
  }
}
