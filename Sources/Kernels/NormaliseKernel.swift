import CShaderInterface
import VulkanRuntime

/// Makes the inputs of matrix products: `norm(inputs)` as float16, row by row (Shaders/matrix/normalise.comp).
package struct NormaliseKernel: Sendable, Hashable {
  /// False converts the inputs as they are.
  package var hasNorm: Bool
  /// Whether `inputs += norm(addend)` comes first: what `LinearKernel.Epilogue.residualNorm` of a matrix product left.
  package var hasAddend: Bool
  /// Whether rows are the step's output rows, not all its rows.
  package var gathersOutputs: Bool

  package init(hasNorm: Bool = true, hasAddend: Bool = false, gathersOutputs: Bool = false) {
    self.hasNorm = hasNorm
    self.hasAddend = hasAddend
    self.gathersOutputs = gathersOutputs
  }

  /// The shader's specialization constants, for rows of `width`.
  package func specialization(width: Int, traits: DeviceTraits) -> [UInt32] {
    let threads = traits.invocations(
      traits.isCPU ? traits.subgroupSize : min(256, max(traits.subgroupSize, width / 8)))
    return [UInt32(threads), hasNorm ? 1 : 0, hasAddend ? 1 : 0, gathersOutputs ? 1 : 0]
  }

  /// Records it for `rowCount` rows. Every field of `push` that the kernel uses is the caller's.
  package func record(
    _ commands: CommandBuffer, push: NormalisePush, rowCount: Int, cache: KernelCache
  ) throws {
    try cache.dispatch(
      commands, "normalise", specialization(width: Int(push.width), traits: cache.traits), push,
      groups: (rowCount, 1, 1))
  }
}

/// Norms of query and key heads, rope, and the write into the KV cache (Shaders/matrix/headnorm.comp): what follows a
/// matrix product with `LinearKernel.Epilogue.queryKeyValueNorm`.
package struct HeadNormKernel: Sendable, Hashable {
  package init() {}

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [UInt32(traits.invocations(traits.isCPU ? traits.subgroupSize : 256))]
  }

  package func record(
    _ commands: CommandBuffer, push: HeadNormPush, rowCount: Int, cache: KernelCache
  ) throws {
    try cache.dispatch(
      commands, "headnorm", specialization(cache.traits), push, groups: (rowCount, 1, 1))
  }
}
