import CShaderInterface
import Transformer
import VulkanRuntime

/// Causal attention over the paged KV cache on CPU drivers (Shaders/attention/attention_lanes.comp).
package struct AttentionLanesKernel: Sendable, Hashable {
  package var heads: HeadLayout
  /// Most tokens of a tile: 1 for generation, more for prompts.
  package var tileRows: Int
  /// Query heads of one kv head that a workgroup takes.
  package var group: Int
  /// Subgroups of positions between two updates of the softmax.
  package var rounds: Int

  /// Nil where a device cannot run it, or is faster with others.
  ///
  /// - Parameter tileRows: most tokens in one tile of the step.
  package init?(heads: HeadLayout, tileRows: Int, traits: DeviceTraits) {
    // Subgroups of four have too few registers' worth of lanes for a head.
    guard traits.isCPU, (8...Int(KV_PAGE_TOKENS)).contains(traits.subgroupSize) else { return nil }
    self.heads = heads
    // What a workgroup holds is unrolled, and takes its time to compile.
    let mostQueries = max(2, 512 / heads.headSize)
    group = min(heads.headCount / heads.kvHeadCount, mostQueries)
    self.tileRows = max(1, min(tileRows, mostQueries / group))
    rounds = max(1, min(4, 512 / (group * self.tileRows * heads.headSize)))
  }

  /// Workgroups along y: every kv head, and every group of its query heads.
  package var headGroups: Int { heads.groupCount(of: group) }

  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [traits.subgroupSize, heads.headSize, group, tileRows, rounds].map { UInt32($0) }
      + [heads.cacheType.constant]
  }

  package func record(
    _ commands: CommandBuffer, push: AttentionPush, tileCount: Int, cache: KernelCache
  ) throws {
    try cache.dispatch(
      commands, "attention_lanes", specialization(cache.traits), push, groups: (tileCount, headGroups, 1))
  }
}
