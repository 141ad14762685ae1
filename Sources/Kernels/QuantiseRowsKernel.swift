import CShaderInterface
import VulkanRuntime

/// Makes the inputs of a `MatrixKernel` in bytes: blocks of 32 signed bytes with a scale, of float16 rows
/// (Shaders/matrix/quantise_rows.comp).
package struct QuantiseRowsKernel: Sendable, Hashable {
  package init() {}

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [UInt32(traits.invocations(traits.isCPU ? traits.subgroupSize : 64))]
  }

  /// Records it for `rowCount` rows. Every field of `push` is the caller's.
  package func record(
    _ commands: CommandBuffer, push: QuantiseRowsPush, rowCount: Int, cache: KernelCache
  ) throws {
    let constants = specialization(cache.traits)
    let groups = (Int(push.blocks) + Int(constants[0]) - 1) / Int(constants[0])
    try cache.dispatch(commands, "quantise_rows", constants, push, groups: (groups, rowCount, 1))
  }
}
