import CVulkan
import Synchronization

/// The VkDevice with its functions; lives as long as anything made from it.
final class DeviceContext: Sendable {
  let physical: PhysicalDevice
  nonisolated(unsafe) let handle: VkDevice
  nonisolated(unsafe) let functions: UnsafeMutablePointer<VulkanDeviceFunctions>
  /// How errors call the device.
  let name: String
  /// The families that buffers are shared between; one if all queues are of one family.
  let queueFamilies: [UInt32]
  private let faults: AllocationFaults?
  private let allocated = Mutex((now: 0, peak: 0))
  private let allocatedOnHost = Mutex((now: 0, peak: 0))

  init(physical: PhysicalDevice, faults: AllocationFaults? = nil) throws(VulkanError) {
    let name = "device \(physical.index) (\(physical.name))"
    if let reason = physical.unsupportedReason {
      throw VulkanError(kind: .unsupported, description: "\(name) cannot be used: \(reason)")
    }
    guard let computeFamily = physical.queueFamilies.compute else {
      throw VulkanError(kind: .unsupported, description: "\(name) cannot be used: it lacks a compute queue")
    }
    let queueFamilies = [computeFamily] + (physical.queueFamilies.transfer.map { [$0] } ?? [])
    var created: VkDevice?
    let result = Self.create(physical, queueFamilies, &created)
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
    self.faults = faults
    self.queueFamilies = queueFamilies
    self.handle = handle
    self.functions = functions
  }

  deinit {
    functions.pointee.vkDestroyDevice(handle, nil)
    functions.deallocate()
  }

  private static func create(
    _ physical: PhysicalDevice, _ families: [UInt32], _ device: inout VkDevice?
  ) -> VkResult {
    let features = FeatureChain(enabledOn: physical)
    let names = features.extensions.map { name in
      let text = Array(name.utf8CString)
      let copy = UnsafeMutablePointer<CChar>.allocate(capacity: text.count)
      copy.initialize(from: text, count: text.count)
      return UnsafePointer<CChar>?.some(UnsafePointer(copy))
    }
    defer { for name in names { name?.deallocate() } }
    return withExtendedLifetime(features) {
      [Float(1), 1].withUnsafeBufferPointer { priorities in
        let priorities = priorities.baseAddress
        let queues = families.map { family in
          var queue = VkDeviceQueueCreateInfo()
          queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO
          queue.queueFamilyIndex = family
          // One for each direction of the link.
          queue.queueCount =
            family == physical.queueFamilies.transfer && physical.queueFamilies.transferQueueCount > 1 ? 2 : 1
          queue.pQueuePriorities = priorities
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

  func check(
    _ result: VkResult, _ call: StaticString, _ subject: @autoclosure () -> String = ""
  ) throws(VulkanError) {
    try VulkanError.check(result, call, device: name, subject())
  }

  /// Names an object for the validation layer's messages.
  func label(_ object: OpaquePointer, type: VkObjectType, _ label: String) {
    guard physical.instance.validates, let setName = functions.pointee.vkSetDebugUtilsObjectNameEXT else {
      return
    }
    label.withCString { text in
      var info = VkDebugUtilsObjectNameInfoEXT()
      info.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT
      info.objectType = type
      info.objectHandle = UInt64(UInt(bitPattern: object))
      info.pObjectName = text
      // A name that cannot be set costs a message its clarity, nothing else.
      _ = setName(handle, &info)
    }
  }

  // MARK: Memory

  /// vkAllocateMemory.
  func allocate(_ info: inout VkMemoryAllocateInfo, _ memory: inout VkDeviceMemory?) -> VkResult {
    if let faults, faults.next() { return VK_ERROR_OUT_OF_DEVICE_MEMORY }
    return functions.pointee.vkAllocateMemory(handle, &info, nil, &memory)
  }

  func countAllocation(local: Int, host: Int) {
    faults?.count(local: local, host: host)
    allocated.withLock { $0 = ($0.now + local, max($0.peak, $0.now + local)) }
    allocatedOnHost.withLock { $0 = ($0.now + host, max($0.peak, $0.now + host)) }
  }

  func countRelease(local: Int, host: Int) {
    faults?.count(local: -local, host: -host)
    allocated.withLock { $0.now -= local }
    allocatedOnHost.withLock { $0.now -= host }
  }

  /// Device-local bytes.
  var allocatedBytes: (now: Int, peak: Int) { allocated.withLock { $0 } }

  /// Bytes of the host's memory.
  var allocatedHostBytes: (now: Int, peak: Int) { allocatedOnHost.withLock { $0 } }
}
