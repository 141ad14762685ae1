import CVulkan

/// Vulkan's feature structures: those a device supports, or those to enable on it.
///
/// A structure of an extension is nil where the device has not got the extension.
struct FeatureChain {
  let chain = StructureChain()
  let core: UnsafeMutablePointer<VkPhysicalDeviceFeatures2>
  let vulkan11: UnsafeMutablePointer<VkPhysicalDeviceVulkan11Features>
  let vulkan12: UnsafeMutablePointer<VkPhysicalDeviceVulkan12Features>
  let vulkan13: UnsafeMutablePointer<VkPhysicalDeviceVulkan13Features>
  let executables: UnsafeMutablePointer<VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR>?
  let subgroupUniformControlFlow:
    UnsafeMutablePointer<VkPhysicalDeviceShaderSubgroupUniformControlFlowFeaturesKHR>?
  let cooperativeMatrix: UnsafeMutablePointer<VkPhysicalDeviceCooperativeMatrixFeaturesKHR>?
  let cooperativeMatrix2: UnsafeMutablePointer<VkPhysicalDeviceCooperativeMatrix2FeaturesNV>?
  let bfloat16: UnsafeMutablePointer<VkPhysicalDeviceShaderBfloat16FeaturesKHR>?
  /// The extensions to enable for the structures and properties in use.
  let extensions: [String]

  /// All features off, with a place for each that the extensions make known.
  private init(extensions available: Set<String>) {
    var used = [
      VK_EXT_MEMORY_BUDGET_EXTENSION_NAME, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME,
      VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME, VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
      VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
    ].filter { available.contains($0) }
    func structure<Structure: BitwiseCopyable>(
      _ initial: Structure, _ type: VkStructureType, in chain: StructureChain
    ) -> UnsafeMutablePointer<Structure> {
      let pointer = chain.append(initial)
      UnsafeMutableRawPointer(pointer).assumingMemoryBound(to: VkBaseOutStructure.self).pointee.sType = type
      return pointer
    }
    func optional<Structure: BitwiseCopyable>(
      _ name: String, _ initial: Structure, _ type: VkStructureType, in chain: StructureChain
    ) -> UnsafeMutablePointer<Structure>? {
      guard available.contains(name) else { return nil }
      used.append(name)
      return structure(initial, type, in: chain)
    }
    core = structure(VkPhysicalDeviceFeatures2(), VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, in: chain)
    vulkan11 = structure(
      VkPhysicalDeviceVulkan11Features(), VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, in: chain)
    vulkan12 = structure(
      VkPhysicalDeviceVulkan12Features(), VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, in: chain)
    vulkan13 = structure(
      VkPhysicalDeviceVulkan13Features(), VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES, in: chain)
    executables = optional(
      VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME,
      VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR(),
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR, in: chain)
    subgroupUniformControlFlow = optional(
      VK_KHR_SHADER_SUBGROUP_UNIFORM_CONTROL_FLOW_EXTENSION_NAME,
      VkPhysicalDeviceShaderSubgroupUniformControlFlowFeaturesKHR(),
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SUBGROUP_UNIFORM_CONTROL_FLOW_FEATURES_KHR, in: chain)
    cooperativeMatrix = optional(
      VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME, VkPhysicalDeviceCooperativeMatrixFeaturesKHR(),
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, in: chain)
    cooperativeMatrix2 = optional(
      VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME, VkPhysicalDeviceCooperativeMatrix2FeaturesNV(),
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV, in: chain)
    bfloat16 = optional(
      VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME, VkPhysicalDeviceShaderBfloat16FeaturesKHR(),
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR, in: chain)
    extensions = used
  }

  /// What the device supports.
  init(
    supportedBy device: VkPhysicalDevice, functions: UnsafeMutablePointer<VulkanInstanceFunctions>,
    extensions: Set<String>
  ) {
    self.init(extensions: extensions)
    functions.pointee.vkGetPhysicalDeviceFeatures2(device, core)
  }

  /// The features to enable on the device: of those it supports, the ones that kernels may use.
  init(enabledOn device: PhysicalDevice) {
    let supported = FeatureChain(
      supportedBy: device.handle, functions: device.instance.functions, extensions: device.extensions)
    defer { withExtendedLifetime(supported) {} }
    self.init(extensions: device.extensions)
    enable([\.shaderInt16, \.shaderInt64, \.shaderFloat64], of: supported)
    enable(
      [\.storageBuffer16BitAccess, \.uniformAndStorageBuffer16BitAccess], in: vulkan11,
      from: supported.vulkan11)
    enable(
      [
        \.bufferDeviceAddress, \.timelineSemaphore, \.shaderFloat16, \.shaderInt8, \.storageBuffer8BitAccess,
        \.uniformAndStorageBuffer8BitAccess, \.scalarBlockLayout, \.vulkanMemoryModel,
        \.vulkanMemoryModelDeviceScope, \.shaderSubgroupExtendedTypes, \.subgroupBroadcastDynamicId,
      ], in: vulkan12, from: supported.vulkan12)
    enable(
      [
        \.synchronization2, \.maintenance4, \.subgroupSizeControl, \.computeFullSubgroups,
        \.shaderIntegerDotProduct,
      ], in: vulkan13, from: supported.vulkan13)
    enable([\.pipelineExecutableInfo], in: executables, from: supported.executables)
    enable(
      [\.shaderSubgroupUniformControlFlow], in: subgroupUniformControlFlow,
      from: supported.subgroupUniformControlFlow)
    enable([\.cooperativeMatrix], in: cooperativeMatrix, from: supported.cooperativeMatrix)
    enable(
      [
        \.cooperativeMatrixWorkgroupScope, \.cooperativeMatrixFlexibleDimensions,
        \.cooperativeMatrixReductions,
        \.cooperativeMatrixConversions, \.cooperativeMatrixPerElementOperations,
        \.cooperativeMatrixTensorAddressing, \.cooperativeMatrixBlockLoads,
      ], in: cooperativeMatrix2, from: supported.cooperativeMatrix2)
    enable(
      [\.shaderBFloat16Type, \.shaderBFloat16DotProduct, \.shaderBFloat16CooperativeMatrix], in: bfloat16,
      from: supported.bfloat16)
  }

  private func enable<Structure>(
    _ features: [WritableKeyPath<Structure, VkBool32>], in target: UnsafeMutablePointer<Structure>?,
    from source: UnsafeMutablePointer<Structure>?
  ) {
    guard let target, let source else { return }
    for feature in features { target.pointee[keyPath: feature] = source.pointee[keyPath: feature] }
  }

  private func enable(
    _ features: [WritableKeyPath<VkPhysicalDeviceFeatures, VkBool32>], of supported: FeatureChain
  ) {
    for feature in features {
      core.pointee.features[keyPath: feature] = supported.core.pointee.features[keyPath: feature]
    }
  }
}

/// Vulkan's property structures of a device.
struct PropertyChain {
  let chain = StructureChain()
  let vulkan11: UnsafeMutablePointer<VkPhysicalDeviceVulkan11Properties>
  let vulkan12: UnsafeMutablePointer<VkPhysicalDeviceVulkan12Properties>
  let vulkan13: UnsafeMutablePointer<VkPhysicalDeviceVulkan13Properties>
  let externalMemoryHost: UnsafeMutablePointer<VkPhysicalDeviceExternalMemoryHostPropertiesEXT>?

  init(
    of device: VkPhysicalDevice, functions: UnsafeMutablePointer<VulkanInstanceFunctions>,
    extensions: Set<String>
  ) {
    var properties = VkPhysicalDeviceProperties2()
    properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2
    var first = VkPhysicalDeviceVulkan11Properties()
    first.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES
    var second = VkPhysicalDeviceVulkan12Properties()
    second.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES
    var third = VkPhysicalDeviceVulkan13Properties()
    third.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES
    vulkan11 = chain.append(first)
    vulkan12 = chain.append(second)
    vulkan13 = chain.append(third)
    if extensions.contains(VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME) {
      var host = VkPhysicalDeviceExternalMemoryHostPropertiesEXT()
      host.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT
      externalMemoryHost = chain.append(host)
    } else {
      externalMemoryHost = nil
    }
    properties.pNext = chain.head
    functions.pointee.vkGetPhysicalDeviceProperties2(device, &properties)
  }
}
