import CVulkan
import Glibc

/// What a buffer's memory is for.
package enum MemoryKind: Sendable, Hashable {
  /// Device-local: where kernels read and write.
  case device
  /// Written by the host, read by the device; reading it on the host may be very slow.
  case upload
  /// Written by the device, read by the host.
  case download
  /// Device-local and written by the host directly, where the device has such memory; else as `upload`.
  case mappedDevice

  /// What the memory must have, what it had better have, and what it had better not have.
  fileprivate var flags: (required: UInt32, wanted: UInt32, unwanted: UInt32) {
    let local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT.rawValue
    let mapped = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT.rawValue | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT.rawValue
    let cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT.rawValue
    return switch self {
    // The part of a discrete device's memory that the host sees can be small: it is left for those who ask.
    case .device: (local, 0, mapped | cached)
    case .upload: (mapped, 0, local | cached)
    case .download: (mapped, cached, local)
    case .mappedDevice: (local | mapped, 0, cached)
    }
  }
}

/// Memory on a device, known to kernels by its address. Freed when the last reference goes.
package final class Buffer: Sendable {
  package let byteCount: Int
  package let memoryKind: MemoryKind
  package let label: String
  /// Where kernels find it (VkDeviceAddress).
  package let address: UInt64
  /// Where the host finds it; nil for `.device` memory. Host and device see each other's writes without flushes,
  /// once a semaphore, submission or `barrierToHost()` has ordered them.
  nonisolated(unsafe) package let contents: UnsafeMutableRawPointer?

  let context: DeviceContext
  nonisolated(unsafe) let handle: VkBuffer
  nonisolated(unsafe) private let memory: VkDeviceMemory
  /// Bytes of device-local memory that it holds.
  private let deviceLocalBytes: Int
  /// Bytes of the host's memory that it holds.
  private let hostBytes: Int
  /// What it is a view of, for imported memory.
  private let host: HostMemory?

  /// Whether it lies in the device's own memory.
  package var isDeviceLocal: Bool { deviceLocalBytes > 0 }

  /// - Parameter host: memory to import, all of it, instead of new memory.
  init(
    context: DeviceContext, byteCount: Int, memory kind: MemoryKind, label: String,
    importing host: HostMemory? = nil
  ) throws(VulkanError) {
    let subject = "buffer '\(label)' of \(byteCount) bytes"
    guard byteCount > 0 else {
      throw VulkanError(
        kind: .unsupported, description: "\(subject) on \(context.name): it must have a positive size")
    }
    // Whole 16-byte words, so that copies and fills of the last few bytes are legal.
    let size = (UInt64(byteCount) + 15) & ~15
    guard size <= context.physical.capabilities.maxBufferBytes else {
      throw VulkanError(
        kind: .unsupported,
        description: "\(subject) on \(context.name): the largest buffer has "
          + "\(context.physical.capabilities.maxBufferBytes) bytes; split it")
    }
    let functions = context.functions
    let handle = try Self.makeHandle(context, size: size, importsHost: host != nil, subject)
    var requirements = VkMemoryRequirements()
    functions.pointee.vkGetBufferMemoryRequirements(context.handle, handle, &requirements)

    let allocation: Allocation
    do throws(VulkanError) {
      allocation =
        if let host {
          try Self.importHost(host, context, requirements, subject)
        } else {
          try Self.allocate(context, requirements, kind, subject)
        }
    } catch {
      functions.pointee.vkDestroyBuffer(context.handle, handle, nil)
      throw error
    }
    var addressInfo = VkBufferDeviceAddressInfo()
    addressInfo.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO
    addressInfo.buffer = handle
    var mapped: UnsafeMutableRawPointer?
    do throws(VulkanError) {
      try context.check(
        functions.pointee.vkBindBufferMemory(context.handle, handle, allocation.memory, 0),
        "vkBindBufferMemory",
        subject)
      if let host {
        mapped = host.base
      } else if kind != .device {
        try context.check(
          functions.pointee.vkMapMemory(context.handle, allocation.memory, 0, requirements.size, 0, &mapped),
          "vkMapMemory", subject)
      }
      address = functions.pointee.vkGetBufferDeviceAddress(context.handle, &addressInfo)
      // lavapipe takes a failed mmap for success, and gives out what that returned.
      guard address != 0, !address.addingReportingOverflow(size).overflow, mapped != MAP_FAILED else {
        throw VulkanError(
          VK_ERROR_OUT_OF_DEVICE_MEMORY, "vkAllocateMemory", device: context.name, subject)
      }
    } catch {
      functions.pointee.vkDestroyBuffer(context.handle, handle, nil)
      functions.pointee.vkFreeMemory(context.handle, allocation.memory, nil)
      throw error
    }
    self.context = context
    self.byteCount = byteCount
    self.memoryKind = kind
    self.label = label
    self.handle = handle
    self.host = host
    memory = allocation.memory
    contents = mapped
    // A CPU driver's memory is all local: what is asked for as the host's is counted as the host's.
    let isHosts = kind == .upload || kind == .download
    let isLocal = allocation.isDeviceLocal && !isHosts
    deviceLocalBytes = isLocal ? Int(clamping: requirements.size) : 0
    hostBytes = isLocal ? 0 : Int(clamping: requirements.size)
    context.countAllocation(local: deviceLocalBytes, host: hostBytes)
    context.label(handle, type: VK_OBJECT_TYPE_BUFFER, label)
  }

  deinit {
    context.functions.pointee.vkDestroyBuffer(context.handle, handle, nil)
    context.functions.pointee.vkFreeMemory(context.handle, memory, nil)
    context.countRelease(local: deviceLocalBytes, host: hostBytes)
  }

  private static func makeHandle(
    _ context: DeviceContext, size: UInt64, importsHost: Bool, _ subject: String
  ) throws(VulkanError) -> VkBuffer {
    var handle: VkBuffer?
    let chain = StructureChain()
    if importsHost {
      var external = VkExternalMemoryBufferCreateInfo()
      external.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO
      external.handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT.rawValue
      chain.append(external)
    }
    defer { withExtendedLifetime(chain) {} }
    let result = context.queueFamilies.withUnsafeBufferPointer { families in
      var info = VkBufferCreateInfo()
      info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO
      info.pNext = UnsafeRawPointer(chain.head)
      info.size = size
      info.usage =
        VK_BUFFER_USAGE_STORAGE_BUFFER_BIT.rawValue | VK_BUFFER_USAGE_TRANSFER_SRC_BIT.rawValue
        | VK_BUFFER_USAGE_TRANSFER_DST_BIT.rawValue | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT.rawValue
      // Concurrent sharing spares ownership transfers, and costs nothing for buffers.
      info.sharingMode = families.count > 1 ? VK_SHARING_MODE_CONCURRENT : VK_SHARING_MODE_EXCLUSIVE
      info.queueFamilyIndexCount = families.count > 1 ? UInt32(families.count) : 0
      info.pQueueFamilyIndices = families.baseAddress
      return context.functions.pointee.vkCreateBuffer(context.handle, &info, nil, &handle)
    }
    try context.check(result, "vkCreateBuffer", subject)
    guard let handle else {
      throw VulkanError(VK_ERROR_UNKNOWN, "vkCreateBuffer", device: context.name, subject)
    }
    return handle
  }

  /// The device's view of `host`.
  private static func importHost(
    _ host: HostMemory, _ context: DeviceContext, _ requirements: VkMemoryRequirements, _ subject: String
  ) throws(VulkanError) -> Allocation {
    let type = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT
    guard context.physical.capabilities.externalMemoryHostAlignment != nil,
      let query = context.functions.pointee.vkGetMemoryHostPointerPropertiesEXT
    else {
      throw VulkanError(
        kind: .unsupported,
        description:
          "\(subject) on \(context.name): the driver lacks VK_EXT_external_memory_host, which devices that "
          + "work together need; update it")
    }
    var properties = VkMemoryHostPointerPropertiesEXT()
    properties.sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT
    try context.check(
      query(context.handle, type, host.base, &properties), "vkGetMemoryHostPointerPropertiesEXT", subject)
    guard
      let index = memoryType(
        for: .upload, allowed: properties.memoryTypeBits & requirements.memoryTypeBits, of: context.physical)
    else {
      throw VulkanError(
        kind: .unsupported,
        description: "\(subject) on \(context.name): the device cannot import host memory for it")
    }
    let chain = StructureChain()
    var flags = VkMemoryAllocateFlagsInfo()
    flags.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO
    flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT.rawValue
    chain.append(flags)
    var pointer = VkImportMemoryHostPointerInfoEXT()
    pointer.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT
    pointer.handleType = type
    pointer.pHostPointer = host.base
    chain.append(pointer)
    var info = VkMemoryAllocateInfo()
    info.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO
    info.pNext = UnsafeRawPointer(chain.head)
    info.allocationSize = UInt64(host.byteCount)
    info.memoryTypeIndex = UInt32(index)
    var memory: VkDeviceMemory?
    let result = withExtendedLifetime(chain) {
      context.allocate(&info, &memory)
    }
    try context.check(result, "vkAllocateMemory", subject)
    guard let memory else {
      throw VulkanError(VK_ERROR_UNKNOWN, "vkAllocateMemory", device: context.name, subject)
    }
    return Allocation(memory: memory, isDeviceLocal: false)
  }

  private struct Allocation {
    var memory: VkDeviceMemory
    var isDeviceLocal: Bool
  }

  private static func allocate(
    _ context: DeviceContext, _ requirements: VkMemoryRequirements, _ kind: MemoryKind, _ subject: String
  ) throws(VulkanError) -> Allocation {
    do throws(VulkanError) {
      return try allocateStrictly(context, requirements, kind, subject)
    } catch {
      guard kind == .mappedDevice, error.kind == .outOfDeviceMemory || error.kind == .unsupported else {
        throw error
      }
      return try allocateStrictly(context, requirements, .upload, subject)
    }
  }

  private static func allocateStrictly(
    _ context: DeviceContext, _ requirements: VkMemoryRequirements, _ kind: MemoryKind, _ subject: String
  ) throws(VulkanError) -> Allocation {
    guard let index = memoryType(for: kind, allowed: requirements.memoryTypeBits, of: context.physical) else {
      throw VulkanError(
        kind: .unsupported,
        description: "\(subject) on \(context.name): the device has no \(kind) memory for it")
    }
    let type = context.physical.memoryTypes[index]
    // Some drivers would accept more than there is, and fail much later.
    guard requirements.size <= type.heapBytes else {
      throw VulkanError(
        kind: .outOfDeviceMemory,
        description: "\(subject) on \(context.name): the memory for it has \(type.heapBytes) bytes in all; "
          + "use a smaller model or context")
    }
    var flags = VkMemoryAllocateFlagsInfo()
    flags.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO
    flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT.rawValue
    var memory: VkDeviceMemory?
    let result = withUnsafePointer(to: flags) { flags in
      var info = VkMemoryAllocateInfo()
      info.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO
      info.pNext = UnsafeRawPointer(flags)
      info.allocationSize = requirements.size
      info.memoryTypeIndex = UInt32(index)
      return context.allocate(&info, &memory)
    }
    try context.check(result, "vkAllocateMemory", subject)
    guard let memory else {
      throw VulkanError(VK_ERROR_UNKNOWN, "vkAllocateMemory", device: context.name, subject)
    }
    return Allocation(memory: memory, isDeviceLocal: type.heapIsDeviceLocal)
  }

  /// The memory type that suits `kind` best; of equals the driver's first, which is its fastest.
  private static func memoryType(for kind: MemoryKind, allowed: UInt32, of device: PhysicalDevice) -> Int? {
    // Vulkan's own kinds that need no further feature; others (protected, lazily allocated, AMD's uncached) are
    // not for us.
    let known: UInt32 =
      VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT.rawValue | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT.rawValue
      | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT.rawValue | VK_MEMORY_PROPERTY_HOST_CACHED_BIT.rawValue
    let (required, wanted, unwanted) = kind.flags
    func score(_ flags: UInt32) -> Int {
      4 * (flags & wanted).nonzeroBitCount - (flags & unwanted).nonzeroBitCount
    }
    var best: Int?
    for (index, type) in device.memoryTypes.enumerated() {
      guard allowed & (1 << UInt32(index)) != 0, type.flags & required == required, type.flags & ~known == 0
      else {
        continue
      }
      if let current = best, score(type.flags) <= score(device.memoryTypes[current].flags) { continue }
      best = index
    }
    return best
  }
}
