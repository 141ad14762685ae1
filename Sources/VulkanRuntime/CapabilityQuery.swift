import CVulkan

/// Asks a physical device what it is and can do.
struct CapabilityQuery {
  let handle: VkPhysicalDevice
  let functions: UnsafeMutablePointer<VulkanInstanceFunctions>
  let basicProperties: VkPhysicalDeviceProperties
  let extensions: Set<String>

  /// What only a Vulkan 1.3 device can be asked.
  struct Detail {
    var uuid: String
    var driverUUID: String
    var driverName: String
    var driverInfo: String
    var capabilities: DeviceCapabilities
    var unsupportedReason: String?
  }

  init(handle: VkPhysicalDevice, instance: InstanceContext) {
    let functions = instance.functions
    self.handle = handle
    self.functions = functions
    var properties = VkPhysicalDeviceProperties2()
    properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2
    functions.pointee.vkGetPhysicalDeviceProperties2(handle, &properties)
    basicProperties = properties.properties
    // A driver that cannot list its extensions is used without any.
    let (list, _) = enumerate(VkExtensionProperties()) { count, elements in
      functions.pointee.vkEnumerateDeviceExtensionProperties(handle, nil, &count, elements)
    }
    let available = Set(list.map { String(vulkanArray: $0.extensionName) })
    extensions = available.subtracting(Self.extensions(unknownTo: instance.validationLayerVersion))
  }

  /// Extensions younger than the validation layer: it would take their structures and shaders for errors, so they
  /// are not used while it looks on. Each stands with a Vulkan version that is known to have it.
  private static func extensions(unknownTo layerVersion: UInt32?) -> [String] {
    guard let layerVersion else { return [] }
    let versions: [(name: String, minor: UInt32, patch: UInt32)] = [
      (VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME, 3, 255),
      (VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME, 4, 309),
      (VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME, 4, 313),
    ]
    return versions.filter { layerVersion < 1 << 22 | $0.minor << 12 | $0.patch }.map(\.name)
  }

  var hasRequiredVersion: Bool { basicProperties.apiVersion >= requiredAPIVersion }

  var apiVersionText: String {
    let version = basicProperties.apiVersion
    return "\(version >> 22 & 0x7f).\(version >> 12 & 0x3ff).\(version & 0xfff)"
  }

  func memory() -> (heaps: [PhysicalDevice.Heap], types: [MemoryType]) {
    var answer = VkPhysicalDeviceMemoryProperties2()
    answer.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2
    functions.pointee.vkGetPhysicalDeviceMemoryProperties2(handle, &answer)
    let properties = answer.memoryProperties
    let heaps = withUnsafeBytes(of: properties.memoryHeaps) { bytes in
      bytes.bindMemory(to: VkMemoryHeap.self).prefix(Int(properties.memoryHeapCount)).map { heap in
        PhysicalDevice.Heap(
          byteCount: heap.size, deviceLocal: heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT.rawValue != 0)
      }
    }
    let types = withUnsafeBytes(of: properties.memoryTypes) { bytes in
      bytes.bindMemory(to: VkMemoryType.self).prefix(Int(properties.memoryTypeCount)).map { type in
        let heap = heaps[Int(type.heapIndex)]
        return MemoryType(
          flags: type.propertyFlags, heap: Int(type.heapIndex), heapBytes: heap.byteCount,
          heapIsDeviceLocal: heap.deviceLocal)
      }
    }
    return (heaps, types)
  }

  func queueFamilies() -> QueueFamilies {
    var count: UInt32 = 0
    functions.pointee.vkGetPhysicalDeviceQueueFamilyProperties2(handle, &count, nil)
    var blank = VkQueueFamilyProperties2()
    blank.sType = VK_STRUCTURE_TYPE_QUEUE_FAMILY_PROPERTIES_2
    var list = [VkQueueFamilyProperties2](repeating: blank, count: Int(count))
    functions.pointee.vkGetPhysicalDeviceQueueFamilyProperties2(handle, &count, &list)
    return QueueFamilies(
      list.map(\.queueFamilyProperties).map {
        QueueFamily(
          flags: $0.queueFlags, queueCount: Int($0.queueCount), timestampBits: Int($0.timestampValidBits))
      })
  }

  func detail(queueFamilies: QueueFamilies) -> Detail {
    let features = FeatureChain(supportedBy: handle, functions: functions, extensions: extensions)
    let properties = PropertyChain(of: handle, functions: functions, extensions: extensions)
    defer { withExtendedLifetime((features, properties)) {} }
    var capabilities = DeviceCapabilities()
    fill(&capabilities, limits: basicProperties.limits)
    fill(&capabilities, properties: properties)
    fill(&capabilities, features: features, properties: properties)
    capabilities.timestampPeriodNanoseconds = Double(basicProperties.limits.timestampPeriod)
    capabilities.timestampBits =
      queueFamilies.compute.map { queueFamilies.families[$0].timestampBits } ?? 0
    capabilities.sharesSemaphores = sharesTimelineSemaphores
    for handle in MemoryHandle.allCases {
      let features = externalMemoryFeatures(handle)
      if features & VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT.rawValue != 0 {
        capabilities.exportsMemory.insert(handle)
      }
      if features & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT.rawValue != 0 {
        capabilities.importsMemory.insert(handle)
      }
    }
    capabilities.memoryBudget = extensions.contains(VK_EXT_MEMORY_BUDGET_EXTENSION_NAME)
    if features.cooperativeMatrix?.pointee.cooperativeMatrix == VkBool32(VK_TRUE) {
      // Some drivers list bfloat16 shapes whether or not shaders may have that type.
      capabilities.cooperativeMatrix = cooperativeMatrixShapes().filter { shape in
        capabilities.bfloat16CooperativeMatrix || (shape.a != .bfloat16 && shape.result != .bfloat16)
      }
    }
    return Detail(
      uuid: hexadecimal(properties.vulkan11.pointee.deviceUUID),
      driverUUID: hexadecimal(properties.vulkan11.pointee.driverUUID),
      driverName: String(vulkanArray: properties.vulkan12.pointee.driverName),
      driverInfo: String(vulkanArray: properties.vulkan12.pointee.driverInfo),
      capabilities: capabilities,
      unsupportedReason: unsupportedReason(features, properties, queueFamilies))
  }

  /// Drivers that have the extension may share binary semaphores only.
  private var sharesTimelineSemaphores: Bool {
    guard extensions.contains(VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME) else { return false }
    var type = VkSemaphoreTypeCreateInfo()
    type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO
    type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE
    var properties = VkExternalSemaphoreProperties()
    properties.sType = VK_STRUCTURE_TYPE_EXTERNAL_SEMAPHORE_PROPERTIES
    withUnsafePointer(to: type) { type in
      var info = VkPhysicalDeviceExternalSemaphoreInfo()
      info.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_SEMAPHORE_INFO
      info.pNext = UnsafeRawPointer(type)
      info.handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT
      functions.pointee.vkGetPhysicalDeviceExternalSemaphoreProperties(handle, &info, &properties)
    }
    let wanted =
      VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT.rawValue
      | VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT.rawValue
    return properties.externalSemaphoreFeatures & wanted == wanted
  }

  /// VkExternalMemoryFeatureFlags of buffers as this runtime makes them.
  private func externalMemoryFeatures(_ handle: MemoryHandle) -> UInt32 {
    guard handle.extensions.allSatisfy(extensions.contains) else { return 0 }
    var info = VkPhysicalDeviceExternalBufferInfo()
    info.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO
    info.usage = Buffer.usage
    info.handleType = handle.type
    var properties = VkExternalBufferProperties()
    properties.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES
    functions.pointee.vkGetPhysicalDeviceExternalBufferProperties(self.handle, &info, &properties)
    return properties.externalMemoryProperties.externalMemoryFeatures
  }

  private func fill(_ capabilities: inout DeviceCapabilities, limits: VkPhysicalDeviceLimits) {
    capabilities.maxWorkgroupInvocations = Int(limits.maxComputeWorkGroupInvocations)
    let size = limits.maxComputeWorkGroupSize
    capabilities.maxWorkgroupSize = [Int(size.0), Int(size.1), Int(size.2)]
    let count = limits.maxComputeWorkGroupCount
    capabilities.maxWorkgroupCount = [Int(count.0), Int(count.1), Int(count.2)]
    capabilities.maxSharedMemory = Int(limits.maxComputeSharedMemorySize)
    capabilities.maxPushConstantBytes = Int(limits.maxPushConstantsSize)
    capabilities.nonCoherentAtomSize = Int(clamping: limits.nonCoherentAtomSize)
  }

  private func fill(_ capabilities: inout DeviceCapabilities, properties: PropertyChain) {
    let vulkan11 = properties.vulkan11.pointee
    let vulkan13 = properties.vulkan13.pointee
    let operations = vulkan11.subgroupSupportedOperations
    func supports(_ operation: VkSubgroupFeatureFlagBits) -> Bool { operations & operation.rawValue != 0 }
    capabilities.subgroupSize = Int(vulkan11.subgroupSize)
    capabilities.minSubgroupSize = Int(vulkan13.minSubgroupSize)
    capabilities.maxSubgroupSize = Int(vulkan13.maxSubgroupSize)
    capabilities.subgroupShuffle = supports(VK_SUBGROUP_FEATURE_SHUFFLE_BIT)
    capabilities.subgroupShuffleRelative = supports(VK_SUBGROUP_FEATURE_SHUFFLE_RELATIVE_BIT)
    capabilities.subgroupClustered = supports(VK_SUBGROUP_FEATURE_CLUSTERED_BIT)
    capabilities.maxWorkgroupSubgroups = Int(vulkan13.maxComputeWorkgroupSubgroups)
    capabilities.maxAllocationBytes = vulkan11.maxMemoryAllocationSize
    capabilities.maxBufferBytes = vulkan13.maxBufferSize
    capabilities.externalMemoryHostAlignment =
      properties.externalMemoryHost?.pointee.minImportedHostPointerAlignment
  }

  private func fill(
    _ capabilities: inout DeviceCapabilities, features: FeatureChain, properties: PropertyChain
  ) {
    func on(_ value: VkBool32?) -> Bool { value == VkBool32(VK_TRUE) }
    let core = features.core.pointee.features
    let vulkan11 = features.vulkan11.pointee
    let vulkan12 = features.vulkan12.pointee
    let vulkan13 = features.vulkan13.pointee
    let compute = VK_SHADER_STAGE_COMPUTE_BIT.rawValue
    capabilities.canPinSubgroupSize =
      on(vulkan13.subgroupSizeControl)
      && properties.vulkan13.pointee.requiredSubgroupSizeStages & compute != 0
    capabilities.canRequireFullSubgroups = on(vulkan13.computeFullSubgroups)
    capabilities.subgroupUniformControlFlow =
      on(features.subgroupUniformControlFlow?.pointee.shaderSubgroupUniformControlFlow)
    capabilities.float16 = on(vulkan12.shaderFloat16)
    capabilities.int8 = on(vulkan12.shaderInt8)
    capabilities.int16 = on(core.shaderInt16)
    capabilities.int64 = on(core.shaderInt64)
    capabilities.float64 = on(core.shaderFloat64)
    capabilities.storage8 = on(vulkan12.storageBuffer8BitAccess)
    capabilities.storage16 = on(vulkan11.storageBuffer16BitAccess)
    capabilities.scalarBlockLayout = on(vulkan12.scalarBlockLayout)
    capabilities.vulkanMemoryModel =
      on(vulkan12.vulkanMemoryModel) && on(vulkan12.vulkanMemoryModelDeviceScope)
    capabilities.integerDotProductSupported = on(vulkan13.shaderIntegerDotProduct)
    capabilities.integerDotProduct =
      on(vulkan13.shaderIntegerDotProduct)
      && on(properties.vulkan13.pointee.integerDotProduct4x8BitPackedSignedAccelerated)
    capabilities.pipelineExecutableProperties = on(features.executables?.pointee.pipelineExecutableInfo)
    if let matrix2 = features.cooperativeMatrix2?.pointee {
      capabilities.cooperativeMatrix2 =
        on(matrix2.cooperativeMatrixWorkgroupScope) && on(matrix2.cooperativeMatrixFlexibleDimensions)
        && on(matrix2.cooperativeMatrixReductions) && on(matrix2.cooperativeMatrixConversions)
        && on(matrix2.cooperativeMatrixPerElementOperations) && on(matrix2.cooperativeMatrixTensorAddressing)
        && on(matrix2.cooperativeMatrixBlockLoads)
    }
    capabilities.bfloat16 = on(features.bfloat16?.pointee.shaderBFloat16Type)
    capabilities.bfloat16CooperativeMatrix = on(features.bfloat16?.pointee.shaderBFloat16CooperativeMatrix)
  }

  private func unsupportedReason(
    _ features: FeatureChain, _ properties: PropertyChain, _ queueFamilies: QueueFamilies
  ) -> String? {
    let vulkan11 = properties.vulkan11.pointee
    let needed =
      VK_SUBGROUP_FEATURE_BASIC_BIT.rawValue | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT.rawValue
      | VK_SUBGROUP_FEATURE_BALLOT_BIT.rawValue
    var lacks: [String] = []
    if queueFamilies.compute == nil { lacks.append("a compute queue") }
    if features.vulkan12.pointee.bufferDeviceAddress == 0 { lacks.append("bufferDeviceAddress") }
    if features.vulkan12.pointee.timelineSemaphore == 0 { lacks.append("timelineSemaphore") }
    if features.vulkan13.pointee.synchronization2 == 0 { lacks.append("synchronization2") }
    if vulkan11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT.rawValue == 0
      || vulkan11.subgroupSupportedOperations & needed != needed
    {
      lacks.append("subgroup arithmetic and ballot in compute shaders")
    }
    return lacks.isEmpty ? nil : "it lacks \(lacks.joined(separator: ", ")); update its driver"
  }

  /// Shapes with a component type that this runtime does not know are left out.
  private func cooperativeMatrixShapes() -> [CooperativeMatrixShape] {
    guard let function = functions.pointee.vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR else {
      return []
    }
    var blank = VkCooperativeMatrixPropertiesKHR()
    blank.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR
    let (list, _) = enumerate(blank) { count, elements in function(handle, &count, elements) }
    return list.compactMap { shape in
      typealias Component = CooperativeMatrixShape.Component
      guard let a = Component(rawValue: UInt32(shape.AType.rawValue)),
        let b = Component(rawValue: UInt32(shape.BType.rawValue)),
        let c = Component(rawValue: UInt32(shape.CType.rawValue)),
        let result = Component(rawValue: UInt32(shape.ResultType.rawValue)),
        let scope = CooperativeMatrixShape.Scope(rawValue: UInt32(shape.scope.rawValue))
      else { return nil }
      return CooperativeMatrixShape(
        m: Int(shape.MSize), n: Int(shape.NSize), k: Int(shape.KSize), a: a, b: b, c: c, result: result,
        scope: scope, saturates: shape.saturatingAccumulation != 0)
    }
  }
}
