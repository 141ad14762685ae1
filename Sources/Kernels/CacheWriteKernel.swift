import CShaderInterface
import Transformer
import VulkanRuntime

/// New keys and values into the pages of a q8_0 cache (Shaders/attention/cache_write.comp), after the product that made
/// them.
package struct CacheWriteKernel: Sendable, Hashable {
  package var heads: HeadLayout

  /// Nil where the cache holds them as the product leaves them.
  package init?(heads: HeadLayout) {
    guard heads.cacheType == .q8_0 else { return nil }
    self.heads = heads
  }

  /// Floats of a token's keys and values.
  package static func width(_ heads: HeadLayout) -> Int { 2 * heads.kvHeadCount * heads.headSize }

  private func threads(_ traits: DeviceTraits) -> Int { traits.invocations(traits.isCPU ? 8 : 32) }

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits, isChained: Bool = false) -> [UInt32] {
    [UInt32(threads(traits)), isChained ? 1 : 0]
  }

  /// Records it for `rowCount` tokens. `push.chain`, `kv_head_count` and `head_size` are filled in.
  package func record(
    _ commands: CommandBuffer, push: CacheWritePush, rowCount: Int, cache: KernelCache,
    chain: StageChain? = nil
  ) throws {
    var push = push
    push.chain = chain?.address ?? 0
    push.kv_head_count = UInt32(heads.kvHeadCount)
    push.head_size = UInt32(heads.headSize)
    let threads = threads(cache.traits)
    let groups = ((Self.width(heads) / 32 + threads - 1) / threads, rowCount, 1)
    chain?.add(groups)
    try cache.dispatch(
      commands, "cache_write", specialization(cache.traits, isChained: chain != nil), push, groups: groups)
  }
}

extension KVCacheType {
  /// What the attention kernels are told.
  var constant: UInt32 { self == .f16 ? CACHE_F16 : CACHE_Q8_0 }
}

extension PlanRecorder {
  /// Keys and values of a step that the product before left as floats, into their pages; nothing where that has put
  /// them there itself. The product's writes must be visible.
  func recordCacheWrite(
    _ stage: QueryKeyValueStage, _ commands: CommandBuffer, shape: PlanShape, slot: StepSlot,
    chain: StageChain? = nil
  ) throws {
    guard let kernel = CacheWriteKernel(heads: stage.heads) else { return }
    var push = CacheWritePush()
    push.inputs = workspace.address(.fresh)
    push.keys = kvCache.keys(layer: stage.layer)
    push.values = kvCache.values(layer: stage.layer)
    push.block_tables = workspace.blockTables.address
    push.table_stride = UInt32(workspace.limits.pagesPerSequence)
    push.step = slot.stepAddress
    if let chain { chain.endStage() } else { commands.dispatchBarrier() }
    try kernel.record(
      commands, push: push, rowCount: shape.rows, cache: cache, chain: chain)
  }
}
