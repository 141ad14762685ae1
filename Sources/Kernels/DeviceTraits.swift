import VulkanRuntime

/// What kernels ask of a device when they choose their shape.
package struct DeviceTraits: Sendable, Hashable {
  /// Invocations of a subgroup, pinned wherever the device allows it.
  package var subgroupSize: Int
  package var sharedMemory: Int
  package var maxWorkgroupInvocations: Int
  /// Subgroups that the device should have in flight to hide its memory's latency.
  package var wantedSubgroups: Int
  /// Subgroups of a workgroup that has no other reason to be larger or smaller.
  package var usualSubgroups: Int
  /// A CPU driver runs invocations one after another: large workgroups cost, latency need not be hidden.
  package var isCPU: Bool
  /// How steps are computed: it decides what of the device is used.
  package let method: StepMethod
  /// How matrices lie: see `WeightFormat`. CPU drivers with small subgroups have products whose lanes are rows, unless
  /// others are asked for.
  package var rowInterleave: Int {
    let interleaves = method.linear == .sbi && (method.gemm == nil || method.gemm == .columns)
    return isCPU && subgroupSize <= 8 && interleaves ? 8 : 1
  }
  /// Whether products of small integers take their inputs in blocks of bytes: the device has the instruction for it.
  package var usesByteProducts: Bool
  /// Whether loads of 64 bits, which cost CPU drivers as much as those of 32, can take the place of two.
  package var loadsWords64: Bool
  /// Whether lanes of a subgroup can read one another's registers.
  package var canShuffle: Bool
  /// The matrix units that steps of many tokens are computed on; nil where there are none, or none worth using.
  package var matrixUnits: MatrixUnits?
  /// Those for products in bytes, where `KernelCache` has found out that they can be used, and they are.
  package var byteUnits: MatrixUnits?
  /// How the matrix units' fragments lie in registers, where `KernelCache` has found it out and can make use of it.
  package var fragments: FragmentLayout?
  /// Whether products of many tokens that are not computed on matrix units go in tiles (`LinearTileKernel`).
  package var usesTiles: Bool

  package init(_ physical: PhysicalDevice, method: StepMethod = StepMethod()) {
    let capabilities = physical.capabilities
    self.method = method
    isCPU = physical.kind == .cpu
    // Where a range of sizes can be pinned, 32 suits every kernel here; else the device's own.
    subgroupSize =
      capabilities.canPinSubgroupSize && capabilities.minSubgroupSize <= 32
        && capabilities.maxSubgroupSize >= 32
      ? 32 : capabilities.subgroupSize
    sharedMemory = capabilities.maxSharedMemory
    usesByteProducts = !isCPU && capabilities.integerDotProduct && method.linear == .sbi
    loadsWords64 = isCPU && capabilities.int64
    canShuffle = capabilities.subgroupShuffle
    // CPU drivers gain by neither.
    let isUsualGPU = method.gemm == nil && !isCPU
    let usesMatrixUnits = isUsualGPU || method.gemm.map { [.direct, .matrix, .bytes].contains($0) } ?? false
    matrixUnits = method.isFast && usesMatrixUnits ? MatrixUnits(capabilities) : nil
    usesTiles = method.isFast && (isUsualGPU || method.gemm == .tiles)
    maxWorkgroupInvocations = min(
      capabilities.maxWorkgroupInvocations, subgroupSize * max(1, capabilities.maxWorkgroupSubgroups))
    switch physical.kind {
    case .cpu:
      wantedSubgroups = 32
      usualSubgroups = 1
    case .discrete, .virtual:
      wantedSubgroups = 4096
      usualSubgroups = 4
    default:
      wantedSubgroups = 512
      usualSubgroups = 4
    }
  }

  /// The invocations of a workgroup of about `wanted`, a multiple of the subgroup size within the device's limit.
  package func invocations(_ wanted: Int) -> Int {
    let most = min(wanted, maxWorkgroupInvocations) / subgroupSize * subgroupSize
    return max(most, subgroupSize)
  }
}
