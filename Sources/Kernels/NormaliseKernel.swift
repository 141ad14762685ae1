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

  /// Records it for `rowCount` rows. Every field of `push` that the kernel uses is the caller's.
  package func record(
    _ commands: CommandBuffer, push: NormalisePush, rowCount: Int, cache: KernelCache, traits: DeviceTraits
  ) throws {
    let octets = Int(push.width) / 8
    let threads = traits.invocations(
      traits.isCPU ? traits.subgroupSize : min(256, max(traits.subgroupSize, octets)))
    let pipeline = try cache.pipeline(
      "normalise",
      specialization: [UInt32(threads), hasNorm ? 1 : 0, hasAddend ? 1 : 0, gathersOutputs ? 1 : 0],
      pushConstantBytes: MemoryLayout<NormalisePush>.size, subgroupSize: traits.subgroupSize)
    commands.dispatch(pipeline, pushConstants: push, groups: (rowCount, 1, 1))
  }
}

/// Norms of query and key heads, rope, and the write into the KV cache (Shaders/matrix/headnorm.comp): what follows a
/// matrix product with `LinearKernel.Epilogue.queryKeyValueNorm`.
package struct HeadNormKernel: Sendable, Hashable {
  package init() {}

  package func record(
    _ commands: CommandBuffer, push: HeadNormPush, rowCount: Int, cache: KernelCache, traits: DeviceTraits
  ) throws {
    let threads = traits.invocations(traits.isCPU ? traits.subgroupSize : 256)
    let pipeline = try cache.pipeline(
      "headnorm", specialization: [UInt32(threads)], pushConstantBytes: MemoryLayout<HeadNormPush>.size,
      subgroupSize: traits.subgroupSize)
    commands.dispatch(pipeline, pushConstants: push, groups: (rowCount, 1, 1))
  }
}
