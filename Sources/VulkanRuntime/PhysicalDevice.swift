import CVulkan

/// A device as a driver offers it, with what it can do; nothing is allocated on it yet.
package struct PhysicalDevice: Sendable {
  package enum Kind: Int, Sendable, Hashable {
    case discrete
    case integrated
    case virtual
    case cpu
    case other
  }

  /// A pool of memory.
  package struct Heap: Sendable, Hashable {
    package var byteCount: UInt64
    package var deviceLocal: Bool
  }

  /// Its place in `VulkanInstance.physicalDevices`.
  package let index: Int
  package let name: String
  package let vendorID: UInt32
  package let deviceID: UInt32
  /// 32 hexadecimal digits; the same device has the same one in every process.
  package let uuid: String
  /// The same for all drivers that understand each other's handles.
  let driverUUID: String
  package let kind: Kind
  /// For example "NVIDIA", "radv", "llvmpipe".
  package let driverName: String
  package let driverInfo: String
  /// The driver's own version number, encoded as its vendor likes.
  package let driverVersion: UInt32
  /// The Vulkan version of the device, for example "1.3.289".
  package let apiVersion: String
  package let heaps: [Heap]
  package let capabilities: DeviceCapabilities
  /// Why this runtime cannot use the device; nil if it can.
  package let unsupportedReason: String?

  nonisolated(unsafe) let handle: VkPhysicalDevice
  let instance: InstanceContext
  let extensions: Set<String>
  let memoryTypes: [MemoryType]
  let queueFamilies: QueueFamilies
  /// 32 hexadecimal digits; changes when the driver could not read its old pipeline caches.
  let pipelineCacheUUID: String

  /// The sum of the device-local heaps.
  package var deviceMemory: UInt64 {
    heaps.filter(\.deviceLocal).reduce(0) { $0 &+ $1.byteCount }
  }

  /// What this process may use of the device-local heaps and what it uses, in bytes, as the driver sees it now;
  /// nil if the driver does not tell (VK_EXT_memory_budget).
  package func memoryBudget() -> (budget: UInt64, used: UInt64)? {
    // A driver without hardware behind it has no memory, and may crash when asked for its budget.
    guard capabilities.memoryBudget, deviceMemory > 0 else { return nil }
    let chain = StructureChain()
    var properties = VkPhysicalDeviceMemoryProperties2()
    properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2
    var budget = VkPhysicalDeviceMemoryBudgetPropertiesEXT()
    budget.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT
    let head = chain.append(properties)
    let answer = chain.append(budget)
    instance.functions.pointee.vkGetPhysicalDeviceMemoryProperties2(handle, head)
    return withExtendedLifetime(chain) {
      withUnsafeBytes(of: answer.pointee.heapBudget) { budgets in
        withUnsafeBytes(of: answer.pointee.heapUsage) { usages in
          let budgets = budgets.bindMemory(to: UInt64.self)
          let usages = usages.bindMemory(to: UInt64.self)
          var total = (budget: UInt64(0), used: UInt64(0))
          for (heap, properties) in heaps.enumerated() where properties.deviceLocal {
            total.budget &+= budgets[heap]
            total.used &+= usages[heap]
          }
          return total
        }
      }
    }
  }

  init(index: Int, handle: VkPhysicalDevice, instance: InstanceContext) {
    let query = CapabilityQuery(handle: handle, instance: instance)
    self.index = index
    self.handle = handle
    self.instance = instance
    let basic = query.basicProperties
    name = String(vulkanArray: basic.deviceName)
    vendorID = basic.vendorID
    deviceID = basic.deviceID
    driverVersion = basic.driverVersion
    apiVersion = query.apiVersionText
    pipelineCacheUUID = hexadecimal(basic.pipelineCacheUUID)
    kind =
      switch basic.deviceType {
      case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: .discrete
      case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: .integrated
      case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: .virtual
      case VK_PHYSICAL_DEVICE_TYPE_CPU: .cpu
      default: .other
      }
    extensions = query.extensions
    (heaps, memoryTypes) = query.memory()
    queueFamilies = query.queueFamilies()
    if query.hasRequiredVersion {
      let detail = query.detail(queueFamilies: queueFamilies)
      uuid = detail.uuid
      driverUUID = detail.driverUUID
      driverName = detail.driverName
      driverInfo = detail.driverInfo
      capabilities = detail.capabilities
      unsupportedReason = detail.unsupportedReason
    } else {
      uuid = ""
      driverUUID = ""
      driverName = ""
      driverInfo = ""
      capabilities = DeviceCapabilities()
      unsupportedReason = "it offers Vulkan \(apiVersion) and 1.3 is needed; update its driver"
    }
  }
}

/// One of a device's kinds of memory.
struct MemoryType: Sendable, Hashable {
  var flags: UInt32
  var heap: Int
  var heapBytes: UInt64
  var heapIsDeviceLocal: Bool
}

/// The bytes of an array as hexadecimal digits.
func hexadecimal<Bytes: BitwiseCopyable>(_ bytes: Bytes) -> String {
  withUnsafeBytes(of: bytes) { bytes in
    bytes.map { byte in
      let digits = String(byte, radix: 16)
      return digits.count == 1 ? "0" + digits : digits
    }.joined()
  }
}
