import CVulkan
import Glibc

/// A counter that only grows, set by queues or the host and waited for by either.
package final class TimelineSemaphore: Sendable {
  let context: DeviceContext
  nonisolated(unsafe) let handle: VkSemaphore

  /// - Parameter isExported: whether logical devices of the same physical device may share it that have another
  ///   VkDevice; needs `DeviceCapabilities.sharesSemaphores`.
  init(context: DeviceContext, isExported: Bool = false) throws(VulkanError) {
    var export = VkExportSemaphoreCreateInfo()
    export.sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO
    export.handleTypes = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT.rawValue
    let chain = StructureChain()
    if isExported { chain.append(export) }
    defer { withExtendedLifetime(chain) {} }
    var type = VkSemaphoreTypeCreateInfo()
    type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO
    type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE
    type.pNext = UnsafeRawPointer(chain.head)
    var created: VkSemaphore?
    let result = withUnsafePointer(to: type) { type in
      var info = VkSemaphoreCreateInfo()
      info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO
      info.pNext = UnsafeRawPointer(type)
      return context.functions.pointee.vkCreateSemaphore(context.handle, &info, nil, &created)
    }
    try context.check(result, "vkCreateSemaphore")
    guard let created else { throw VulkanError(VK_ERROR_UNKNOWN, "vkCreateSemaphore", device: context.name) }
    self.context = context
    handle = created
  }

  /// The exported semaphore `source` of another VkDevice of the same physical device: one count for both.
  convenience init(context: DeviceContext, sharing source: TimelineSemaphore) throws(VulkanError) {
    try self.init(context: context)
    guard let export = source.context.functions.pointee.vkGetSemaphoreFdKHR,
      let importFile = context.functions.pointee.vkImportSemaphoreFdKHR
    else {
      throw VulkanError(
        kind: .unsupported,
        description: "\(context.name) cannot share semaphores: its driver lacks the extension")
    }
    var get = VkSemaphoreGetFdInfoKHR()
    get.sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR
    get.semaphore = source.handle
    get.handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT
    var file: Int32 = -1
    try source.context.check(export(source.context.handle, &get, &file), "vkGetSemaphoreFdKHR")
    var info = VkImportSemaphoreFdInfoKHR()
    info.sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR
    info.semaphore = handle
    info.handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT
    info.fd = file
    let result = importFile(context.handle, &info)
    // The driver owns the file once it has been imported.
    if result != VK_SUCCESS { close(file) }
    try context.check(result, "vkImportSemaphoreFdKHR")
  }

  deinit {
    context.functions.pointee.vkDestroySemaphore(context.handle, handle, nil)
  }

  /// The count now.
  package var value: UInt64 {
    get throws(VulkanError) {
      var value: UInt64 = 0
      try context.check(
        context.functions.pointee.vkGetSemaphoreCounterValue(context.handle, handle, &value),
        "vkGetSemaphoreCounterValue")
      return value
    }
  }

  /// Waits until the count is `value` or more; false if that has not happened after `timeoutNanoseconds`.
  package func wait(for value: UInt64, timeoutNanoseconds: UInt64 = .max) throws(VulkanError) -> Bool {
    let result = withUnsafePointer(to: VkSemaphore?.some(handle)) { semaphore in
      withUnsafePointer(to: value) { value in
        var info = VkSemaphoreWaitInfo()
        info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO
        info.semaphoreCount = 1
        info.pSemaphores = semaphore
        info.pValues = value
        return context.functions.pointee.vkWaitSemaphores(context.handle, &info, timeoutNanoseconds)
      }
    }
    if result == VK_TIMEOUT { return false }
    try context.check(result, "vkWaitSemaphores")
    return true
  }

  /// Sets the count from the host; `value` must be greater than the count and than any value a queue is yet to set.
  package func signal(_ value: UInt64) throws(VulkanError) {
    var info = VkSemaphoreSignalInfo()
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO
    info.semaphore = handle
    info.value = value
    try context.check(
      context.functions.pointee.vkSignalSemaphore(context.handle, &info), "vkSignalSemaphore")
  }
}
