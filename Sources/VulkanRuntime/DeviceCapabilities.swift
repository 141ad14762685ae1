/// A matrix product that the device's matrix units do: result[m, n] = a[m, k] * b[k, n] + c[m, n].
package struct CooperativeMatrixShape: Sendable, Hashable {
  /// The type of a matrix's elements.
  package enum Component: UInt32, Sendable, Hashable, CaseIterable {
    // Raw values are those of VkComponentTypeKHR.
    case float16 = 0
    case float32 = 1
    case float64 = 2
    case int8 = 3
    case int16 = 4
    case int32 = 5
    case int64 = 6
    case uint8 = 7
    case uint16 = 8
    case uint32 = 9
    case uint64 = 10
    case bfloat16 = 1_000_141_000
    case float8e4m3 = 1_000_491_002
    case float8e5m2 = 1_000_491_003
  }

  /// Which invocations hold a matrix together; raw values are those of VkScopeKHR.
  package enum Scope: UInt32, Sendable, Hashable {
    case device = 1
    case workgroup = 2
    case subgroup = 3
    case queueFamily = 5
  }

  package var m: Int
  package var n: Int
  package var k: Int
  package var a: Component
  package var b: Component
  package var c: Component
  package var result: Component
  package var scope: Scope
  /// Whether integer sums saturate.
  package var saturates: Bool
}

/// What a device can do, as far as kernels care. Sizes are in bytes unless they say otherwise.
package struct DeviceCapabilities: Sendable, Hashable {
  /// Invocations of a subgroup, where it is not pinned.
  package var subgroupSize = 0
  package var minSubgroupSize = 0
  package var maxSubgroupSize = 0
  /// Whether a pipeline may ask for a subgroup size (a power of two from `minSubgroupSize` to `maxSubgroupSize`).
  package var canPinSubgroupSize = false
  /// Whether a pipeline may ask that no subgroup has idle invocations.
  package var canRequireFullSubgroups = false
  /// Subgroup operations in compute shaders beyond basic, arithmetic and ballot, which every usable device has.
  package var subgroupShuffle = false
  package var subgroupShuffleRelative = false
  package var subgroupClustered = false
  /// VK_KHR_shader_subgroup_uniform_control_flow.
  package var subgroupUniformControlFlow = false

  package var maxWorkgroupInvocations = 0
  /// Most subgroups of a workgroup whose subgroup size is pinned.
  package var maxWorkgroupSubgroups = 0
  /// Most invocations of a workgroup in x, y and z.
  package var maxWorkgroupSize = [0, 0, 0]
  /// Most workgroups of a dispatch in x, y and z.
  package var maxWorkgroupCount = [0, 0, 0]
  package var maxSharedMemory = 0
  package var maxPushConstantBytes = 0
  /// The largest single allocation of device memory.
  package var maxAllocationBytes: UInt64 = 0
  /// The largest buffer.
  package var maxBufferBytes: UInt64 = 0
  package var nonCoherentAtomSize = 0

  /// What one step of a timestamp is worth.
  package var timestampPeriodNanoseconds = 0.0
  /// Valid bits of a timestamp on the compute queue; 0 where there are none.
  package var timestampBits = 0

  /// Arithmetic in shaders.
  package var float16 = false
  package var int8 = false
  package var int16 = false
  package var int64 = false
  package var float64 = false
  /// Loads and stores of 8-bit and 16-bit values in buffers.
  package var storage8 = false
  package var storage16 = false
  package var scalarBlockLayout = false
  package var vulkanMemoryModel = false
  /// Whether the device has an instruction for the dot product of four packed signed bytes.
  package var integerDotProduct = false
  /// Whether shaders may use integer dot products at all, with an instruction or without.
  package var integerDotProductSupported = false

  /// The shapes of VK_KHR_cooperative_matrix; empty where the device has no matrix units.
  package var cooperativeMatrix: [CooperativeMatrixShape] = []
  /// Whether every feature of VK_NV_cooperative_matrix2 is there.
  package var cooperativeMatrix2 = false
  /// bfloat16 in shaders, and as an element of cooperative matrices.
  package var bfloat16 = false
  package var bfloat16CooperativeMatrix = false

  /// VK_KHR_pipeline_executable_properties.
  package var pipelineExecutableProperties = false
  /// VK_EXT_memory_budget.
  package var memoryBudget = false
  /// VK_EXT_external_memory_host: what the address and size of imported host memory are multiples of.
  package var externalMemoryHostAlignment: UInt64?
  /// How its logical devices hand memory to others, and take it from them.
  package var exportsMemory: Set<MemoryHandle> = []
  package var importsMemory: Set<MemoryHandle> = []
  /// Whether logical devices of it can share timeline semaphores (VK_KHR_external_semaphore_fd).
  package var sharesSemaphores = false
}
