import CShaderInterface
import Kernels
import Reference
import Transformer

/// The operations that unfused steps have as dispatches of their own.
struct UnfusedChecks {
  let bench: TestBench

  private static let tolerance = 2e-6

  func run() throws {
    for (width, heads, rowCount) in [(576, 1, 3), (2048, 1, 1), (64, 3, 5), (80, 4, 2)] {
      try norm(width: width, heads: heads, rowCount: rowCount)
    }
    for (index, operation) in ElementwiseKernel.Operation.allCases.enumerated() {
      try elementwise(.init(operation), width: [66, 576, 1500][index % 3], rowCount: 1 + index)
    }
    try elementwise(.init(.activate, activation: .geluTanh), width: 1056, rowCount: 3)
    for index in 0..<2 { try heads(turn: index) }
    for (width, rowCount) in [(32, 5), (1056, 2)] { try quantise(width: width, rowCount: rowCount) }
  }

  private func rows(_ count: Int) -> [StepRow] {
    (0..<count).map { _ in StepRow(token: 0, position: 0, sequence: 0, output_row: 0) }
  }

  /// Norms of `heads` vectors a token, in place where there are several; their weight is in plain order then.
  private func norm(width: Int, heads: Int, rowCount: Int) throws {
    let name = "norm width \(width), vectors \(heads), rows \(rowCount)"
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let kernel = NormKernel(ofHeads: heads > 1)
    let (all, first) = (heads * width, heads > 1 ? 16 : 0)
    let x = random.normals(rowCount * (first + all))
    let weight = random.normals(width)
    var image = bench.newImage()
    let stride = activationStride(first + all)
    let inputs = image.addActivations(x, width: first + all)
    let outputs = kernel.ofHeads ? inputs : image.addPoisoned(rowCount * stride)
    var push = plain(OperationPush())
    push.inputs = inputs.address
    push.outputs = outputs.address
    push.operand =
      (kernel.ofHeads ? image.add(weight) : image.addActivations(weight, width: width)).address
    push.step = image.addStep(rows(rowCount)).address
    push.width = UInt32(width)
    push.input_stride = UInt32(stride)
    push.output_stride = UInt32(stride)
    push.input_first = UInt32(first)
    push.output_first = UInt32(first)
    push.parameter = 1e-3
    try bench.check(name, image: image) { commands in
      try kernel.record(commands, push: push, count: heads, rowCount: rowCount + 2, cache: bench.cache)
    } compare: { outcome in
      var (found, expected): ([Double], [Double]) = ([], [])
      for row in 0..<rowCount {
        for head in 0..<heads {
          let start = first + head * width
          let values = x[row * (first + all) + start..<row * (first + all) + start + width].map(Double.init)
          let squares = values.reduce(0) { $0 + $1 * $1 }
          let scale = 1 / (squares / Double(width) + Double(push.parameter)).squareRoot()
          expected += zip(values, weight).map { $0 * scale * Double($1) }
          found += (0..<width).map { outcome.float(outputs, row * stride + activationIndex(start + $0)) }
        }
      }
      return [Comparison(found: found, expected: expected, tolerance: Self.tolerance)]
    }
  }

  private func elementwise(_ kernel: ElementwiseKernel, width: Int, rowCount: Int) throws {
    let name =
      "elementwise \(kernel.operation)\(kernel.operation == .activate ? " \(kernel.activation)" : "")"
      + " width \(width), rows \(rowCount)"
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let stride = activationStride(width)
    let isPlain = kernel.operation == .softcap
    let x = random.normals(rowCount * width)
    let y = random.normals(rowCount * width)
    var image = bench.newImage()
    let inputs = isPlain ? image.add(x) : image.addActivations(x, width: width)
    let operand =
      kernel.operation == .bias ? image.add(Array(y.prefix(width))) : image.addActivations(y, width: width)
    // Results of two vectors go elsewhere, others stay in their place.
    let outputs = kernel.operation == .multiply ? image.addPoisoned(rowCount * stride) : inputs
    var push = plain(OperationPush())
    push.inputs = inputs.address
    push.operand = operand.address
    push.outputs = outputs.address
    push.step = image.addStep(rows(rowCount), outputCount: isPlain ? rowCount : 0).address
    push.width = UInt32(width)
    push.input_stride = UInt32(isPlain ? width : stride)
    push.operand_stride = UInt32(stride)
    push.output_stride = push.input_stride
    push.parameter = 1.5
    try bench.check(name, image: image) { commands in
      try kernel.record(commands, push: push, rowCount: rowCount + 2, cache: bench.cache)
    } compare: { outcome in
      let expected = x.indices.map { index in
        let (a, b) = (Double(x[index]), Double(y[index]))
        return switch kernel.operation {
        case .add: a + b
        case .multiply: a * b
        case .bias: a + Double(y[index % width])
        case .activate: ReferenceStages.activate(a, kernel.activation)
        case .softcap: ReferenceStages.softcapped(a, push.parameter)
        }
      }
      let found = x.indices.map { index in
        outcome.float(
          outputs, isPlain ? index : index / width * stride + activationIndex(index % width))
      }
      return [Comparison(found: found, expected: expected, tolerance: Self.tolerance)]
    }
  }

  /// Rope of queries on their way, of keys in place, then keys and values into the cache.
  private func heads(turn: Int) throws {
    let name = "heads \(turn == 0 ? "whole" : "half of a head rotated")"
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let stages = LinearStages(type: .f32, formatIndex: 1 + turn, random: &random)
    let index = stages.program.stages.count - 3 + turn
    let model = try DeviceModel(
      program: stages.program, source: stages.source, cache: bench.cache, onProgress: { _ in })
    guard case .queryKeyValue(let stage) = stages.program.stages[index],
      case .queryKeyValue(let weights) = model.stages[index]
    else { preconditionFailure("the last stages are those of heads") }
    let layout = stage.heads
    let tokenCount = 3
    let kvWidth = layout.kvHeadCount * layout.headSize
    let queryWidth = layout.headCount * layout.headSize
    let width = queryWidth + 2 * kvWidth
    let order = PairOrder(headSize: layout.headSize, rope: stage.rope)
    // In the file's order, then as products leave them: heads that rotate have neighbouring pairs.
    let x = random.normals(tokenCount * width)
    let left = x.indices.map { index in
      let element = index % width
      return x[index - element + (element < queryWidth + kvWidth ? order.source(element) : element)]
    }
    var image = bench.newImage()
    let outputs = HeadOutputs(
      stage: stage, weights: weights, tokenCount: tokenCount, random: &random, image: &image)
    let scratch = image.addActivations(left, width: width)
    var extras = outputs.extras
    extras.scratch = scratch.address
    extras.scratch_stride = UInt32(activationStride(width))
    var push = plain(HeadsPush())
    push.outputs = outputs.queries.address
    push.output_stride = UInt32(outputs.queryStride)
    push.step = image.addStep(outputs.pages.rows).address
    push.extras = image.add(structs: [extras]).address
    try bench.check(name, image: image) { commands in
      func record(_ kernel: HeadsKernel, first: Int, count: Int) throws {
        push.first_head = UInt32(first)
        push.head_count = UInt32(count)
        try kernel.record(
          commands, push: push, headSize: layout.headSize, rowCount: tokenCount + 1, cache: bench.cache)
        commands.dispatchBarrier()
      }
      let (queries, kv) = (layout.headCount, layout.kvHeadCount)
      try record(HeadsKernel(rotates: true, stores: true), first: 0, count: queries)
      try record(HeadsKernel(rotates: true, stores: false), first: queries, count: kv)
      try record(HeadsKernel(rotates: false, stores: true), first: queries, count: 2 * kv)
    } compare: { outcome in
      outcome.ignore(scratch)
      func part(_ range: Range<Int>) -> [Double] {
        (0..<tokenCount).flatMap { token in range.map { Double(x[token * width + $0]) } }
      }
      var queries = part(0..<queryWidth)
      var keys = part(queryWidth..<queryWidth + kvWidth)
      ReferenceStages.rotate(&queries, positions: outputs.positions, headSize: layout.headSize, stage.rope)
      ReferenceStages.rotate(&keys, positions: outputs.positions, headSize: layout.headSize, stage.rope)
      return outputs.comparisons(
        (queries, keys, part(queryWidth + kvWidth..<width)), &outcome, tolerance: Self.tolerance,
        halfTolerance: LinearCheck.halfTolerance)
    }
    withExtendedLifetime(model) {}
  }

  private func quantise(width: Int, rowCount: Int) throws {
    let name = "quantise width \(width), rows \(rowCount)"
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let x = random.normals(rowCount * width)
    var image = bench.newImage()
    let left = NextOutputs(
      form: .bytes, width: width, rowCount: rowCount, squareCount: 0, norm: [], image: &image)
    var push = plain(QuantisePush())
    push.inputs = image.addActivations(x, width: width).address
    push.outputs = left.values.address
    push.scales = left.scales.address
    push.step = image.addStep(rows(rowCount)).address
    push.blocks = UInt32(width / 32)
    push.stride = UInt32(activationStride(width))
    try bench.check(name, image: image) { commands in
      try QuantiseKernel().record(commands, push: push, rowCount: rowCount + 2, cache: bench.cache)
    } compare: { outcome in
      left.comparisons(x.map(Double.init), &outcome, tolerance: Self.tolerance)
    }
  }
}
