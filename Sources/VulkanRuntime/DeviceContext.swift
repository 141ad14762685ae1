import CVulkan
import Synchronization

/// A logical device, as all that is made on it knows it; lives as long as any of that.
final class DeviceContext: Sendable {
  /// Shared with the logical devices that it runs beside.
  let vulkan: VulkanDevice
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

  init(_ vulkan: VulkanDevice, faults: AllocationFaults?) {
    self.vulkan = vulkan
    physical = vulkan.physical
    handle = vulkan.handle
    functions = vulkan.functions
    name = vulkan.name
    queueFamilies = vulkan.queueFamilies
    self.faults = faults
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
