import CVulkan

/// A VkDevice with its functions, which several logical devices may have in common (`DeviceContext`); lives as long as
/// anything made from it.
final class VulkanDevice: Sendable {
  let physical: PhysicalDevice
  nonisolated(unsafe) let handle: VkDevice
  nonisolated(unsafe) let functions: UnsafeMutablePointer<VulkanDeviceFunctions>
  /// How errors call the device.
  let name: String
  /// The queues of each logical device.
  let queues: [DeviceQueues]
  /// The families that buffers are shared between; one if all queues are of one family.
  let queueFamilies: [UInt32]

  /// A VkDevice for so many logical devices; nil where it has not enough queues that run at the same time, which one
  /// device never lacks.
  init?(physical: PhysicalDevice, deviceCount: Int) throws(VulkanError) {
    let name = "device \(physical.index) (\(physical.name))"
    if let reason = physical.unsupportedReason {
      throw VulkanError(kind: .unsupported, description: "\(name) cannot be used: \(reason)")
    }
    guard physical.queueFamilies.compute != nil else {
      throw VulkanError(kind: .unsupported, description: "\(name) cannot be used: it lacks a compute queue")
    }
    guard let queues = physical.queueFamilies.queues(forDevices: deviceCount) else { return nil }
    let places = queues.flatMap { [$0.compute, $0.transfer, $0.returning].compactMap(\.self) }
    var queueCounts: [UInt32: UInt32] = [:]
    for place in places { queueCounts[place.family] = max(queueCounts[place.family] ?? 0, place.index + 1) }
    var created: VkDevice?
    let result = Self.create(physical, queueCounts, &created)
    try VulkanError.check(result, "vkCreateDevice", device: name)
    guard let handle = created else {
      throw VulkanError(VK_ERROR_INITIALIZATION_FAILED, "vkCreateDevice", device: name)
    }
    let functions = UnsafeMutablePointer<VulkanDeviceFunctions>.allocate(capacity: 1)
    let getProcAddress = physical.instance.functions.pointee.vkGetDeviceProcAddr
    if let missing = vulkan_load_device_functions(getProcAddress, handle, functions) {
      functions.deallocate()
      throw VulkanError(
        kind: .unsupported, description: "the driver of \(name) lacks \(String(cString: missing)); update it")
    }
    self.physical = physical
    self.name = name
    self.queues = queues
    self.queueFamilies = queueCounts.keys.sorted()
    self.handle = handle
    self.functions = functions
  }

  deinit {
    functions.pointee.vkDestroyDevice(handle, nil)
    functions.deallocate()
  }

  private static func create(
    _ physical: PhysicalDevice, _ queueCounts: [UInt32: UInt32], _ device: inout VkDevice?
  ) -> VkResult {
    let features = FeatureChain(enabledOn: physical)
    let names = features.extensions.map { name in
      let text = Array(name.utf8CString)
      let copy = UnsafeMutablePointer<CChar>.allocate(capacity: text.count)
      copy.initialize(from: text, count: text.count)
      return UnsafePointer<CChar>?.some(UnsafePointer(copy))
    }
    defer { for name in names { name?.deallocate() } }
    let priorities = [Float](repeating: 1, count: Int(queueCounts.values.max() ?? 1))
    return withExtendedLifetime(features) {
      priorities.withUnsafeBufferPointer { priorities in
        let queues = queueCounts.sorted { $0.key < $1.key }.map { family, count in
          var queue = VkDeviceQueueCreateInfo()
          queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO
          queue.queueFamilyIndex = family
          queue.queueCount = count
          queue.pQueuePriorities = priorities.baseAddress
          return queue
        }
        return queues.withUnsafeBufferPointer { queues in
          names.withUnsafeBufferPointer { names in
            var info = VkDeviceCreateInfo()
            info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO
            info.pNext = UnsafeRawPointer(features.chain.head)
            info.queueCreateInfoCount = UInt32(queues.count)
            info.pQueueCreateInfos = queues.baseAddress
            info.enabledExtensionCount = UInt32(names.count)
            info.ppEnabledExtensionNames = names.baseAddress
            return physical.instance.functions.pointee.vkCreateDevice(physical.handle, &info, nil, &device)
          }
        }
      }
    }
  }
}
