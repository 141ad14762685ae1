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
  let inputs: ProductForm
  let next: ProductForm
  /// Whether the plain kernel is checked, which has but one tiling.
  var isNaive = false
  /// How `LinearTileKernel` cuts it, where that is checked.
  var tiles: LinearTileKernel.Tiling?

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

  private func made(_ kernel: LinearKernel) -> LinearKernel {
    var kernel = kernel
    kernel.isNaive = isNaive
    return kernel
  }

  private func tiling(of kernel: LinearKernel) -> LinearKernel.Tiling {
    let chosen = kernel.tiling(columnCount: dispatched, traits: bench.traits)
    return tiling?.applied(to: chosen) ?? chosen
  }

  private func record(_ kernel: LinearKernel, _ push: LinearPush, _ commands: CommandBuffer) throws {
    if let tiles {
      return try LinearTileKernel(kernel, tiling: tiles).record(
        commands, push: push, columnCount: dispatched, cache: bench.cache)
    }
    let tiling = tiling(of: kernel)
    // Half of the checks run as a chained stage does, after one that is done.
    var random = bench.random(name + " chained")
    let isChained = !kernel.lanesAreRows && !isNaive && random.next() % 2 == 0
    let chain = isChained ? try StageChain(device: bench.device, stageCount: 1) : nil
    try kernel.record(
      commands, push: push, columnCount: count(tiling), cache: bench.cache,
      tiling: tiling, chain: chain)
    chain?.keepAlive(commands)
  }

  private func groups(_ kernel: LinearKernel) -> Int {
    if let tiles { return LinearTileKernel(kernel, tiling: tiles).rowGroups }
    return kernel.groups(tiling(of: kernel), columnCount: dispatched).1
  }

  /// Single columns are dispatched as they are: see linear.glsl.
  private func count(_ tiling: LinearKernel.Tiling) -> Int { tiling.columns == 1 ? columnCount : dispatched }

  /// Puts `x`, [row][width], into the image as the stage before leaves it, and gives what a product makes of it:
  /// the inputs with the norm applied.
  private func addInputs(
    _ x: [Float], norm: Norm, image: inout MemoryImage, push: inout LinearPush
  ) throws -> [Double] {
    let weight = try reader.vector(norm.weight).map { Float($0) }
    let width = weight.count
    let prepared = ProductInputs(
      x.indices.map { x[$0] * weight[$0 % width] }, width: width, form: inputs, image: &image)
    push.inputs = prepared.values.address
    push.input_scales = prepared.scales.address
    push.epsilon = norm.epsilon
    // Parts of the sum of squares, of which there may be more than lanes of a subgroup.
    let parts = 37
    var squares = [Double](repeating: 0, count: x.count / width * parts)
    for (index, value) in x.enumerated() {
      squares[index / width * parts + index % width % parts] += Double(value * value)
    }
    push.squares = image.add(squares.map { Float($0) }).address
    push.square_count = UInt32(parts)
    return prepared.effective.indices.map { index in
      let row = index / width
      let sum = x[row * width..<(row + 1) * width].reduce(0.0) { $0 + Double($1) * Double($1) }
      return prepared.effective[index] / (sum / Double(width) + Double(norm.epsilon)).squareRoot()
    }
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
    let normed = try addInputs(x, norm: stage.norm, image: &image, push: &push)
    push.step = image.addStep(rows, outputCount: columnCount).address
    push.outputs = outputs.address
    push.output_stride = UInt32(stride)
    push.softcap = stage.softcap ?? 0
    let kernel = made(
      LinearKernel(
        matrix: weights.matrix, epilogue: .store, hasNorm: true, gathersOutputs: true, inputs: inputs))
    let groups = groups(kernel)
    let best = image.addPoisoned(columnCount * groups * 2)
    var extras = LinearExtrasData()
    extras.best = best.address
    push.extras = image.add(structs: [extras]).address
    try bench.check(name, image: image) { commands in
      try record(kernel, push, commands)
    } compare: { outcome in
      let gathered = outputRows.flatMap { normed[$0 * width..<($0 + 1) * width] }
      let expected = try ReferenceStages.logits(stage, normed: gathered, weights: reader)
      let count = stage.table.rows.count
      let found = expected.indices.map { outcome.float(outputs, $0 / count * stride + $0 % count) }
      // The best of all workgroups must be the best logit as it was stored, and the first of its kind.
      var wrong = 0
      for column in 0..<columnCount {
        var found = (value: -Double.infinity, row: 0)
        for group in 0..<groups {
          let value = outcome.float(best, (column * groups + group) * 2)
          let row = Int(outcome.word(best, (column * groups + group) * 2 + 1))
          if value > found.value { found = (value, row) }
        }
        let logits = (0..<count).map { outcome.float(outputs, column * stride + $0) }
        if let largest = logits.max(), logits.firstIndex(of: largest) != found.row { wrong += 1 }
      }
      return [
        Comparison(found: found, expected: expected, tolerance: Self.tolerance),
        Comparison("best", value: Double(wrong), tolerance: 0),
      ]
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
    let prepared = ProductInputs(input, width: width, form: inputs, image: &image)
    push.inputs = prepared.values.address
    push.input_scales = prepared.scales.address
    push.step = image.addStep(plainRows(columnCount)).address
    push.outputs = outputs.address
    push.output_stride = UInt32(stride)
    push.bias = weights.bias
    let scratch = image.addPoisoned(columnCount * stride)
    let next = outputWidth.isMultiple(of: 32) ? next : .floats
    let kernel = made(
      LinearKernel(
        matrix: weights.matrix, epilogue: stage.postNorm == nil ? .residual : .residualNorm,
        hasBias: stage.bias != nil, inputs: inputs, next: next))
    let left = NextOutputs(
      form: next, width: outputWidth, rowCount: columnCount,
      squareCount: next == .none ? 0 : stage.postNorm == nil ? groups(kernel) : 1,
      norm: random.normals(outputWidth), image: &image)
    var extras = LinearExtrasData()
    extras.next = left.arguments
    if let norm = stage.postNorm {
      extras.scratch = scratch.address
      extras.scratch_stride = UInt32(stride)
      extras.counters = image.add([UInt32](repeating: 0, count: dispatched)).address
      extras.post_norm = weights.postNorm
      extras.norm_epsilon = norm.epsilon
    }
    push.extras = image.add(structs: [extras]).address
    try bench.check(name, image: image) { commands in
      try record(kernel, push, commands)
      guard tiles != nil, stage.postNorm != nil else { return }
      // Tiles leave what a post norm waits for to another dispatch.
      commands.dispatchBarrier()
      var combine = plain(CombinePush())
      combine.next = left.arguments
      combine.parts = scratch.address
      combine.residual = outputs.address
      combine.post_norm = weights.postNorm
      combine.step = push.step
      combine.width = UInt32(outputWidth)
      combine.residual_stride = UInt32(stride)
      combine.part_stride = UInt32(stride)
      combine.epsilon = stage.postNorm?.epsilon ?? 0
      try CombineKernel(addsResidual: true, hasPostNorm: true, next: next, rankCount: 1).record(
        commands, push: combine, rowCount: dispatched, cache: bench.cache)
    } compare: { outcome in
      if stage.postNorm != nil { outcome.ignore(scratch) }
      let expected = try ReferenceStages.residualProjection(
        stage, x: doubles(x), input: prepared.effective, weights: reader)
      let found = expected.indices.map {
        outcome.float(outputs, $0 / outputWidth * stride + activationIndex($0 % outputWidth))
      }
      return [Comparison(found: found, expected: expected, tolerance: Self.tolerance)]
        + left.comparisons(expected, &outcome, tolerance: Self.tolerance)
    }
  }

  private func gated(_ stage: GatedFeedForwardStage, _ weights: DeviceStage.GatedFeedForward) throws {
    var random = bench.random(name)
    let width = stage.gate.columns.count
    let outputWidth = stage.gate.rows.count
    let x = random.normals(columnCount * width)
    var image = bench.newImage()
    let stride = activationStride(outputWidth)
    let next = next == .bytes && outputWidth.isMultiple(of: 32) ? ProductForm.bytes : .floats
    let left = NextOutputs(
      form: next, width: outputWidth, rowCount: columnCount, squareCount: 0, norm: [], image: &image)
    var push = LinearPush()
    let normed = try addInputs(x, norm: stage.norm, image: &image, push: &push)
    push.step = image.addStep(plainRows(columnCount)).address
    push.outputs = left.values.address
    push.output_stride = UInt32(stride)
    var extras = LinearExtrasData()
    extras.next = left.arguments
    push.extras = image.add(structs: [extras]).address
    let kernel = made(
      LinearKernel(
        matrix: weights.matrix, epilogue: .gated, hasNorm: true, activation: stage.activation, inputs: inputs,
        next: next))
    try bench.check(name, image: image) { commands in
      try record(kernel, push, commands)
    } compare: { outcome in
      let expected = try ReferenceStages.gatedFeedForward(stage, normed: normed, weights: reader)
      // GELU of a negative gate is what is left of 1 - tanh: few outputs may all have lost digits so.
      let isFew = outputWidth * columnCount < 64
      return left.comparisons(expected, &outcome, tolerance: isFew ? 50 * Self.tolerance : Self.tolerance)
    }
  }

  private func queryKeyValue(_ stage: QueryKeyValueStage, _ weights: DeviceStage.QueryKeyValue) throws {
    var random = bench.random(name)
    let width = stage.query.columns.count
    let heads = stage.heads
    let x = random.normals(columnCount * width)
    var image = bench.newImage()
    let outputs = HeadOutputs(
      stage: stage, weights: weights, tokenCount: columnCount, random: &random, image: &image)
    var extras = outputs.extras
    extras.counters =
      image.add(
        [UInt32](repeating: 0, count: (heads.headCount + heads.kvHeadCount) * dispatched)
      ).address
    var push = LinearPush()
    let normed = try addInputs(x, norm: stage.norm, image: &image, push: &push)
    push.step = image.addStep(outputs.pages.rows).address
    push.outputs = outputs.queries.address
    push.output_stride = UInt32(outputs.queryStride)
    push.extras = image.add(structs: [extras]).address
    try bench.check(name, image: image) { commands in
      for matrix in weights.matrices {
        var push = push
        push.bias = weights.bias == 0 ? 0 : weights.bias + UInt64(4 * matrix.rowOffset)
        let kernel = made(
          LinearKernel(
            matrix: matrix, epilogue: stage.queryNorm == nil ? .queryKeyValue : .queryKeyValueNorm,
            hasNorm: true,
            hasBias: weights.bias != 0, inputs: inputs))
        try record(kernel, push, commands)
      }
      guard tiles != nil, stage.queryNorm != nil else { return }
      commands.dispatchBarrier()
      try outputs.recordNorms(
        commands, step: push.step, extras: push.extras, rowCount: dispatched, bench: bench)
    } compare: { outcome in
      let expected = try ReferenceStages.queryKeyValue(
        stage, normed: normed, positions: outputs.positions, weights: reader)
      return outputs.comparisons(
        expected, &outcome, tolerance: Self.tolerance, halfTolerance: Self.halfTolerance)
    }
  }
}
