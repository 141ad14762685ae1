import CVulkan

/// How one logical device hands memory of its own to another (VK_KHR_external_memory_fd).
package enum MemoryHandle: String, Sendable, Hashable, CaseIterable {
  /// A file that means something to the same driver for the same physical device.
  case opaqueFile = "opaque fd"
  /// A file that drivers of other devices may understand, too (VK_EXT_external_memory_dma_buf).
  case dmaBuf = "dma-buf"

  var type: VkExternalMemoryHandleTypeFlagBits {
    switch self {
    case .opaqueFile: VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT
    case .dmaBuf: VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT
    }
  }

  /// The extensions that it needs.
  var extensions: [String] {
    switch self {
    case .opaqueFile: [VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME]
    case .dmaBuf:
      [VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME, VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME]
    }
  }
}

extension PhysicalDevice {
  /// Whether it is `other`, by the same driver: what one writes to its memory is at once in the other's caches.
  package func isSame(as other: PhysicalDevice) -> Bool {
    handle == other.handle || (!uuid.isEmpty && uuid == other.uuid && driverUUID == other.driverUUID)
  }

  /// How memory of this device's own can be handed to all of `others`; nil if it cannot.
  package func memoryHandle(for others: [PhysicalDevice]) -> MemoryHandle? {
    let areSame = others.allSatisfy { isSame(as: $0) }
    return MemoryHandle.allCases.first { handle in
      (handle == .dmaBuf || areSame) && capabilities.exportsMemory.contains(handle)
        && others.allSatisfy { $0.capabilities.importsMemory.contains(handle) }
    }
  }
}

/// Memory that several devices see: what one writes, all can read. Zero at first; orders of reads and writes are the
/// caller's.
package final class SharedMemory: Sendable {
  /// The memory as each of the devices sees it.
  package let views: [Buffer]

  /// Host memory that all devices import.
  ///
  /// - Throws: `.unsupported` where one of them cannot.
  package init(ofHost byteCount: Int, devices: [Device], label: String) throws(VulkanError) {
    let alignment = devices.compactMap(\.capabilities.externalMemoryHostAlignment).max() ?? 4096
    let host = try HostMemory(byteCount: byteCount, alignment: Int(clamping: alignment))
    views = try Self.views(devices) { device throws(VulkanError) in
      try device.makeBuffer(importing: host, label: label)
    }
  }

  /// Memory of one of the devices, which its siblings have as it is and the others import.
  ///
  /// - Throws: `.unsupported` where that device and the others have no handle in common.
  package init(of owner: Int, byteCount: Int, devices: [Device], label: String) throws {
    let source = devices[owner]
    let strangers = devices.filter { !$0.isSibling(of: source) }
    let handle = source.physical.memoryHandle(for: strangers.map(\.physical))
    guard strangers.isEmpty || handle != nil else {
      let stranger = strangers.first { source.physical.memoryHandle(for: [$0.physical]) == nil } ?? source
      throw VulkanError(
        kind: .unsupported,
        description:
          "\(source.context.name) cannot hand memory of its own to \(stranger.context.name): their drivers "
          + "have no file handle for it in common")
    }
    // Drivers that need more than others for the same buffer need whole pages of the larger kinds.
    let size = (max(byteCount, 1) + 0xffff) & ~0xffff
    let origin: BufferOrigin = if let handle, !strangers.isEmpty { .exported(handle) } else { .new }
    let memory = try Buffer(
      context: source.context, byteCount: size, memory: .device, label: label, origin: origin)
    try source.run { commands in
      commands.fill(memory, offset: 0, byteCount: size, value: 0)
      commands.barrier()
    }
    views = try Self.views(devices) { device throws(VulkanError) in
      guard let handle, !device.isSibling(of: source) else { return memory }
      return try Buffer(
        context: device.context, byteCount: size, memory: .device, label: label,
        origin: .imported(memory, handle))
    }
  }

  /// A view for each device; siblings have one in common, since drivers need not import the same memory twice.
  private static func views(
    _ devices: [Device], make: (Device) throws(VulkanError) -> Buffer
  ) throws(VulkanError) -> [Buffer] {
    var views: [Buffer] = []
    for (index, device) in devices.enumerated() {
      if let sibling = devices[..<index].firstIndex(where: { $0.isSibling(of: device) }) {
        views.append(views[sibling])
      } else {
        views.append(try make(device))
      }
    }
    return views
  }
}

extension Buffer {
  /// A new file for the memory, which is the caller's to close.
  func exportFile(_ handle: MemoryHandle) throws(VulkanError) -> Int32 {
    guard let export = context.functions.pointee.vkGetMemoryFdKHR else {
      throw VulkanError(
        kind: .unsupported, description: "\(context.name) cannot share memory: its driver lacks the extension"
      )
    }
    var info = VkMemoryGetFdInfoKHR()
    info.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR
    info.memory = memory
    info.handleType = handle.type
    var file: Int32 = -1
    try context.check(export(context.handle, &info, &file), "vkGetMemoryFdKHR", label)
    return file
  }
}
