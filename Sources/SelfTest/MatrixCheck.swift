import CShaderInterface
import Kernels
import Reference
import Transformer
import VulkanRuntime

/// One stage by the matrix kernel, with the kernels that start and finish it, on random inputs.
struct MatrixCheck {
  let bench: TestBench
  let units: MatrixUnits
  let name: String
  /// Gives matrices as the kernel does: as float16 rounds them, but for `Cut.bytes`.
  let reader: WeightReader
  let tokenCount: Int
  let cut: Cut
  /// Whether weights are made of a scale and a minimum that float16 rounds.
  let isMadeOfHalves: Bool
  /// Inputs of gated products are so large on average.
  var magnitude: Float = 1

  /// Which kernel computes it, and how it is cut.
  enum Cut {
    /// What the engine chooses.
    case own
    case staged(MatrixTiling)
    /// Weights are made float16 first, so many rows at a time.
    case dequantized(MatrixTiling, rowsAtOnce: Int)
    case direct(FragmentLayout, DirectMatrixKernel.Tiling)
    /// Weights and inputs are bytes.
    case bytes(MatrixUnits, MatrixTiling)

    /// What a check's name has of it.
    var text: String {
      switch self {
      case .own: ""
      case .staged(let tiling): ", \(tiling.text)"
      case .dequantized(let tiling, let rows): ", \(tiling.text), dequantized by \(rows)"
      case .direct(_, let tiling): ", \(tiling.text)"
      case .bytes(_, let tiling): ", \(tiling.text), in bytes"
      }
    }

    /// Whether it takes weights of a format, which those of a stage need not all have.
    func takes(_ format: WeightFormat) -> Bool {
      switch self {
      case .own, .staged: true
      case .dequantized: DequantizeKernel.takes(format)
      case .direct: DirectMatrixKernel.takes(format)
      case .bytes: MatrixKernel.multipliesBytes(format)
      }
    }

    /// Whether weights are float16 on the way.
    var roundsToHalf: Bool { if case .bytes = self { false } else { true } }
  }

  /// Of float32 sums of products, in whatever way the units round them. Weights that are made of halves are each rounded
  /// three times.
  var tolerance: Double { isMadeOfHalves ? 2e-3 : 5e-5 }
  /// The same of results that are float16.
  var halfTolerance: Double { isMadeOfHalves ? 4e-3 : Self.halfTolerance }
  /// Halves have 11 bits, and drivers round as they like.
  static let halfTolerance = 5e-4

  /// What is stored as float16 never becomes infinite.
  static func clampedToHalf(_ value: Double) -> Double { min(max(value, -65504), 65504) }

  func run(_ stage: Stage, _ weights: DeviceStage) throws {
    switch (stage, weights) {
    case (.logits(let stage), .logits(let weights)): try logits(stage, weights)
    case (.residualProjection(let stage), .residualProjection(let weights)): try residual(stage, weights)
    case (.gatedFeedForward(let stage), .gatedFeedForward(let weights)): try gated(stage, weights)
    case (.queryKeyValue(let stage), .queryKeyValue(let weights)): try queryKeyValue(stage, weights)
    default: preconditionFailure("a stage without a product")
    }
  }

  /// Tokens that are dispatched: more than the step has, as in a plan recorded for a larger one.
  private var dispatched: Int {
    var count = 1
    while count < tokenCount { count *= 2 }
    return count
  }

  /// One dispatch of a kernel.
  private struct Product {
    var kernel: Kernel
    var push: MatrixPush
    /// What it leaves there is its own.
    var scratch: [MemoryImage.Region]
    /// Inputs in bytes, which it makes first.
    var byteRows: ByteRows?

    enum Kernel {
      case staged(MatrixKernel, MatrixTiling)
      case dequantized(DequantizedProduct, MatrixTiling)
      case direct(DirectMatrixKernel)
    }
  }

  /// Gives a dispatch what workgroups that share inputs need; products that run at the same time share none of it.
  private func product(_ kernel: MatrixKernel, _ push: MatrixPush, image: inout MemoryImage) -> Product {
    let chosen: Product.Kernel
    var scratch: MemoryImage.Region?
    var (partialCount, counterCount) = (0, 0)
    var byteRows: ByteRows?
    switch cut {
    case .bytes(let units, let tiling):
      var kernel = kernel
      kernel.units = units
      chosen = .staged(kernel, tiling)
      partialCount = kernel.partialCount(tiling, tokenCount: dispatched)
      counterCount = kernel.counterCount(tiling, tokenCount: dispatched)
      byteRows = ByteRows(rowCount: tokenCount, width: kernel.matrix.columns, image: &image)
    case .direct(let layout, let tiling):
      chosen = .direct(DirectMatrixKernel(kernel, layout: layout, tiling: tiling))
    case .dequantized(let tiling, let rowsAtOnce):
      let halves = image.addPoisoned(rowsAtOnce * kernel.matrix.columns / 2)
      scratch = halves
      guard
        let dequantized = DequantizedProduct(kernel, address: halves.address, rowsAtOnce: rowsAtOnce)
      else { preconditionFailure("weights that are not quantised") }
      chosen = .dequantized(dequantized, tiling)
      // Parts have fewer rows.
      partialCount = kernel.partialCount(tiling, tokenCount: dispatched)
      counterCount = kernel.counterCount(tiling, tokenCount: dispatched)
    case .own, .staged:
      let own = DirectMatrixKernel(kernel, tokenCount: dispatched, traits: bench.traits)
      if case .own = cut, let own {
        chosen = .direct(own)
      } else {
        var tiling = kernel.tiling(tokenCount: dispatched, traits: bench.traits)
        if case .staged(let given) = cut { tiling = given }
        chosen = .staged(kernel, tiling)
        partialCount = kernel.partialCount(tiling, tokenCount: dispatched)
        counterCount = kernel.counterCount(tiling, tokenCount: dispatched)
      }
    }
    let partials = image.addPoisoned(max(1, partialCount))
    var push = push
    push.partials = partials.address
    push.counters = image.add([UInt32](repeating: 0, count: max(1, counterCount))).address
    return Product(
      kernel: chosen, push: push, scratch: [partials] + (scratch.map { [$0] } ?? []), byteRows: byteRows)
  }

  /// The inputs that products multiply, given the float16 rows that they were given, and comparisons of how they were
  /// made of those.
  private func inputs(
    of products: [Product], _ rows: [Double], _ outcome: inout Outcome
  ) -> (values: [Double], comparisons: [Comparison]) {
    guard let first = products.first?.byteRows else { return (rows, []) }
    let comparisons = products.compactMap(\.byteRows).flatMap { $0.comparisons(rows, &outcome) }
    return (first.values(&outcome, rowCount: tokenCount), comparisons)
  }

  private func record(_ product: Product, _ commands: CommandBuffer) throws {
    var push = product.push
    if let rows = product.byteRows {
      try rows.record(commands, inputs: push.inputs, inputStride: push.input_stride, cache: bench.cache)
      commands.dispatchBarrier()
      push.inputs = rows.bytes.address
      push.input_scales = rows.scales.address
      push.input_stride = UInt32(rows.width)
    }
    switch product.kernel {
    case .staged(let kernel, let tiling):
      try kernel.record(
        commands, push: push, tokenCount: dispatched, cache: bench.cache, tiling: tiling)
    case .dequantized(let dequantized, let tiling):
      try dequantized.record(commands, push: product.push, cache: bench.cache) {
        try $0.record(commands, push: $1, tokenCount: dispatched, cache: bench.cache, tiling: tiling)
      }
    case .direct(let kernel):
      try kernel.record(commands, push: product.push, tokenCount: dispatched, cache: bench.cache)
    }
  }

  private func record(_ kernel: NormaliseKernel, _ push: NormalisePush, _ commands: CommandBuffer) throws {
    try kernel.record(commands, push: push, rowCount: dispatched, cache: bench.cache)
  }

  private func plainRows(_ count: Int) -> [StepRow] {
    (0..<count).map { StepRow(token: 0, position: UInt32($0), sequence: 0, output_row: 0) }
  }

  private func take(_ inputs: HalfRows, _ push: inout MatrixPush) {
    push.inputs = inputs.region.address
    push.input_stride = UInt32(inputs.stride)
    push.scale = 1
  }

  private func logits(_ stage: LogitsStage, _ weights: DeviceStage.Logits) throws {
    var random = bench.random(name)
    let width = stage.table.columns.count
    let count = stage.table.rows.count
    let rowCount = tokenCount + 3
    let x = random.normals(rowCount * width)
    let outputRows = Array((0..<rowCount).shuffled(using: &random).prefix(tokenCount))
    var rows = plainRows(rowCount)
    for (index, row) in outputRows.enumerated() { rows[index].output_row = UInt32(row) }
    var image = bench.newImage()
    let stride = (count + 63) / 64 * 64
    let outputs = image.addPoisoned(tokenCount * stride)
    let inputs = HalfRows(rowCount: tokenCount, width: width, image: &image)
    var normalise = plain(NormalisePush())
    normalise.inputs = image.addActivations(x, width: width).address
    normalise.input_stride = UInt32(activationStride(width))
    normalise.outputs = inputs.region.address
    normalise.output_stride = UInt32(inputs.stride)
    normalise.norm = weights.norm
    normalise.epsilon = stage.norm.epsilon
    normalise.width = UInt32(width)
    normalise.step = image.addStep(rows, outputCount: tokenCount).address
    var push = plain(MatrixPush())
    take(inputs, &push)
    push.step = normalise.step
    push.outputs = outputs.address
    push.output_stride = UInt32(stride)
    push.softcap = stage.softcap ?? 0
    let kernel = MatrixKernel(matrix: weights.matrix, units: units, epilogue: .store, gathersOutputs: true)
    let product = product(kernel, push, image: &image)
    try bench.check(name, image: image) { commands in
      try record(NormaliseKernel(gathersOutputs: true), normalise, commands)
      commands.dispatchBarrier()
      try record(product, commands)
    } compare: { outcome in
      outcome.ignore(product.scratch)
      let gathered = outputRows.flatMap { x[$0 * width..<($0 + 1) * width] }.map(Double.init)
      let normed = inputs.values(&outcome)
      let (values, comparisons) = self.inputs(of: [product], normed, &outcome)
      let expected = try ReferenceStages.logits(stage, normed: values, weights: reader)
      let found = expected.indices.map { outcome.float(outputs, $0 / count * stride + $0 % count) }
      return comparisons + [
        Comparison(
          "inputs", found: normed,
          expected: try ReferenceStages.norm(gathered, stage.norm, weights: reader),
          tolerance: Self.halfTolerance),
        Comparison(found: found, expected: expected, tolerance: tolerance),
      ]
    }
  }

  private func residual(
    _ stage: ResidualProjectionStage, _ weights: DeviceStage.ResidualProjection
  ) throws {
    var random = bench.random(name)
    let width = stage.weight.columns.count
    let outputWidth = stage.weight.rows.count
    let x = random.normals(tokenCount * outputWidth)
    var image = bench.newImage()
    let input = HalfRows(random.normals(tokenCount * width), width: width, image: &image)
    let stride = activationStride(outputWidth)
    let outputs = image.addActivations(x, width: outputWidth)
    let scratch = image.addPoisoned(tokenCount * stride)
    var extras = LinearExtrasData()
    extras.scratch = scratch.address
    extras.scratch_stride = UInt32(stride)
    var push = plain(MatrixPush())
    take(input, &push)
    // The gated epilogue's rows are made larger again.
    if stage.input == .feedForward { push.scale = 1 / Float(HIDDEN_SCALE) }
    push.step = image.addStep(plainRows(tokenCount)).address
    push.outputs = outputs.address
    push.output_stride = UInt32(stride)
    push.bias = weights.bias
    push.extras = image.add(structs: [extras]).address
    let kernel = MatrixKernel(
      matrix: weights.matrix, units: units, epilogue: stage.postNorm == nil ? .residual : .residualNorm,
      hasBias: stage.bias != nil)
    let product = product(kernel, push, image: &image)
    // What makes the next product's inputs adds a product with a norm of its own to the residual stream.
    let next = HalfRows(rowCount: tokenCount, width: outputWidth, image: &image)
    var normalise = plain(NormalisePush())
    normalise.inputs = outputs.address
    normalise.input_stride = UInt32(stride)
    normalise.outputs = next.region.address
    normalise.output_stride = UInt32(next.stride)
    normalise.step = push.step
    normalise.width = UInt32(outputWidth)
    normalise.addend = scratch.address
    normalise.addend_stride = UInt32(stride)
    normalise.addend_norm = weights.postNorm
    normalise.addend_epsilon = stage.postNorm?.epsilon ?? 0
    try bench.check(name, image: image) { commands in
      try record(product, commands)
      guard stage.postNorm != nil else { return }
      commands.dispatchBarrier()
      try record(NormaliseKernel(hasNorm: false, hasAddend: true), normalise, commands)
    } compare: { outcome in
      outcome.ignore(product.scratch)
      let (values, comparisons) = inputs(of: [product], input.contents, &outcome)
      let scaled = values.map { $0 * Double(push.scale) }
      let expected = try ReferenceStages.residualProjection(
        stage, x: x.map(Double.init), input: scaled, weights: reader)
      let found = expected.indices.map {
        outcome.float(outputs, $0 / outputWidth * stride + activationIndex($0 % outputWidth))
      }
      let result = comparisons + [Comparison(found: found, expected: expected, tolerance: tolerance)]
      guard stage.postNorm != nil else { return result }
      outcome.ignore(scratch)
      return result + [
        Comparison(
          "next inputs", found: next.values(&outcome), expected: expected, tolerance: halfTolerance)
      ]
    }
  }

  private func gated(_ stage: GatedFeedForwardStage, _ weights: DeviceStage.GatedFeedForward) throws {
    var random = bench.random(name)
    let width = stage.gate.columns.count
    var image = bench.newImage()
    let inputs = HalfRows(
      random.normals(tokenCount * width).map { $0 * magnitude }, width: width, image: &image)
    let hidden = HalfRows(rowCount: tokenCount, width: stage.gate.rows.count, image: &image)
    var push = plain(MatrixPush())
    take(inputs, &push)
    push.step = image.addStep(plainRows(tokenCount)).address
    push.outputs = hidden.region.address
    push.output_stride = UInt32(hidden.stride)
    let kernel = MatrixKernel(
      matrix: weights.matrix, units: units, epilogue: .gated, activation: stage.activation)
    let product = product(kernel, push, image: &image)
    try bench.check(name, image: image) { commands in
      try record(product, commands)
    } compare: { outcome in
      outcome.ignore(product.scratch)
      let (values, comparisons) = self.inputs(of: [product], inputs.contents, &outcome)
      let expected = try ReferenceStages.gatedFeedForward(stage, normed: values, weights: reader)
      return comparisons + [
        Comparison(
          found: hidden.values(&outcome),
          expected: expected.map { Self.clampedToHalf($0 * Double(HIDDEN_SCALE)) },
          // A few of them may all be small by chance, as one in thousands of checks finds.
          tolerance: isMadeOfHalves && expected.count < 32 ? 2 * halfTolerance : halfTolerance)
      ]
    }
  }

  private func queryKeyValue(_ stage: QueryKeyValueStage, _ weights: DeviceStage.QueryKeyValue) throws {
    var random = bench.random(name)
    let width = stage.query.columns.count
    var image = bench.newImage()
    let inputs = HalfRows(random.normals(tokenCount * width), width: width, image: &image)
    let outputs = HeadOutputs(
      stage: stage, weights: weights, tokenCount: tokenCount, random: &random, image: &image)
    var push = plain(MatrixPush())
    take(inputs, &push)
    push.step = image.addStep(outputs.pages.rows).address
    push.outputs = outputs.queries.address
    push.output_stride = UInt32(outputs.queryStride)
    push.extras = image.add(structs: [outputs.extras]).address
    let products = weights.matrices.map { matrix in
      push.bias = weights.bias == 0 ? 0 : weights.bias + UInt64(4 * matrix.rowOffset)
      let kernel = MatrixKernel(
        matrix: matrix, units: units,
        epilogue: stage.queryNorm == nil ? .queryKeyValue : .queryKeyValueNorm, hasBias: weights.bias != 0)
      return product(kernel, push, image: &image)
    }
    try bench.check(name, image: image) { commands in
      for product in products { try record(product, commands) }
      guard stage.queryNorm != nil else { return }
      commands.dispatchBarrier()
      try outputs.recordNorms(
        commands, step: push.step, extras: push.extras, rowCount: dispatched, bench: bench)
    } compare: { outcome in
      for product in products { outcome.ignore(product.scratch) }
      let (values, comparisons) = self.inputs(of: products, inputs.contents, &outcome)
      let expected = try ReferenceStages.queryKeyValue(
        stage, normed: values, positions: outputs.positions, weights: reader)
      return comparisons
        + outputs.comparisons(expected, &outcome, tolerance: tolerance, halfTolerance: halfTolerance)
    }
  }
}
