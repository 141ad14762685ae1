import CVulkan
import Glibc

/// Where the memory of a buffer comes from.
enum BufferOrigin {
  case new
  /// Host memory, all of it.
  case host(HostMemory)
  /// New memory that other logical devices may import.
  case exported(MemoryHandle)
  /// What another logical device has exported.
  case imported(Buffer, MemoryHandle)

  /// VkExternalMemoryHandleTypeFlags of the buffer.
  var handleTypes: UInt32 {
    switch self {
    case .new: 0
    case .host: VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT.rawValue
    case .exported(let handle), .imported(_, let handle): handle.type.rawValue
    }
  }
}

/// Memory for one buffer.
struct BufferAllocation {
  var memory: VkDeviceMemory
  var type: Int
  var byteCount: UInt64
  var isDeviceLocal: Bool
}

/// Gets memory for a buffer that has none yet.
struct BufferAllocator {
  let context: DeviceContext
  let buffer: VkBuffer
  let requirements: VkMemoryRequirements
  /// What errors call the buffer.
  let subject: String

  func allocate(_ origin: BufferOrigin, _ kind: MemoryKind) throws(VulkanError) -> BufferAllocation {
    switch origin {
    case .new: try allocate(kind)
    case .host(let host): try importHost(host)
    case .exported(let handle): try export(handle, kind)
    case .imported(let source, let handle): try importMemory(of: source, handle)
    }
  }

  private func allocate(_ kind: MemoryKind) throws(VulkanError) -> BufferAllocation {
    do throws(VulkanError) {
      return try allocateStrictly(kind)
    } catch {
      guard kind == .mappedDevice, error.kind == .outOfDeviceMemory || error.kind == .unsupported else {
        throw error
      }
      return try allocateStrictly(.upload)
    }
  }

  private func allocateStrictly(
    _ kind: MemoryKind, chain: StructureChain = StructureChain()
  ) throws(VulkanError) -> BufferAllocation {
    guard let index = memoryType(for: kind, allowed: requirements.memoryTypeBits) else {
      throw unsupported("the device has no \(kind) memory for it")
    }
    let type = context.physical.memoryTypes[index]
    // Some drivers would accept more than there is, and fail much later.
    guard requirements.size <= type.heapBytes else {
      throw VulkanError(
        kind: .outOfDeviceMemory,
        description: "\(subject) on \(context.name): the memory for it has \(type.heapBytes) bytes in all; "
          + "use a smaller model or context")
    }
    return try allocate(byteCount: requirements.size, type: index, chain: chain)
  }

  private func export(_ handle: MemoryHandle, _ kind: MemoryKind) throws(VulkanError) -> BufferAllocation {
    let chain = StructureChain()
    chain.append(dedication)
    var export = VkExportMemoryAllocateInfo()
    export.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO
    export.handleTypes = handle.type.rawValue
    chain.append(export)
    return try allocateStrictly(kind, chain: chain)
  }

  /// This device's view of a buffer that another one has exported.
  private func importMemory(of source: Buffer, _ handle: MemoryHandle) throws(VulkanError) -> BufferAllocation
  {
    guard requirements.size <= source.allocationBytes else {
      throw unsupported("it wants more memory than \(source.context.name) gave it")
    }
    let file = try source.exportFile(handle)
    // The driver owns the file once it has been imported.
    do throws(VulkanError) {
      let chain = StructureChain()
      chain.append(dedication)
      var info = VkImportMemoryFdInfoKHR()
      info.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR
      info.handleType = handle.type
      info.fd = file
      chain.append(info)
      return try allocate(
        byteCount: source.allocationBytes, type: try importedType(of: source, handle, file: file),
        chain: chain, isForeign: true)
    } catch {
      close(file)
      throw error
    }
  }

  /// The type of memory that the file is for this device.
  private func importedType(
    of source: Buffer, _ handle: MemoryHandle, file: Int32
  ) throws(VulkanError) -> Int {
    // The same device's own: the type is that of the one that exports.
    guard handle == .dmaBuf else { return source.memoryType }
    guard let query = context.functions.pointee.vkGetMemoryFdPropertiesKHR else {
      throw unsupported("the driver lacks VK_KHR_external_memory_fd")
    }
    var properties = VkMemoryFdPropertiesKHR()
    properties.sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR
    try context.check(
      query(context.handle, handle.type, file, &properties), "vkGetMemoryFdPropertiesKHR", subject)
    let allowed = properties.memoryTypeBits & requirements.memoryTypeBits
    // Another device's memory is local to that one, and may be anything here.
    guard
      let index = memoryType(for: .device, allowed: allowed) ?? memoryType(for: .upload, allowed: allowed)
    else { throw unsupported("the device cannot import memory of \(source.context.name) for it") }
    return index
  }

  /// The device's view of `host`.
  private func importHost(_ host: HostMemory) throws(VulkanError) -> BufferAllocation {
    let type = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT
    guard context.physical.capabilities.externalMemoryHostAlignment != nil,
      let query = context.functions.pointee.vkGetMemoryHostPointerPropertiesEXT
    else { throw unsupported("the driver lacks VK_EXT_external_memory_host") }
    var properties = VkMemoryHostPointerPropertiesEXT()
    properties.sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT
    try context.check(
      query(context.handle, type, host.base, &properties), "vkGetMemoryHostPointerPropertiesEXT", subject)
    guard
      let index = memoryType(
        for: .upload, allowed: properties.memoryTypeBits & requirements.memoryTypeBits)
    else { throw unsupported("the device cannot import host memory for it") }
    let chain = StructureChain()
    var pointer = VkImportMemoryHostPointerInfoEXT()
    pointer.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT
    pointer.handleType = type
    pointer.pHostPointer = host.base
    chain.append(pointer)
    return try allocate(byteCount: UInt64(host.byteCount), type: index, chain: chain, isForeign: true)
  }

  /// - Parameter isForeign: whether the memory is another's, and takes none of the device's own.
  private func allocate(
    byteCount: UInt64, type: Int, chain: StructureChain, isForeign: Bool = false
  ) throws(VulkanError) -> BufferAllocation {
    var flags = VkMemoryAllocateFlagsInfo()
    flags.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO
    flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT.rawValue
    chain.append(flags)
    var info = VkMemoryAllocateInfo()
    info.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO
    info.pNext = UnsafeRawPointer(chain.head)
    info.allocationSize = byteCount
    info.memoryTypeIndex = UInt32(type)
    var memory: VkDeviceMemory?
    let result = withExtendedLifetime(chain) {
      context.allocate(&info, &memory)
    }
    try context.check(result, "vkAllocateMemory", subject)
    guard let memory else {
      throw VulkanError(VK_ERROR_UNKNOWN, "vkAllocateMemory", device: context.name, subject)
    }
    return BufferAllocation(
      memory: memory, type: type, byteCount: byteCount,
      isDeviceLocal: !isForeign && context.physical.memoryTypes[type].heapIsDeviceLocal)
  }

  /// Memory that passes between devices is the buffer's alone: some drivers share no other.
  private var dedication: VkMemoryDedicatedAllocateInfo {
    var info = VkMemoryDedicatedAllocateInfo()
    info.sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO
    info.buffer = buffer
    return info
  }

  private func unsupported(_ why: String) -> VulkanError {
    VulkanError(kind: .unsupported, description: "\(subject) on \(context.name): \(why)")
  }

  /// The memory type that suits `kind` best; of equals the driver's first, which is its fastest.
  private func memoryType(for kind: MemoryKind, allowed: UInt32) -> Int? {
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
    for (index, type) in context.physical.memoryTypes.enumerated() {
      guard allowed & (1 << UInt32(index)) != 0, type.flags & required == required, type.flags & ~known == 0
      else {
        continue
      }
      if let current = best, score(type.flags) <= score(context.physical.memoryTypes[current].flags) {
        continue
      }
      best = index
    }
    return best
  }
}
