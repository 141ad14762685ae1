import CShaderInterface
import Transformer
import VulkanRuntime

/// Unfused steps: each operation is a dispatch of its own, which waits for the one before at a barrier and passes its
/// results on through memory, as a framework runs a model that nobody has fused. Products leave what they computed in
/// the scratch, where the other operations find it.
extension PlanRecorder {
  func recordUnfused(
    _ recording: StepRecording, shape: PlanShape, slot: StepSlot, onStage: (Int?) -> Void
  ) throws {
    let step = UnfusedStep(recorder: self, commands: recording.commands, shape: shape, slot: slot)
    for index in model.stages.indices where !isSkipped(model.stages[index], shape) {
      try step.record(index)
      onStage(index)
    }
  }

  /// The products of an unfused stage, in the order in which they run.
  func unfusedProducts(at index: Int, shape: PlanShape, slot: StepSlot) -> [Product] {
    let stage = model.stages[index]
    guard let inputs = stage.unfusedInputs else { return [] }
    let isLogits = if case .logits = stage { true } else { false }
    var push = LinearPush()
    push.step = slot.stepAddress
    push.extras = extras.address + UInt64(index * MemoryLayout<LinearExtrasData>.stride)
    let isQuantised = forms[index] == .bytes
    push.inputs = workspace.address(isQuantised ? .quantised : inputs)
    push.input_scales = workspace.address(.quantisedScales)
    push.outputs = workspace.address(.logits)
    push.output_stride = UInt32(workspace.logitsStride)
    return stage.matrices.map { matrix in
      Product(
        kernel: LinearKernel(
          matrix: matrix, epilogue: isLogits ? .store : .partial, gathersOutputs: isLogits,
          inputs: forms[index]),
        push: push, columnCount: isLogits ? shape.outputs : shape.rows)
    }
  }
}

extension DeviceStage {
  /// Where an unfused stage's products find their inputs, as floats; nil where there are none.
  fileprivate var unfusedInputs: Workspace.Array? {
    switch self {
    case .embed, .attention, .collective: nil
    case .queryKeyValue, .gatedFeedForward, .logits: .normed
    case .residualProjection(let weights): weights.stage.input == .attention ? .attention : .hidden
    }
  }
}

/// An unfused step while it is recorded.
private struct UnfusedStep {
  let recorder: PlanRecorder
  let commands: CommandBuffer
  let shape: PlanShape
  let slot: StepSlot

  private var workspace: Workspace { recorder.workspace }
  private var width: Int { recorder.model.program.width }

  /// Vectors of all tokens, one a row.
  private struct Vectors {
    var address: UInt64
    var stride = 0
    var first = 0
  }

  private var residual: Vectors {
    Vectors(address: workspace.address(.residual), stride: workspace.residualStride)
  }
  private var normed: Vectors {
    Vectors(address: workspace.address(.normed), stride: workspace.residualStride)
  }
  private var hidden: Vectors {
    Vectors(address: workspace.address(.hidden), stride: workspace.hiddenWidth)
  }
  private var logits: Vectors {
    Vectors(address: workspace.address(.logits), stride: workspace.logitsStride)
  }
  private func scratch(_ first: Int = 0) -> Vectors {
    Vectors(address: workspace.address(.scratch), stride: workspace.scratchStride, first: first)
  }

  func record(_ index: Int) throws {
    switch recorder.model.stages[index] {
    case .embed(let table, let scale, let firstToken):
      try recorder.recordEmbed(
        EmbedKernel(table: table, scale: scale, next: .none, firstToken: firstToken), index: index, commands,
        shape: shape, slot: slot)
      commands.dispatchBarrier()

    case .attention(let stage):
      try recorder.recordAttention(stage, commands, shape: shape, slot: slot, next: .floats, chain: nil)
      commands.dispatchBarrier()

    case .queryKeyValue(let weights):
      try norm(weights.norm, epsilon: weights.stage.norm.epsilon, residual, to: normed, width: width)
      try products(index)
      for matrix in weights.matrices where weights.bias != 0 {
        try bias(weights.bias + UInt64(4 * matrix.rowOffset), scratch(matrix.rowOffset), width: matrix.rows)
      }
      try heads(weights, index)
      try recorder.recordCacheWrite(weights.stage, commands, shape: shape, slot: slot)
      commands.dispatchBarrier()

    case .residualProjection(let weights):
      try products(index)
      if weights.bias != 0 { try bias(weights.bias, scratch(), width: width) }
      if let postNorm = weights.stage.postNorm {
        try norm(weights.postNorm, epsilon: postNorm.epsilon, scratch(), to: scratch(), width: width)
      }
      try elementwise(.init(.add), residual, scratch(), to: residual, width: width)

    case .gatedFeedForward(let weights):
      let (gate, up) = (weights.matrices[0], weights.matrices[1])
      try norm(weights.norm, epsilon: weights.stage.norm.epsilon, residual, to: normed, width: width)
      try products(index)
      try elementwise(
        .init(.activate, activation: weights.stage.activation), scratch(), to: scratch(), width: gate.rows)
      try elementwise(.init(.multiply), scratch(), scratch(up.rowOffset), to: hidden, width: up.rows)

    case .logits(let weights):
      try norm(weights.norm, epsilon: weights.stage.norm.epsilon, residual, to: normed, width: width)
      try products(index)
      guard let softcap = weights.stage.softcap else { return }
      try elementwise(
        .init(.softcap), logits, to: logits, width: weights.matrix.rows, parameter: softcap,
        rowCount: shape.outputs)

    case .collective:
      preconditionFailure("devices that share a model run fused steps")
    }
  }

  /// The stage's products one after another, each of all its inputs.
  private func products(_ index: Int) throws {
    let products = recorder.products(at: index, shape: shape, slot: slot, squareCount: 0)
    if recorder.forms[index] == .bytes, let inputs = recorder.model.stages[index].unfusedInputs,
      let columns = products.first?.kernel.matrix.columns
    {
      var push = QuantisePush()
      push.inputs = workspace.address(inputs)
      push.outputs = workspace.address(.quantised)
      push.scales = workspace.address(.quantisedScales)
      push.step = slot.stepAddress
      push.blocks = UInt32(columns / 32)
      push.stride = UInt32(activationStride(columns))
      try QuantiseKernel().record(commands, push: push, rowCount: shape.rows, cache: recorder.cache)
      commands.dispatchBarrier()
    }
    for product in products {
      let tiling = recorder.cache.tuning.tiling(
        product.kernel, columnCount: product.columnCount, traits: recorder.traits)
      try product.kernel.record(
        commands, push: product.push, columnCount: product.columnCount, cache: recorder.cache, tiling: tiling)
      commands.dispatchBarrier()
    }
  }

  /// Norms of heads, rope, and the copies to queries and cache.
  private func heads(_ weights: DeviceStage.QueryKeyValue, _ index: Int) throws {
    let layout = weights.stage.heads
    let keyOffset = layout.headCount * layout.headSize
    if let query = weights.stage.queryNorm, let key = weights.stage.keyNorm {
      try norm(
        weights.queryNorm, epsilon: query.epsilon, scratch(), to: scratch(), width: layout.headSize,
        heads: layout.headCount)
      try norm(
        weights.keyNorm, epsilon: key.epsilon, scratch(keyOffset), to: scratch(keyOffset),
        width: layout.headSize, heads: layout.kvHeadCount)
    }
    var push = HeadsPush()
    push.outputs = workspace.address(.queries)
    push.output_stride = UInt32(workspace.queryStride)
    push.step = slot.stepAddress
    push.extras = recorder.extras.address + UInt64(index * MemoryLayout<LinearExtrasData>.stride)
    func record(_ kernel: HeadsKernel, first: Int, count: Int) throws {
      push.first_head = UInt32(first)
      push.head_count = UInt32(count)
      try kernel.record(
        commands, push: push, headSize: layout.headSize, rowCount: shape.rows, cache: recorder.cache)
      commands.dispatchBarrier()
    }
    try record(HeadsKernel(rotates: true, stores: true), first: 0, count: layout.headCount)
    try record(HeadsKernel(rotates: true, stores: false), first: layout.headCount, count: layout.kvHeadCount)
    try record(
      HeadsKernel(rotates: false, stores: true), first: layout.headCount, count: 2 * layout.kvHeadCount)
  }

  // MARK: Operations

  private func push(
    _ inputs: Vectors, _ operand: Vectors?, to outputs: Vectors, width: Int, parameter: Float
  ) -> OperationPush {
    var push = OperationPush()
    push.inputs = inputs.address
    push.input_stride = UInt32(inputs.stride)
    push.input_first = UInt32(inputs.first)
    push.operand = operand?.address ?? 0
    push.operand_stride = UInt32(operand?.stride ?? 0)
    push.operand_first = UInt32(operand?.first ?? 0)
    push.outputs = outputs.address
    push.output_stride = UInt32(outputs.stride)
    push.output_first = UInt32(outputs.first)
    push.step = slot.stepAddress
    push.width = UInt32(width)
    push.parameter = parameter
    return push
  }

  private func norm(
    _ weight: UInt64, epsilon: Float, _ inputs: Vectors, to outputs: Vectors, width: Int, heads: Int? = nil
  ) throws {
    try NormKernel(ofHeads: heads != nil).record(
      commands,
      push: push(inputs, Vectors(address: weight), to: outputs, width: width, parameter: epsilon),
      count: heads ?? 1, rowCount: shape.rows, cache: recorder.cache)
    commands.dispatchBarrier()
  }

  private func bias(_ bias: UInt64, _ vectors: Vectors, width: Int) throws {
    try elementwise(.init(.bias), vectors, Vectors(address: bias), to: vectors, width: width)
  }

  private func elementwise(
    _ kernel: ElementwiseKernel, _ inputs: Vectors, _ operand: Vectors? = nil, to outputs: Vectors,
    width: Int, parameter: Float = 0, rowCount: Int? = nil
  ) throws {
    try kernel.record(
      commands, push: push(inputs, operand, to: outputs, width: width, parameter: parameter),
      rowCount: rowCount ?? shape.rows, cache: recorder.cache)
    commands.dispatchBarrier()
  }
}
