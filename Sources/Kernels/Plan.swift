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
  /// Whether a token has many positions before it: attention is cut differently.
  package var isDeep: Bool
  /// Whether products and attention run on the matrix units.
  package var usesMatrixUnits: Bool
  /// Whether the residual stream is read after the step, and so must be complete.
  package var readsStates = false

  /// The smallest recorded shape that `step` fits.
  package init(_ step: StepContents, cut: StepCut, output: OutputKernel, limits: StepLimits) {
    rows = Self.bucket(step.rows.count, most: limits.rows)
    tiles = Self.bucket(step.tiles.count, most: limits.rows)
    outputs = step.outputs.isEmpty ? 0 : Self.bucket(step.outputs.count, most: limits.outputs)
    tileRows = cut.tileRows
    usesMatrixUnits = cut.usesMatrixUnits
    self.output = output
    isDeep = step.rows.contains { Int($0.position) >= AttentionDecodeKernel.deepContext }
  }

  static func bucket(_ count: Int, most: Int) -> Int {
    var bucket = 1
    while bucket < count { bucket *= 2 }
    return min(bucket, most)
  }
}

/// How the work of a step's tokens is cut.
package struct StepCut: Sendable, Hashable {
  /// Most rows of an attention tile.
  package var tileRows: Int
  package var usesMatrixUnits: Bool

  package init(tileRows: Int, usesMatrixUnits: Bool) {
    self.tileRows = tileRows
    self.usesMatrixUnits = usesMatrixUnits
  }
}

/// Records Programs: every stage's dispatches with the addresses of one device's weights, cache and workspace.
package final class PlanRecorder {
  package let cache: KernelCache
  package var traits: DeviceTraits { cache.traits }
  let model: DeviceModel
  let kvCache: KVCache
  let workspace: Workspace
  /// What the device shares with others; nil where it runs all of a model.
  let port: MeshPort?
  /// LinearExtrasData of each stage.
  let extras: Buffer
  /// Attention of prompts on the matrix units; nil where steps of many tokens do not run on them.
  let flash: FlashAttentionKernel?
  /// How each stage's products want their inputs; `.none` for stages without.
  let forms: [ProductForm]
  /// Whether stages of single tokens run without barriers between them.
  package let chainsStages: Bool
  /// How products that go straight to the matrix units are cut, instead of as usual: for comparisons.
  package var directTiling: DirectMatrixKernel.Tiling?
  /// The same for `MatrixKernel`.
  package var matrixTiling: MatrixTiling?

  /// - Parameters:
  ///   - port: what the device shares with others, where it has a share of the model.
  ///   - chainsStages: whether stages may run without barriers between them where they can; only for devices that
  ///     `ChainProbe` has found to, and not where weights stream.
  package init(
    cache: KernelCache, model: DeviceModel, kvCache: KVCache, workspace: Workspace, port: MeshPort? = nil,
    chainsStages: Bool = false
  ) throws {
    self.chainsStages = chainsStages && cache.traits.method.isFast
    self.cache = cache
    self.model = model
    self.kvCache = kvCache
    self.workspace = workspace
    self.port = port
    let traits = cache.traits
    precondition(port == nil || traits.method.isFast)
    forms = model.stages.map { $0.inputForm(traits) }
    flash = traits.matrixUnits.flatMap { units in
      // Weights of float32 would lose what they are there for.
      model.stages.contains { $0.matrices.contains { $0.format.type == .f32 } }
        ? nil : FlashAttentionKernel(heads: model.program.heads, units: units, traits: traits)
    }
    var all = model.stages.indices.map { index in
      Self.extras(model.stages, index, kvCache: kvCache, workspace: workspace)
    }
    extras = try cache.device.makeBuffer(
      byteCount: max(1, all.count) * MemoryLayout<LinearExtrasData>.stride, memory: .mappedDevice,
      label: "stage arguments")
    for index in all.indices {
      guard
        let place = Self.partInPlace(at: index, of: model, port: port, limits: workspace.limits)
      else { continue }
      all[index].scratch = place.address
      all[index].scratch_stride = UInt32(place.stride)
    }
    all.withUnsafeBytes { bytes in
      guard let source = bytes.baseAddress else { return }
      extras.contents?.copyMemory(from: source, byteCount: bytes.count)
    }
  }

  private static func extras(
    _ stages: [DeviceStage], _ index: Int, kvCache: KVCache, workspace: Workspace
  ) -> LinearExtrasData {
    var data = LinearExtrasData()
    data.scratch = workspace.address(.scratch)
    data.scratch_stride = UInt32(workspace.scratchStride)
    data.counters = workspace.address(.counters)
    data.best = workspace.address(.best)
    data.next = nextInputs(stages, after: index, workspace: workspace)
    switch stages[index] {
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
      if heads.cacheType != .f16 {
        data.fresh = workspace.address(.fresh)
        data.fresh_stride = UInt32(CacheWriteKernel.width(heads))
      }
    case .residualProjection(let weights):
      data.post_norm = weights.postNorm
      data.norm_epsilon = weights.stage.postNorm?.epsilon ?? 0
    case .embed, .attention, .gatedFeedForward, .logits, .collective:
      break
    }
    return data
  }

  /// Where stage `index` leaves the inputs of the product that follows it.
  static func nextInputs(
    _ stages: [DeviceStage], after index: Int, workspace: Workspace
  ) -> NextInputs {
    var next = NextInputs()
    if case .gatedFeedForward = stages[index] {
      next.values = workspace.address(.hidden)
      next.scales = workspace.address(.hiddenScales)
      next.width = UInt32(workspace.hiddenWidth)
      return next
    }
    next.values = workspace.address(.normed)
    next.scales = workspace.address(.normedScales)
    next.squares = workspace.address(.squares)
    next.width = UInt32(workspace.residualStride)
    let norm = index + 1 < stages.count ? stages[index + 1].inputNorm : 0
    // Stages that no norm follows are measured alone: any numbers do.
    next.norm = norm == 0 ? workspace.address(.residual) : norm
    return next
  }

  /// The stages of a step of this shape, as dispatches and barriers, reading `slot`.
  ///
  /// - Parameters:
  ///   - chain: what stages are chained by, if this recording is to be; see `makeChain`.
  ///   - onStage: called after each stage with its index in the Program, or nil for sampling: for profiling.
  package func record(
    _ commands: CommandBuffer, shape: PlanShape, slot: StepSlot, chain: StageChain? = nil,
    onStage: (Int?) -> Void = { _ in }
  ) throws {
    try record(StepRecording(commands), shape: shape, slot: slot, chain: chain, onStage: onStage)
  }

  /// The same where weights may stream, or other devices take part.
  package func record(
    _ recording: StepRecording, shape: PlanShape, slot: StepSlot, chain: StageChain? = nil,
    onStage: (Int?) -> Void = { _ in }
  ) throws {
    keepAlive(recording.commands, slot: slot)
    var state = RecordingState()
    try recordWaitForTokens(recording, slot: slot)
    if shape.usesMatrixUnits {
      try recordOnMatrixUnits(recording, shape: shape, slot: slot, onStage: onStage)
    } else if !traits.method.fuses {
      try recordUnfused(recording, shape: shape, slot: slot, onStage: onStage)
    } else {
      let indices = model.stages.indices.filter { !isSkipped(model.stages[$0], shape) }
      for (place, index) in indices.enumerated() {
        let chain = isLink(model.stages[index]) ? chain : nil
        try record(
          model.stages[index], index: index, recording, shape: shape, slot: slot, chain: chain, state: &state)
        chain?.endStage()
        // What is no link waits for all before it, and all after it waits for that.
        let isFollowed = place + 1 < indices.count && isLink(model.stages[indices[place + 1]])
        if chain == nil || !isFollowed { recording.commands.dispatchBarrier() }
        onStage(index)
      }
    }
    for commands in recording.parts.flatMap(\.segments).map(\.commands) {
      keepAlive(commands, slot: slot)
      chain?.keepAlive(commands)
    }
    if shape.outputs > 0, model.program.share.samples {
      try recordOutputs(recording.commands, shape: shape, slot: slot, bestCount: state.bestCount)
      onStage(nil)
    }
    try recordEndOfStep(recording, slot: slot)
  }

  /// What is done with the logits.
  private func recordOutputs(
    _ commands: CommandBuffer, shape: PlanShape, slot: StepSlot, bestCount: Int
  ) throws {
    var push = SamplePush()
    push.logits = workspace.address(.logits)
    push.step = slot.stepAddress
    push.parameters = slot.samplesAddress
    push.counts = workspace.counts.address
    push.last_tokens = lastTokens
    push.results = slot.results.address
    push.vocabulary = UInt32(model.program.vocabularySize)
    push.logits_stride = UInt32(workspace.logitsStride)
    push.best = workspace.address(.best)
    push.best_count = UInt32(bestCount)
    try shape.output.record(
      commands, push: push, outputCount: shape.outputs, cache: cache)
    commands.dispatchBarrier()
    try recordTokens(commands)
    commands.barrierToHost()
  }

  /// Whether other devices take part in steps.
  package var isShared: Bool { port != nil }

  /// Whether the stage may be one of a chain: neither the embedding look-up nor what passes between devices.
  private func isLink(_ stage: DeviceStage) -> Bool {
    switch stage {
    case .embed, .collective: false
    default: true
    }
  }

  /// Whether steps without outputs leave the stage out.
  func isSkipped(_ stage: DeviceStage, _ shape: PlanShape) -> Bool {
    guard shape.outputs == 0 else { return false }
    return switch stage {
    case .logits, .collective(.gatherLogits, _): true
    default: false
    }
  }

  /// Where the last token of each sequence is: in shared memory, where devices share the model.
  var lastTokens: UInt64 {
    port.map { $0.tokens(home: $0.home) } ?? workspace.address(.lastTokens)
  }

  /// The embedding look-up. Ranks that have a part of the table each leave theirs for an all-reduce.
  func recordEmbed(
    _ kernel: EmbedKernel, index: Int, _ commands: CommandBuffer, shape: PlanShape, slot: StepSlot
  ) throws {
    let isPartial = model.program.share.mesh.tensor > 1
    var push = EmbedPush()
    push.next = Self.nextInputs(model.stages, after: index, workspace: workspace)
    push.outputs = workspace.address(isPartial ? .scratch : .residual)
    push.output_stride = UInt32(isPartial ? workspace.scratchStride : workspace.residualStride)
    push.step = slot.stepAddress
    push.last_tokens = lastTokens
    try kernel.record(commands, push: push, rowCount: shape.rows, cache: cache)
  }

  /// What one stage leaves for a later one to know while a step is recorded.
  private struct RecordingState {
    /// Parts of the sum of squares of each row of the residual stream.
    var squareCount = 0
    /// Workgroups of the logits' product, each of which leaves its best.
    var bestCount = 0
    /// All-reduces so far.
    var reduceCount = 0
  }

  /// Links for a recording of that shape, or nil where its stages cannot be chained.
  package func makeChain(_ shape: PlanShape) throws -> StageChain? {
    guard chainsStages, !shape.usesMatrixUnits, shape.tileRows == 1,
      !LinearTileKernel.takes(columnCount: shape.rows, traits: traits),
      model.stages.count > 2, !isLink(model.stages[0]),
      AttentionDecodeKernel(
        heads: model.program.heads, tokenCount: shape.tiles, isDeep: shape.isDeep, traits: traits) != nil
    else { return nil }
    let quantised = model.program.heads.cacheType == .f16 ? 0 : model.program.layerCount
    return try StageChain(device: cache.device, stageCount: model.stages.count + quantised)
  }

  private func record(
    _ stage: DeviceStage, index: Int, _ recording: StepRecording, shape: PlanShape, slot: StepSlot,
    chain: StageChain?, state: inout RecordingState
  ) throws {
    let commands = recording.commands
    switch stage {
    case .embed(let table, let scale, let firstToken):
      let kernel = EmbedKernel(
        table: table, scale: scale, next: nextForm(after: index), firstToken: firstToken)
      try recordEmbed(kernel, index: index, commands, shape: shape, slot: slot)
      state.squareCount = kernel.squareCount

    case .collective(let stage, let postNorm):
      let squareCount = try recordCollective(
        stage, postNorm: postNorm, index: index, recording, shape: shape, slot: slot,
        reduceCount: &state.reduceCount,
        next: nextForm(after: index))
      // Logits that are gathered come without the best of each workgroup.
      if case .gatherLogits = stage { state.bestCount = 0 } else { state.squareCount = squareCount }

    case .attention(let stage):
      try recordAttention(
        stage, commands, shape: shape, slot: slot, next: nextForm(after: index), chain: chain)
      endCache(stage.layer, recording)

    case .queryKeyValue, .residualProjection, .gatedFeedForward, .logits:
      let products = products(at: index, shape: shape, slot: slot, squareCount: state.squareCount)
      if case .queryKeyValue(let weights) = stage { try beginCache(weights.stage.layer, recording) }
      for product in products {
        try recording.need(product.kernel.matrix)
        let groups = try record(product, recording.commands, chain: chain)
        switch product.kernel.epilogue {
        case .residual: state.squareCount = groups
        case .residualNorm: state.squareCount = 1
        // Pieces leave theirs in the same place: the sampler goes through all logits then.
        case .store: state.bestCount = products.count == 1 ? groups : 0
        case .gated, .queryKeyValue, .queryKeyValueNorm, .partial: break
        }
      }
      if let last = products.last, tileKernel(last) != nil {
        try finishTiles(
          last.kernel.epilogue, index: index, recording.commands, shape: shape, slot: slot)
      }
      if case .queryKeyValue(let weights) = stage {
        try recordCacheWrite(weights.stage, recording.commands, shape: shape, slot: slot, chain: chain)
      }
    }
  }

  /// What computes a product in tiles, where that pays.
  package func tileKernel(_ product: Product) -> LinearTileKernel? {
    LinearTileKernel(product.kernel, columnCount: product.columnCount, traits: traits)
  }

  /// Records a product; gives the number of its workgroups along rows.
  private func record(_ product: Product, _ commands: CommandBuffer, chain: StageChain?) throws -> Int {
    if let kernel = tileKernel(product) {
      precondition(chain == nil)
      try kernel.record(commands, push: product.push, columnCount: product.columnCount, cache: cache)
      return kernel.rowGroups
    }
    let tiling = cache.tuning.tiling(
      product.kernel, columnCount: product.columnCount, isChained: chain != nil, traits: traits)
    try product.kernel.record(
      commands, push: product.push, columnCount: product.columnCount, cache: cache, tiling: tiling,
      chain: chain)
    return product.kernel.groups(tiling, columnCount: product.columnCount).1
  }

  /// The stages of the Program.
  var stageIndices: Range<Int> { model.stages.indices }

  /// Keeps what every recording reads until it has run.
  func keepAlive(_ commands: CommandBuffer, slot: StepSlot) {
    commands.keepAlive([
      workspace.memory, workspace.blockTables, workspace.counts, extras, slot.data, slot.results,
    ])
    if let port { commands.keepAlive(port.memory) }
  }

  func nextForm(after index: Int) -> ProductForm {
    index + 1 < forms.count ? forms[index + 1] : .none
  }

  /// One dispatch of the linear kernel.
  package struct Product {
    package var kernel: LinearKernel
    package var push: LinearPush
    package var columnCount: Int
  }

  /// The products of stage `index`; none for stages that have none. Those of fused steps may run at the same time.
  ///
  /// - Parameter squareCount: parts in which the stage before leaves the sum of squares of each row.
  package func products(at index: Int, shape: PlanShape, slot: StepSlot, squareCount: Int) -> [Product] {
    let products =
      traits.method.fuses
      ? fusedProducts(at: index, shape: shape, slot: slot, squareCount: squareCount)
      : unfusedProducts(at: index, shape: shape, slot: slot)
    return products.map { product in
      var product = product
      product.kernel.isNaive = traits.method.linear == .naive
      return product
    }
  }

  private func fusedProducts(
    at index: Int, shape: PlanShape, slot: StepSlot, squareCount: Int
  ) -> [Product] {
    var push = LinearPush()
    push.step = slot.stepAddress
    push.extras = extras.address + UInt64(index * MemoryLayout<LinearExtrasData>.stride)
    push.squares = workspace.address(.squares)
    push.square_count = UInt32(squareCount)
    let form = forms[index]
    let next = nextForm(after: index)
    func takeInputs(_ values: Workspace.Array, _ scales: Workspace.Array) {
      push.inputs = workspace.address(values)
      push.input_scales = workspace.address(scales)
    }
    func leaveOutputs(_ array: Workspace.Array, stride: Int) {
      push.outputs = workspace.address(array)
      push.output_stride = UInt32(stride)
    }
    switch model.stages[index] {
    case .embed, .attention, .collective:
      return []

    case .queryKeyValue(let weights):
      takeInputs(.normed, .normedScales)
      push.epsilon = weights.stage.norm.epsilon
      leaveOutputs(.queries, stride: workspace.queryStride)
      return weights.matrices.map { matrix in
        push.bias = weights.bias == 0 ? 0 : weights.bias + UInt64(4 * matrix.rowOffset)
        let kernel = LinearKernel(
          matrix: matrix, epilogue: weights.queryNorm == 0 ? .queryKeyValue : .queryKeyValueNorm,
          hasNorm: true, hasBias: weights.bias != 0, inputs: form)
        return Product(kernel: kernel, push: push, columnCount: shape.rows)
      }

    case .residualProjection(let weights):
      if weights.stage.input == .attention {
        takeInputs(.attention, .attentionScales)
      } else {
        takeInputs(.hidden, .hiddenScales)
      }
      leaveOutputs(.residual, stride: workspace.residualStride)
      push.bias = weights.bias
      let kernel = LinearKernel(
        matrix: weights.matrix, epilogue: weights.epilogue, hasBias: weights.bias != 0, inputs: form,
        next: next)
      return [Product(kernel: kernel, push: push, columnCount: shape.rows)]

    case .gatedFeedForward(let weights):
      takeInputs(.normed, .normedScales)
      push.epsilon = weights.stage.norm.epsilon
      leaveOutputs(.hidden, stride: workspace.hiddenWidth)
      return weights.matrices.map { matrix in
        let kernel = LinearKernel(
          matrix: matrix, epilogue: .gated, hasNorm: true, activation: weights.stage.activation,
          inputs: form, next: next)
        return Product(kernel: kernel, push: push, columnCount: shape.rows)
      }

    case .logits(let weights):
      takeInputs(.normed, .normedScales)
      push.epsilon = weights.stage.norm.epsilon
      leaveOutputs(.logits, stride: workspace.logitsStride)
      push.softcap = weights.stage.softcap ?? 0
      return weights.matrices.map { matrix in
        let kernel = LinearKernel(
          matrix: matrix, epilogue: .store, hasNorm: true, gathersOutputs: true, inputs: form)
        return Product(kernel: kernel, push: push, columnCount: shape.outputs)
      }
    }
  }

  func recordAttention(
    _ stage: AttentionStage, _ commands: CommandBuffer, shape: PlanShape, slot: StepSlot, next: ProductForm,
    chain: StageChain?
  ) throws {
    // Alone, it leaves what it would leave for floats.
    let next = next == .none ? .floats : next
    let push = attentionPush(stage, slot: slot)
    if shape.tileRows == 1,
      let kernel = AttentionDecodeKernel(
        heads: stage.heads, tokenCount: shape.tiles, isDeep: shape.isDeep, isChained: chain != nil,
        next: next,
        traits: traits)
    {
      try kernel.record(
        commands, push: push, tokenCount: shape.tiles, cache: cache, chain: chain)
    } else if next == .floats,
      let kernel = AttentionLanesKernel(heads: stage.heads, tileRows: shape.tileRows, traits: traits)
    {
      try kernel.record(commands, push: push, tileCount: shape.tiles, cache: cache)
    } else {
      let kernel = AttentionKernel(
        heads: stage.heads, tileRows: shape.tileRows, rowCount: shape.rows, next: next, traits: traits)
      try kernel.record(commands, push: push, tileCount: shape.tiles, cache: cache)
    }
  }

  func attentionPush(_ stage: AttentionStage, slot: StepSlot) -> AttentionPush {
    var push = AttentionPush()
    push.queries = workspace.address(.queries)
    push.keys = kvCache.keys(layer: stage.layer)
    push.values = kvCache.values(layer: stage.layer)
    push.block_tables = workspace.blockTables.address
    push.table_stride = UInt32(workspace.limits.pagesPerSequence)
    push.step = slot.stepAddress
    push.tiles = slot.tilesAddress
    push.outputs = workspace.address(.attention)
    push.output_scales = workspace.address(.attentionScales)
    push.output_width = UInt32(workspace.attentionWidth)
    push.partials = workspace.address(.partials)
    push.counters = workspace.address(.counters)
    push.head_count = UInt32(stage.heads.headCount)
    push.kv_head_count = UInt32(stage.heads.kvHeadCount)
    push.window = UInt32(stage.window ?? 0)
    push.scale = stage.scale
    push.softcap = stage.softcap ?? 0
    return push
  }

  /// How to cut a step of these tokens.
  package func cut(_ rows: [StepRow]) -> StepCut {
    let isPrompt = zip(rows, rows.dropFirst()).contains { $0.sequence == $1.sequence }
    let count = PlanShape.bucket(rows.count, most: workspace.limits.rows)
    if let flash, count >= fewestMatrixRows {
      return StepCut(tileRows: isPrompt ? flash.tileRows : 1, usesMatrixUnits: true)
    }
    guard isPrompt else { return StepCut(tileRows: 1, usesMatrixUnits: false) }
    let (heads, most) = (model.program.heads, workspace.limits.rows)
    let tileRows =
      AttentionLanesKernel(heads: heads, tileRows: most, traits: traits)?.tileRows
      ?? AttentionKernel(heads: heads, tileRows: most, rowCount: most, traits: traits).tileRows
    return StepCut(tileRows: tileRows, usesMatrixUnits: false)
  }

  /// Tokens from which on the matrix units are faster: as measured on an H100 and an H200, sooner where products read
  /// more.
  private var fewestMatrixRows: Int {
    if traits.method.gemm == .direct { return 2 }
    let takesFloats = model.stages.contains { $0.matrices.contains { !$0.format.hasByteProducts } }
    guard traits.fragments != nil else { return takesFloats ? 8 : 16 }
    // Stages of few tokens overlap and need no norms of their own: that is worth more the smaller the products are.
    let isLarge = model.program.width >= 4096
    return takesFloats ? (isLarge ? 2 : 4) : isLarge ? 4 : model.program.width >= 2048 ? 8 : 16
  }
}

extension DeviceStage.ResidualProjection {
  var epilogue: LinearKernel.Epilogue { isPartial ? .partial : postNorm == 0 ? .residual : .residualNorm }
}

extension DeviceStage {
  /// How the stage's products want their inputs on a device; `.none` where there are none.
  func inputForm(_ traits: DeviceTraits) -> ProductForm {
    switch self {
    case .embed, .attention, .collective:
      return .none
    case .queryKeyValue(let weights):
      return ProductForm(weights.matrices.map(\.format), traits: traits)
    case .residualProjection(let weights):
      // Blocks must not lie across heads, which different workgroups make.
      let isWhole = weights.stage.input == .feedForward || weights.headSize.isMultiple(of: 32)
      return isWhole ? ProductForm([weights.matrix.format], traits: traits) : .floats
    case .gatedFeedForward(let weights):
      return ProductForm([weights.matrix.format], traits: traits)
    case .logits(let weights):
      return ProductForm([weights.matrix.format], traits: traits)
    }
  }

  /// The address of the weight of the norm before the stage's product; 0 for none.
  var inputNorm: UInt64 {
    switch self {
    case .embed, .attention, .residualProjection, .collective: 0
    case .queryKeyValue(let weights): weights.norm
    case .gatedFeedForward(let weights): weights.norm
    case .logits(let weights): weights.norm
    }
  }
}
