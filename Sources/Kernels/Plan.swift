import CShaderInterface
import Transformer
import VulkanRuntime

/// The shape of a step, rounded up: one recorded Plan serves every step that fits it.
package struct PlanShape: Sendable, Hashable {
  package var rows: Int
  package var tiles: Int
  package var outputs: Int
  package var tileRows: Int
  package var output: OutputKernel

  /// The smallest recorded shape that `step` fits.
  package init(_ step: StepContents, tileRows: Int, output: OutputKernel, limits: StepLimits) {
    rows = Self.bucket(step.rows.count, most: limits.rows)
    tiles = Self.bucket(step.tiles.count, most: limits.rows)
    outputs = step.outputs.isEmpty ? 0 : Self.bucket(step.outputs.count, most: limits.outputs)
    self.tileRows = tileRows
    self.output = output
  }

  private static func bucket(_ count: Int, most: Int) -> Int {
    var bucket = 1
    while bucket < count { bucket *= 2 }
    return min(bucket, most)
  }
}

/// Records Programs: every stage's dispatches with the addresses of one device's weights, cache and workspace.
package final class PlanRecorder {
  package let cache: KernelCache
  package let traits: DeviceTraits
  private let model: DeviceModel
  private let kvCache: KVCache
  private let workspace: Workspace
  /// LinearExtrasData of each stage that needs them.
  private let extras: Buffer
  private let extrasOffsets: [Int]

  package init(cache: KernelCache, model: DeviceModel, kvCache: KVCache, workspace: Workspace) throws {
    self.cache = cache
    self.model = model
    self.kvCache = kvCache
    self.workspace = workspace
    traits = DeviceTraits(cache.device.physical)
    var all: [LinearExtrasData] = []
    var offsets: [Int] = []
    for stage in model.stages {
      offsets.append(all.count * MemoryLayout<LinearExtrasData>.stride)
      if let extras = Self.extras(stage, kvCache: kvCache, workspace: workspace) { all.append(extras) }
    }
    extrasOffsets = offsets
    extras = try cache.device.makeBuffer(
      byteCount: max(1, all.count) * MemoryLayout<LinearExtrasData>.stride, memory: .mappedDevice,
      label: "stage arguments")
    all.withUnsafeBytes { bytes in
      guard let source = bytes.baseAddress else { return }
      extras.contents?.copyMemory(from: source, byteCount: bytes.count)
    }
  }

  private static func extras(
    _ stage: DeviceStage, kvCache: KVCache, workspace: Workspace
  ) -> LinearExtrasData? {
    var data = LinearExtrasData()
    data.scratch = workspace.address(.scratch)
    data.scratch_stride = UInt32(workspace.scratchStride)
    data.counters = workspace.address(.counters)
    switch stage {
    case .queryKeyValue(let weights):
      let heads = weights.stage.heads
      data.keys = kvCache.keys(layer: weights.stage.layer)
      data.values = kvCache.values(layer: weights.stage.layer)
      data.block_tables = workspace.blockTables.address
      data.table_stride = UInt32(workspace.limits.pagesPerSequence)
      data.rope = weights.rope
      data.query_norm = weights.queryNorm
      data.key_norm = weights.keyNorm
      data.head_count = UInt32(heads.headCount)
      data.kv_head_count = UInt32(heads.kvHeadCount)
      data.head_size = UInt32(heads.headSize)
      data.rotated_size = UInt32(weights.stage.rope.rotatedSize)
      data.rope_magnitude = weights.stage.rope.magnitude
      data.norm_epsilon = weights.stage.queryNorm?.epsilon ?? 0
    case .residualProjection(let weights):
      guard let norm = weights.stage.postNorm else { return nil }
      data.post_norm = weights.postNorm
      data.norm_epsilon = norm.epsilon
    default:
      return nil
    }
    return data
  }

  /// The stages of a step of this shape, as dispatches and barriers, reading `slot`.
  ///
  /// - Parameter onStage: called after each stage with its index in the Program, or nil for sampling: for profiling.
  package func record(
    _ commands: CommandBuffer, shape: PlanShape, slot: StepSlot, onStage: (Int?) -> Void = { _ in }
  ) throws {
    commands.keepAlive([
      workspace.memory, workspace.blockTables, workspace.counts, extras, slot.data, slot.results,
    ])
    for (index, stage) in model.stages.enumerated() {
      if case .logits = stage, shape.outputs == 0 { continue }
      try record(stage, index: index, commands, shape: shape, slot: slot)
      commands.barrier()
      onStage(index)
    }
    guard shape.outputs > 0 else { return }
    var push = SamplePush()
    push.logits = workspace.address(.logits)
    push.step = slot.stepAddress
    push.parameters = slot.samplesAddress
    push.counts = workspace.counts.address
    push.last_tokens = workspace.address(.lastTokens)
    push.results = slot.results.address
    push.vocabulary = UInt32(model.program.vocabularySize)
    push.logits_stride = UInt32(workspace.logitsStride)
    try shape.output.record(
      commands, push: push, outputCount: shape.outputs, cache: cache, traits: traits)
    commands.barrier()
    onStage(nil)
    commands.barrierToHost()
  }

  private func record(
    _ stage: DeviceStage, index: Int, _ commands: CommandBuffer, shape: PlanShape, slot: StepSlot
  ) throws {
    var push = LinearPush()
    push.step = slot.stepAddress
    push.extras = extras.address + UInt64(extrasOffsets[index])
    switch stage {
    case .embed(let table, let scale):
      var push = EmbedPush()
      push.outputs = workspace.address(.residual)
      push.output_stride = UInt32(workspace.residualStride)
      push.step = slot.stepAddress
      push.last_tokens = workspace.address(.lastTokens)
      try EmbedKernel(table: table, scale: scale).record(
        commands, push: push, rowCount: shape.rows, cache: cache, traits: traits)

    case .queryKeyValue(let weights):
      push.inputs = workspace.address(.residual)
      push.input_stride = UInt32(workspace.residualStride)
      push.norm = weights.norm
      push.epsilon = weights.stage.norm.epsilon
      push.outputs = workspace.address(.queries)
      push.output_stride = UInt32(workspace.queryStride)
      for matrix in weights.matrices {
        push.bias = weights.bias == 0 ? 0 : weights.bias + UInt64(4 * matrix.rowOffset)
        let kernel = LinearKernel(
          matrix: matrix, epilogue: weights.queryNorm == 0 ? .queryKeyValue : .queryKeyValueNorm,
          hasNorm: true,
          hasBias: weights.bias != 0)
        try kernel.record(commands, push: push, columnCount: shape.rows, cache: cache, traits: traits)
      }

    case .attention(let stage):
      var push = AttentionPush()
      push.queries = workspace.address(.queries)
      push.keys = kvCache.keys(layer: stage.layer)
      push.values = kvCache.values(layer: stage.layer)
      push.block_tables = workspace.blockTables.address
      push.table_stride = UInt32(workspace.limits.pagesPerSequence)
      push.step = slot.stepAddress
      push.tiles = slot.tilesAddress
      push.outputs = workspace.address(.attention)
      push.output_stride = UInt32(workspace.attentionStride)
      push.partials = workspace.address(.partials)
      push.counters = workspace.address(.counters)
      push.head_count = UInt32(stage.heads.headCount)
      push.kv_head_count = UInt32(stage.heads.kvHeadCount)
      push.window = UInt32(stage.window ?? 0)
      push.scale = stage.scale
      push.softcap = stage.softcap ?? 0
      let kernel = AttentionKernel(
        heads: stage.heads, tileRows: shape.tileRows, rowCount: shape.rows, traits: traits)
      try kernel.record(commands, push: push, tileCount: shape.tiles, cache: cache, traits: traits)

    case .residualProjection(let weights):
      let fromAttention = weights.stage.input == .attention
      push.inputs = workspace.address(fromAttention ? .attention : .hidden)
      push.input_stride = UInt32(fromAttention ? workspace.attentionStride : workspace.hiddenStride)
      push.outputs = workspace.address(.residual)
      push.output_stride = UInt32(workspace.residualStride)
      push.bias = weights.bias
      let kernel = LinearKernel(
        matrix: weights.matrix, epilogue: weights.postNorm == 0 ? .residual : .residualNorm,
        hasBias: weights.bias != 0)
      try kernel.record(commands, push: push, columnCount: shape.rows, cache: cache, traits: traits)

    case .gatedFeedForward(let weights):
      push.inputs = workspace.address(.residual)
      push.input_stride = UInt32(workspace.residualStride)
      push.norm = weights.norm
      push.epsilon = weights.stage.norm.epsilon
      push.outputs = workspace.address(.hidden)
      push.output_stride = UInt32(workspace.hiddenStride)
      let kernel = LinearKernel(
        matrix: weights.matrix, epilogue: .gated, hasNorm: true, activation: weights.stage.activation)
      try kernel.record(commands, push: push, columnCount: shape.rows, cache: cache, traits: traits)

    case .logits(let weights):
      push.inputs = workspace.address(.residual)
      push.input_stride = UInt32(workspace.residualStride)
      push.norm = weights.norm
      push.epsilon = weights.stage.norm.epsilon
      push.outputs = workspace.address(.logits)
      push.output_stride = UInt32(workspace.logitsStride)
      push.softcap = weights.stage.softcap ?? 0
      let kernel = LinearKernel(
        matrix: weights.matrix, epilogue: .store, hasNorm: true, gathersOutputs: true)
      try kernel.record(commands, push: push, columnCount: shape.outputs, cache: cache, traits: traits)
    }
  }
}
