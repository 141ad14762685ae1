import CShaderInterface
import Transformer
import VulkanRuntime

/// Steps of many tokens: the stages of a Program with their products and attention on the matrix units.
///
/// Inputs of products are float16 rows. Norms are dispatches of their own here: beside products of many tokens they
/// cost next to nothing, and what goes into float16 is normalised, so it cannot overflow.
extension PlanRecorder {
  /// The products of stage `index` as the matrix units compute them; none for stages that have none.
  package func matrixKernels(at index: Int) -> [MatrixKernel] {
    guard let units = flash?.units else { return [] }
    switch model.stages[index] {
    case .embed, .attention, .collective:
      return []
    case .queryKeyValue(let weights):
      return weights.matrices.map {
        MatrixKernel(
          matrix: $0, units: units, epilogue: weights.queryNorm == 0 ? .queryKeyValue : .queryKeyValueNorm,
          hasBias: weights.bias != 0)
      }
    case .residualProjection(let weights):
      return [
        MatrixKernel(
          matrix: weights.matrix, units: units, epilogue: weights.epilogue, hasBias: weights.bias != 0)
      ]
    case .gatedFeedForward(let weights):
      return weights.matrices.map {
        MatrixKernel(matrix: $0, units: units, epilogue: .gated, activation: weights.stage.activation)
      }
    case .logits(let weights):
      return weights.matrices.map {
        MatrixKernel(matrix: $0, units: units, epilogue: .store, gathersOutputs: true)
      }
    }
  }

  func recordOnMatrixUnits(
    _ recording: StepRecording, shape: PlanShape, slot: StepSlot, onStage: (Int?) -> Void
  ) throws {
    guard let flash else { throw KernelError.unsupported("the device has no matrix units for this model") }
    var step = MatrixStep(recorder: self, recording: recording, shape: shape, slot: slot, flash: flash)
    for index in model.stages.indices where !isSkipped(model.stages[index], shape) {
      if case .logits = model.stages[index], shape.readsStates { try step.completeStream() }
      try step.record(index)
      recording.commands.dispatchBarrier()
      onStage(index)
    }
    if shape.readsStates { try step.completeStream() }
  }
}

/// A step while it is recorded.
private struct MatrixStep {
  let recorder: PlanRecorder
  let recording: StepRecording
  let shape: PlanShape
  let slot: StepSlot
  let flash: FlashAttentionKernel
  /// A projection whose post norm and residual addition the next norm has still to do.
  var pending: DeviceStage.ResidualProjection?

  /// Whether the stage's inputs are there in bytes.
  var hasByteInputs = false
  /// All-reduces so far.
  var reduceCount = 0

  private var workspace: Workspace { recorder.workspace }
  private var commands: CommandBuffer { recording.commands }

  mutating func record(_ index: Int) throws {
    var push = MatrixPush()
    push.step = slot.stepAddress
    push.extras = recorder.extras.address + UInt64(index * MemoryLayout<LinearExtrasData>.stride)
    push.partials = workspace.address(.partials)
    push.counters = workspace.address(.counters)
    push.scale = 1
    hasByteInputs = false
    switch recorder.model.stages[index] {
    case .embed(let table, let scale, let firstToken):
      try recorder.recordEmbed(
        EmbedKernel(table: table, scale: scale, next: .none, firstToken: firstToken), index: index, commands,
        shape: shape, slot: slot)

    case .collective(let stage, let postNorm):
      try recorder.recordCollective(
        stage, postNorm: postNorm, index: index, recording, shape: shape, slot: slot,
        reduceCount: &reduceCount,
        next: .none)

    case .queryKeyValue(let weights):
      try normalise(weights.norm, epsilon: weights.stage.norm.epsilon, gathersOutputs: false)
      push.inputs = workspace.address(.normed)
      push.input_stride = UInt32(workspace.residualStride)
      push.outputs = workspace.address(.queries)
      push.output_stride = UInt32(workspace.queryStride)
      let hasHeadNorms = weights.queryNorm != 0
      try recorder.beginCache(weights.stage.layer, recording)
      for kernel in recorder.matrixKernels(at: index) {
        push.bias = weights.bias == 0 ? 0 : weights.bias + UInt64(4 * kernel.matrix.rowOffset)
        try product(kernel, push)
        // Products that share the inputs of their tiles share counters too.
        commands.dispatchBarrier()
      }
      if hasHeadNorms {
        try recorder.recordHeadNorm(index: index, commands, shape: shape, slot: slot)
      }
      try recorder.recordCacheWrite(weights.stage, commands, shape: shape, slot: slot)

    case .attention(let stage):
      try attention(stage)
      recorder.endCache(stage.layer, recording)

    case .residualProjection(let weights):
      let fromAttention = weights.stage.input == .attention
      push.inputs = workspace.address(fromAttention ? .attention : .hidden)
      push.input_stride = UInt32(fromAttention ? workspace.attentionWidth : workspace.hiddenWidth)
      if !fromAttention { push.scale = 1 / HIDDEN_SCALE }
      push.outputs = workspace.address(.residual)
      push.output_stride = UInt32(workspace.residualStride)
      push.bias = weights.bias
      for kernel in recorder.matrixKernels(at: index) { try product(kernel, push) }
      if weights.postNorm != 0 { pending = weights }

    case .gatedFeedForward(let weights):
      try normalise(weights.norm, epsilon: weights.stage.norm.epsilon, gathersOutputs: false)
      push.inputs = workspace.address(.normed)
      push.input_stride = UInt32(workspace.residualStride)
      push.outputs = workspace.address(.hidden)
      push.output_stride = UInt32(workspace.hiddenWidth)
      for (piece, kernel) in recorder.matrixKernels(at: index).enumerated() {
        // Products that share the inputs of their tiles share counters too.
        if piece > 0 { commands.dispatchBarrier() }
        try product(kernel, push)
      }

    case .logits(let weights):
      try normalise(weights.norm, epsilon: weights.stage.norm.epsilon, gathersOutputs: true)
      push.inputs = workspace.address(.normed)
      push.input_stride = UInt32(workspace.residualStride)
      push.outputs = workspace.address(.logits)
      push.output_stride = UInt32(workspace.logitsStride)
      push.softcap = weights.stage.softcap ?? 0
      for (piece, kernel) in recorder.matrixKernels(at: index).enumerated() {
        if piece > 0 { commands.dispatchBarrier() }
        try product(kernel, push)
      }
    }
  }

  /// The residual stream, normed, as float16 rows: what the products read. Adds first what a post norm is still to do.
  private mutating func normalise(_ norm: UInt64, epsilon: Float, gathersOutputs: Bool) throws {
    var push = NormalisePush()
    push.inputs = workspace.address(.residual)
    push.outputs = workspace.address(.normed)
    push.norm = norm
    push.step = slot.stepAddress
    push.width = UInt32(recorder.model.program.width)
    push.input_stride = UInt32(workspace.residualStride)
    push.output_stride = UInt32(workspace.residualStride)
    push.epsilon = epsilon
    if let pending {
      push.addend = workspace.address(.scratch)
      push.addend_stride = UInt32(workspace.scratchStride)
      push.addend_norm = pending.postNorm
      push.addend_epsilon = pending.stage.postNorm?.epsilon ?? 0
    }
    try NormaliseKernel(hasAddend: pending != nil, gathersOutputs: gathersOutputs).record(
      commands, push: push, rowCount: gathersOutputs ? shape.outputs : shape.rows, cache: recorder.cache)
    commands.dispatchBarrier()
    pending = nil
  }

  /// Adds what a post norm is still to do to the residual stream of all rows, not only of those whose logits are wanted.
  mutating func completeStream() throws {
    guard let pending else { return }
    try normalise(pending.postNorm, epsilon: pending.stage.postNorm?.epsilon ?? 0, gathersOutputs: false)
  }

  private mutating func product(_ kernel: MatrixKernel, _ push: MatrixPush) throws {
    try recording.need(kernel.matrix)
    let tokenCount = kernel.gathersOutputs ? shape.outputs : shape.rows
    if let inBytes = kernel.inBytes(recorder.traits) {
      return try staged(
        inBytes, quantised(push, of: kernel.matrix, tokenCount: tokenCount), tokenCount: tokenCount)
    }
    if var direct = DirectMatrixKernel(kernel, tokenCount: tokenCount, traits: recorder.traits) {
      if let directTiling = recorder.directTiling { direct.tiling = directTiling }
      return try direct.record(commands, push: push, tokenCount: tokenCount, cache: recorder.cache)
    }
    if recorder.traits.method.gemm == nil,
      let dequantized = DequantizedProduct(
        kernel, tokenCount: tokenCount, address: workspace.address(.dequantized),
        byteCount: workspace.dequantizedBytes)
    {
      return try dequantized.record(commands, push: push, cache: recorder.cache) {
        try staged($0, $1, tokenCount: tokenCount)
      }
    }
    try staged(kernel, push, tokenCount: tokenCount)
  }

  /// `push` with the stage's inputs as bytes, which the first of its products makes.
  private mutating func quantised(
    _ push: MatrixPush, of matrix: DeviceMatrix, tokenCount: Int
  ) throws -> MatrixPush {
    var result = push
    result.inputs = workspace.address(.quantised)
    result.input_scales = workspace.address(.quantisedScales)
    result.input_stride = UInt32(matrix.columns)
    guard !hasByteInputs else { return result }
    var quantise = QuantiseRowsPush()
    quantise.inputs = push.inputs
    quantise.outputs = result.inputs
    quantise.scales = result.input_scales
    quantise.blocks = UInt32(matrix.columns / 32)
    quantise.input_stride = push.input_stride
    quantise.output_stride = result.input_stride
    try QuantiseRowsKernel().record(commands, push: quantise, rowCount: tokenCount, cache: recorder.cache)
    commands.dispatchBarrier()
    hasByteInputs = true
    return result
  }

  /// The product with its tile in shared memory.
  private func staged(_ kernel: MatrixKernel, _ push: MatrixPush, tokenCount: Int) throws {
    var tiling = recorder.matrixTiling ?? kernel.tiling(tokenCount: tokenCount, traits: recorder.traits)
    if kernel.partialCount(tiling, tokenCount: tokenCount) > workspace.partialCount
      || kernel.counterCount(tiling, tokenCount: tokenCount) > workspace.counterCount
    {
      tiling.split = 1
    }
    try kernel.record(
      commands, push: push, tokenCount: tokenCount, cache: recorder.cache,
      tiling: tiling)
  }

  /// Attention, its outputs as float16 rows.
  private func attention(_ stage: AttentionStage) throws {
    let attention = recorder.attentionPush(stage, slot: slot)
    if shape.tileRows == 1,
      let kernel = AttentionDecodeKernel(
        heads: stage.heads, tokenCount: shape.tiles, isDeep: shape.isDeep, next: .halves,
        traits: recorder.traits)
    {
      return try kernel.record(
        commands, push: attention, tokenCount: shape.tiles, cache: recorder.cache)
    }
    var push = FlashPush()
    push.queries = attention.queries
    push.keys = attention.keys
    push.values = attention.values
    push.block_tables = attention.block_tables
    push.table_stride = attention.table_stride
    push.step = attention.step
    push.tiles = attention.tiles
    push.outputs = attention.outputs
    push.output_stride = attention.output_width
    push.window = attention.window
    push.scale = attention.scale
    push.softcap = attention.softcap
    try flash.record(
      commands, push: push, tileCount: shape.tiles, cache: recorder.cache)
  }
}
