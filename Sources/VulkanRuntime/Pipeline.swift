import CVulkan
import Synchronization

/// A compiled kernel.
package final class Pipeline: Sendable {
  package let name: String
  /// Size of the push constants that each dispatch gives.
  package let pushConstantBytes: Int
  /// Invocations of a workgroup in x, y and z.
  package let workgroupSize: (x: Int, y: Int, z: Int)
  /// The subgroup size it was pinned to; nil if the driver chose.
  package let subgroupSize: Int?

  let context: DeviceContext
  let layout: PipelineLayout
  nonisolated(unsafe) let handle: VkPipeline

  init(
    context: DeviceContext, layout: PipelineLayout, handle: VkPipeline, name: String, pushConstantBytes: Int,
    workgroupSize: (x: Int, y: Int, z: Int), subgroupSize: Int?
  ) {
    self.context = context
    self.layout = layout
    self.handle = handle
    self.name = name
    self.pushConstantBytes = pushConstantBytes
    self.workgroupSize = workgroupSize
    self.subgroupSize = subgroupSize
  }

  deinit {
    context.functions.pointee.vkDestroyPipeline(context.handle, handle, nil)
  }
}

extension Device {
  /// Compiles the entry point `main` of a compute shader.
  ///
  /// `specialization[i]` is the value of the constant with `constant_id` i, as 32 bits. The shader's only inputs are
  /// `pushConstantBytes` bytes of push constants. `subgroupSize` pins the size of subgroups, all of them full where
  /// the workgroup allows it. May be called from several threads at once.
  /// Throws `.unsupported` where the shader needs more than the device has.
  package func makePipeline(
    name: String, spirv: [UInt32], specialization: [UInt32], pushConstantBytes: Int, subgroupSize: Int?
  ) throws(VulkanError) -> Pipeline {
    func unsupported(_ reason: String) -> VulkanError {
      VulkanError(kind: .unsupported, description: "kernel \(name) on \(context.name): \(reason)")
    }
    let limits = capabilities
    guard let workgroup = workgroupSize(of: spirv, specialization: specialization) else {
      throw unsupported("its SPIR-V is damaged or has no workgroup size")
    }
    let invocations = workgroup.x * workgroup.y * workgroup.z
    guard
      workgroup.x <= limits.maxWorkgroupSize[0], workgroup.y <= limits.maxWorkgroupSize[1],
      workgroup.z <= limits.maxWorkgroupSize[2], invocations <= limits.maxWorkgroupInvocations
    else {
      throw unsupported(
        "its workgroup of \(invocations) invocations is larger than the device's \(limits.maxWorkgroupInvocations)"
      )
    }
    guard pushConstantBytes >= 0, pushConstantBytes % 4 == 0, pushConstantBytes <= limits.maxPushConstantBytes
    else {
      throw unsupported(
        "\(pushConstantBytes) bytes of push constants, where multiples of 4 up to \(limits.maxPushConstantBytes) are possible"
      )
    }
    var pinned: UInt32?
    if let subgroupSize {
      if limits.canPinSubgroupSize {
        guard
          subgroupSize.nonzeroBitCount == 1, subgroupSize >= limits.minSubgroupSize,
          subgroupSize <= limits.maxSubgroupSize, invocations <= subgroupSize * limits.maxWorkgroupSubgroups
        else {
          throw unsupported(
            "\(invocations) invocations in subgroups of \(subgroupSize), where the device has subgroups "
              + "of \(limits.minSubgroupSize) to \(limits.maxSubgroupSize), at most \(limits.maxWorkgroupSubgroups)"
          )
        }
        pinned = UInt32(subgroupSize)
      } else if subgroupSize != limits.subgroupSize {
        throw unsupported(
          "subgroups of \(subgroupSize), where the device's have \(limits.subgroupSize) invocations")
      }
    }
    let layout = try layouts.layout(pushConstantBytes: pushConstantBytes)
    let fullSubgroups =
      pinned.map { workgroup.x % Int($0) == 0 && limits.canRequireFullSubgroups } ?? false
    let start = ContinuousClock.now
    defer { pipelineWork.withLock { $0.add(ContinuousClock.now - start) } }
    let handle = try compile(
      name, spirv, specialization, layout: layout, subgroupSize: pinned, fullSubgroups: fullSubgroups)
    context.label(handle, type: VK_OBJECT_TYPE_PIPELINE, name)
    return Pipeline(
      context: context, layout: layout, handle: handle, name: name, pushConstantBytes: pushConstantBytes,
      workgroupSize: workgroup, subgroupSize: pinned.map(Int.init))
  }

  private func compile(
    _ name: String, _ spirv: [UInt32], _ specialization: [UInt32], layout: PipelineLayout,
    subgroupSize: UInt32?,
    fullSubgroups: Bool
  ) throws(VulkanError) -> VkPipeline {
    let functions = context.functions
    var module: VkShaderModule?
    let moduleResult = spirv.withUnsafeBufferPointer { words in
      var info = VkShaderModuleCreateInfo()
      info.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO
      info.codeSize = words.count * 4
      info.pCode = words.baseAddress
      return functions.pointee.vkCreateShaderModule(context.handle, &info, nil, &module)
    }
    try context.check(moduleResult, "vkCreateShaderModule", "kernel \(name)")
    defer { functions.pointee.vkDestroyShaderModule(context.handle, module, nil) }

    let chain = StructureChain()
    if let subgroupSize {
      var required = VkPipelineShaderStageRequiredSubgroupSizeCreateInfo()
      required.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO
      required.requiredSubgroupSize = subgroupSize
      chain.append(required)
    }
    let entries = specialization.indices.map { index in
      VkSpecializationMapEntry(constantID: UInt32(index), offset: UInt32(index * 4), size: 4)
    }
    var pipeline: VkPipeline?
    let result = entries.withUnsafeBufferPointer { entries in
      specialization.withUnsafeBytes { values in
        var constants = VkSpecializationInfo()
        constants.mapEntryCount = UInt32(entries.count)
        constants.pMapEntries = entries.baseAddress
        constants.dataSize = values.count
        constants.pData = values.baseAddress
        return withUnsafePointer(to: constants) { constants in
          "main".withCString { entryPoint in
            var info = VkComputePipelineCreateInfo()
            info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO
            info.flags = capturesStatistics ? VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR.rawValue : 0
            info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO
            info.stage.pNext = UnsafeRawPointer(chain.head)
            info.stage.flags =
              fullSubgroups ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT.rawValue : 0
            info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT
            info.stage.module = module
            info.stage.pName = entryPoint
            info.stage.pSpecializationInfo = constants
            info.layout = layout.handle
            return withExtendedLifetime(chain) {
              functions.pointee.vkCreateComputePipelines(
                context.handle, pipelineCache.handle, 1, &info, nil, &pipeline)
            }
          }
        }
      }
    }
    try context.check(result, "vkCreateComputePipelines", "kernel \(name)")
    guard let pipeline else {
      throw VulkanError(VK_ERROR_UNKNOWN, "vkCreateComputePipelines", device: context.name, "kernel \(name)")
    }
    return pipeline
  }
}

/// A pipeline layout without descriptor sets: push constants are all that a kernel is given.
final class PipelineLayout: Sendable {
  let context: DeviceContext
  nonisolated(unsafe) let handle: VkPipelineLayout

  init(context: DeviceContext, pushConstantBytes: Int) throws(VulkanError) {
    var range = VkPushConstantRange()
    range.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT.rawValue
    range.size = UInt32(pushConstantBytes)
    var created: VkPipelineLayout?
    let result = withUnsafePointer(to: range) { range in
      var info = VkPipelineLayoutCreateInfo()
      info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO
      info.pushConstantRangeCount = 1
      info.pPushConstantRanges = range
      return context.functions.pointee.vkCreatePipelineLayout(context.handle, &info, nil, &created)
    }
    try context.check(result, "vkCreatePipelineLayout")
    guard let created else {
      throw VulkanError(VK_ERROR_UNKNOWN, "vkCreatePipelineLayout", device: context.name)
    }
    self.context = context
    handle = created
  }

  deinit {
    context.functions.pointee.vkDestroyPipelineLayout(context.handle, handle, nil)
  }
}

/// The device's pipeline layouts: one for pipelines with up to 128 bytes of push constants, which every device has,
/// and one for those that take all that the device has.
final class PipelineLayouts: Sendable {
  private let context: DeviceContext
  private let layouts = Mutex<[Int: PipelineLayout]>([:])

  init(context: DeviceContext) {
    self.context = context
  }

  func layout(pushConstantBytes: Int) throws(VulkanError) -> PipelineLayout {
    let size = pushConstantBytes <= 128 ? 128 : context.physical.capabilities.maxPushConstantBytes
    return try layouts.withLock { layouts throws(VulkanError) in
      if let layout = layouts[size] { return layout }
      let layout = try PipelineLayout(context: context, pushConstantBytes: size)
      layouts[size] = layout
      return layout
    }
  }
}
