import CShaderInterface
import Transformer
import VulkanRuntime

extension HeadLayout {
  /// Groups of up to `size` query heads of one kv head.
  func groupCount(of size: Int) -> Int { kvHeadCount * ((headCount / kvHeadCount + size - 1) / size) }
}

/// Causal attention over the paged KV cache (Shaders/attention/attention.comp).
package struct AttentionKernel: Sendable, Hashable {
  package var heads: HeadLayout
  /// Most tokens of a tile: 1 for generation, more for prompts.
  package var tileRows: Int
  /// Query heads of one kv head that a workgroup takes.
  package var group: Int
  /// Workgroups that may share the positions of one tile.
  package var splits: Int
  package var threads: Int
  /// How the output projection wants its inputs.
  package var next: ProductForm

  /// The shape for a step of `rowCount` tokens.
  ///
  /// - Parameter tileRows: most tokens in one tile of the step.
  package init(
    heads: HeadLayout, tileRows: Int, rowCount: Int, next: ProductForm = .floats, traits: DeviceTraits
  ) {
    self.heads = heads
    self.next = next
    let headsPerKV = heads.headCount / heads.kvHeadCount
    // Queries live in registers and shared memory: eight are as many as every device holds.
    let mostQueries = 8
    group = min(headsPerKV, mostQueries)
    self.tileRows = max(1, min(tileRows, mostQueries / group))
    // A workgroup deals its invocations out over octets of the head, so it has at least that many.
    let wanted = max(traits.isCPU ? 16 : 128, heads.headSize / 8)
    threads = traits.invocations(
      (wanted + traits.subgroupSize - 1) / traits.subgroupSize * traits.subgroupSize)
    let tiles = (rowCount + self.tileRows - 1) / self.tileRows
    let workgroups = tiles * heads.groupCount(of: group)
    let wantedWorkgroups = max(1, traits.wantedSubgroups / 16)
    splits = traits.isCPU ? 1 : max(1, min(32, wantedWorkgroups / workgroups))
    while sharedBytes > traits.sharedMemory, self.tileRows > 1 { self.tileRows /= 2 }
    while sharedBytes > traits.sharedMemory, group > 1 { group /= 2 }
  }

  private var sharedBytes: Int {
    let queries = group * tileRows
    return 4 * (queries * heads.headSize + max(queries, 8) * threads + 3 * queries + 1)
  }

  /// Workgroups along y: every kv head, and every group of its query heads.
  package var headGroups: Int { heads.groupCount(of: group) }

  /// Floats that splits of `rowCount` tokens leave for the last workgroup.
  package func partialCount(rowCount: Int) -> Int {
    splits == 1 ? 0 : rowCount * heads.headCount * splits * (heads.headSize + 2)
  }

  /// Counters needed for `tileCount` tiles.
  package func counterCount(tileCount: Int) -> Int { splits == 1 ? 0 : tileCount * headGroups }

  /// The shader's specialization constants.
  package var specialization: [UInt32] {
    [
      UInt32(threads), UInt32(heads.headSize), UInt32(group), UInt32(tileRows), UInt32(splits),
      next.rawValue, heads.cacheType.constant,
    ]
  }

  package func record(
    _ commands: CommandBuffer, push: AttentionPush, tileCount: Int, cache: KernelCache
  ) throws {
    try cache.dispatch(
      commands, "attention", specialization, push, groups: (tileCount, headGroups, splits))
  }
}
