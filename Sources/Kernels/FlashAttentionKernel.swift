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
  /// Whether queries are held in registers, not in shared memory.
  package var holdsQueries: Bool

  /// The shape for a device; nil where its matrix units or shared memory do not suffice.
  package init?(heads: HeadLayout, units: MatrixUnits, traits: DeviceTraits) {
    guard units.hasHalfResults, heads.headSize % 16 == 0, heads.headSize % units.n == 0,
      heads.headSize % units.k == 0, 32 % units.n == 0
    else { return nil }
    self.heads = heads
    self.units = units
    let mayHalve = units.n <= 16 && units.k <= 16
    fragments = 1
    // CPU drivers take long to compile what is unrolled.
    block = traits.isCPU && mayHalve ? 16 : 32
    loadsAhead = true
    holdsQueries = true
    // A subgroup holds its queries and their outputs in registers: small heads leave room for more subgroups.
    subgroups = traits.isCPU ? 2 : heads.headSize <= 64 ? 8 : 4
    while subgroups > 1, subgroups * traits.subgroupSize > traits.maxWorkgroupInvocations { subgroups /= 2 }
    // Of large heads the outputs alone fill the registers: queries stay in shared memory where it has room for them.
    if heads.headSize > 128, mayHalve {
      var shared = self
      shared.holdsQueries = false
      shared.block = 16
      if shared.fits(traits) { self = shared }
    }
    while subgroups > 1, !fits(traits) { subgroups /= 2 }
    if !fits(traits), mayHalve { block = 16 }
    guard fits(traits) else { return nil }
  }

  /// Most tokens of one `AttentionTile`: the queries of a workgroup.
  package var tileRows: Int { subgroups * fragments * units.m }

  private var sharedBytes: Int {
    let row = heads.headSize / 8 + 1
    let scratchRow = max(block / 8 + 1, units.n / 4 + 1)
    let loop = 2 * block * row + tileRows * scratchRow
    return 16 * (holdsQueries ? max(loop, tileRows * row) : loop + tileRows * row) + 8 * tileRows
  }

  /// Whether a device has the shared memory: see `MatrixTiling.fits`.
  package func fits(_ traits: DeviceTraits) -> Bool { sharedBytes <= traits.sharedMemory }

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [
      UInt32(subgroups * traits.subgroupSize), UInt32(subgroups), UInt32(heads.headSize), UInt32(fragments),
      UInt32(block), UInt32(units.m), UInt32(units.n), UInt32(units.k), loadsAhead ? 1 : 0,
      holdsQueries ? 1 : 0, heads.cacheType.constant,
    ]
  }

  /// Records attention of `tileCount` tiles. `push.head_count` and `kv_head_count` are filled in.
  package func record(
    _ commands: CommandBuffer, push: FlashPush, tileCount: Int, cache: KernelCache
  ) throws {
    var push = push
    push.head_count = UInt32(heads.headCount)
    push.kv_head_count = UInt32(heads.kvHeadCount)
    guard fits(cache.traits) else {
      throw KernelError.unsupported(
        "flash: \(sharedBytes) bytes of shared memory are more than the device has")
    }
    try cache.dispatch(
      commands, "flash", specialization(cache.traits), push, groups: (heads.headCount, tileCount, 1))
  }
}
