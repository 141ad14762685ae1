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
  var flags: (required: UInt32, wanted: UInt32, unwanted: UInt32) {
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
  nonisolated(unsafe) let memory: VkDeviceMemory
  /// Bytes of device-local memory that it holds.
  private let deviceLocalBytes: Int
  /// Bytes of the host's memory that it holds.
  private let hostBytes: Int
  /// What it is a view of, for imported memory.
  private let host: HostMemory?
  /// The memory's type and size, which those that import it must know.
  let memoryType: Int
  let allocationBytes: UInt64

  /// Whether it lies in the device's own memory.
  package var isDeviceLocal: Bool { deviceLocalBytes > 0 }

  init(
    context: DeviceContext, byteCount: Int, memory kind: MemoryKind, label: String,
    origin: BufferOrigin = .new
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
    let handle = try Self.makeHandle(context, size: size, shares: origin.handleTypes, subject)
    var requirements = VkMemoryRequirements()
    functions.pointee.vkGetBufferMemoryRequirements(context.handle, handle, &requirements)

    let allocation: BufferAllocation
    do throws(VulkanError) {
      allocation = try BufferAllocator(
        context: context, buffer: handle, requirements: requirements, subject: subject
      ).allocate(origin, kind)
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
      if case .host(let host) = origin {
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
    if case .host(let host) = origin { self.host = host } else { host = nil }
    memory = allocation.memory
    memoryType = allocation.type
    allocationBytes = allocation.byteCount
    contents = mapped
    // A CPU driver's memory is all local: what is asked for as the host's is counted as the host's.
    let isHosts = kind == .upload || kind == .download
    let isLocal = allocation.isDeviceLocal && !isHosts
    // What was imported from another device is counted there.
    let counted = if case .imported = origin { 0 } else { Int(clamping: requirements.size) }
    deviceLocalBytes = isLocal ? counted : 0
    hostBytes = isLocal ? 0 : counted
    context.countAllocation(local: deviceLocalBytes, host: hostBytes)
    context.label(handle, type: VK_OBJECT_TYPE_BUFFER, label)
  }

  deinit {
    context.functions.pointee.vkDestroyBuffer(context.handle, handle, nil)
    context.functions.pointee.vkFreeMemory(context.handle, memory, nil)
    context.countRelease(local: deviceLocalBytes, host: hostBytes)
  }

  /// What every buffer may be used for.
  static let usage =
    VK_BUFFER_USAGE_STORAGE_BUFFER_BIT.rawValue | VK_BUFFER_USAGE_TRANSFER_SRC_BIT.rawValue
    | VK_BUFFER_USAGE_TRANSFER_DST_BIT.rawValue | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT.rawValue

  private static func makeHandle(
    _ context: DeviceContext, size: UInt64, shares handleTypes: UInt32, _ subject: String
  ) throws(VulkanError) -> VkBuffer {
    var handle: VkBuffer?
    let chain = StructureChain()
    if handleTypes != 0 {
      var external = VkExternalMemoryBufferCreateInfo()
      external.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO
      external.handleTypes = handleTypes
      chain.append(external)
    }
    defer { withExtendedLifetime(chain) {} }
    let result = context.queueFamilies.withUnsafeBufferPointer { families in
      var info = VkBufferCreateInfo()
      info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO
      info.pNext = UnsafeRawPointer(chain.head)
      info.size = size
      info.usage = usage
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
}
