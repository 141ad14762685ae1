import CShaderInterface
import Transformer
import VulkanRuntime

/// Causal attention of prompts over the paged KV cache, on the matrix units (Shaders/attention/flash.comp): the
/// method of "FlashAttention-2", arXiv 2307.08691.
package struct FlashAttentionKernel: Sendable, Hashable {
  package var heads: HeadLayout
  package var units: MatrixUnits
  package var subgroups: Int
  /// Fragments of a subgroup along queries.
  package var fragments: Int
  /// Positions that are multiplied at a time.
  package var block: Int
  /// Whether the next block is loaded, into registers, while this one is multiplied.
  package var loadsAhead: Bool

  /// The shape for a device; nil where its matrix units or shared memory do not suffice.
  package init?(heads: HeadLayout, units: MatrixUnits, traits: DeviceTraits) {
    guard units.hasHalfResults, heads.headSize % 16 == 0, heads.headSize % units.n == 0,
      heads.headSize % units.k == 0, 32 % units.n == 0
    else { return nil }
    self.heads = heads
    self.units = units
    fragments = 1
    block = 32
    loadsAhead = true
    // A subgroup holds its queries and their outputs in registers: small heads leave room for more subgroups.
    subgroups = traits.isCPU ? 2 : heads.headSize <= 64 ? 8 : 4
    while subgroups > 1, subgroups * traits.subgroupSize > traits.maxWorkgroupInvocations { subgroups /= 2 }
    while subgroups > 1, sharedBytes > traits.sharedMemory { subgroups /= 2 }
    if sharedBytes > traits.sharedMemory, units.n <= 16, units.k <= 16 { block = 16 }
    guard sharedBytes <= traits.sharedMemory else { return nil }
  }

  /// Most tokens of one `AttentionTile`: the queries of a workgroup.
  package var tileRows: Int { subgroups * fragments * units.m }

  private var sharedBytes: Int {
    let row = heads.headSize / 8 + 1
    let scratchRow = max(block / 8 + 1, units.n / 4 + 1)
    return 16 * max(2 * block * row + tileRows * scratchRow, tileRows * row) + 8 * tileRows
  }

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [
      UInt32(subgroups * traits.subgroupSize), UInt32(subgroups), UInt32(heads.headSize), UInt32(fragments),
      UInt32(block), UInt32(units.m), UInt32(units.n), UInt32(units.k), loadsAhead ? 1 : 0,
    ]
  }

  /// Records attention of `tileCount` tiles. `push.head_count` and `kv_head_count` are filled in.
  package func record(
    _ commands: CommandBuffer, push: FlashPush, tileCount: Int, cache: KernelCache, traits: DeviceTraits
  ) throws {
    var push = push
    push.head_count = UInt32(heads.headCount)
    push.kv_head_count = UInt32(heads.kvHeadCount)
    guard sharedBytes <= traits.sharedMemory else {
      throw KernelError.unsupported("flash: \(sharedBytes) bytes of shared memory are more than the device has")
    }
    let pipeline = try cache.pipeline(
      "flash", specialization: specialization(traits),
      pushConstantBytes: MemoryLayout<FlashPush>.size, subgroupSize: traits.subgroupSize)
    commands.dispatch(pipeline, pushConstants: push, groups: (heads.headCount, tileCount, 1))
  }
}
