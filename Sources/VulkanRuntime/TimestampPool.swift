import CVulkan

/// Places for the device's clock to be written to while it works.
package final class TimestampPool: Sendable {
  package let count: Int
  let context: DeviceContext
  nonisolated(unsafe) let handle: VkQueryPool

  init(context: DeviceContext, count: Int) throws(VulkanError) {
    guard context.physical.capabilities.timestampBits > 0 else {
      throw VulkanError(
        kind: .unsupported, description: "\(context.name) has no timestamps on its compute queue")
    }
    guard let size = UInt32(exactly: count), size > 0 else {
      throw VulkanError(kind: .unsupported, description: "a pool of \(count) timestamps on \(context.name)")
    }
    var info = VkQueryPoolCreateInfo()
    info.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO
    info.queryType = VK_QUERY_TYPE_TIMESTAMP
    info.queryCount = size
    var created: VkQueryPool?
    try context.check(
      context.functions.pointee.vkCreateQueryPool(context.handle, &info, nil, &created), "vkCreateQueryPool")
    guard let created else { throw VulkanError(VK_ERROR_UNKNOWN, "vkCreateQueryPool", device: context.name) }
    self.context = context
    self.count = count
    handle = created
  }

  deinit {
    context.functions.pointee.vkDestroyQueryPool(context.handle, handle, nil)
  }

  /// The first `count` timestamps (nil: all), in nanoseconds since the first.
  ///
  /// Throws unless each has been written since the last reset and the device has got there.
  package func read(count: Int? = nil) throws(VulkanError) -> [Double] {
    let ticks = try readTicks(count: count)
    return ticks.map { context.physical.nanoseconds(from: ticks[0], to: $0) }
  }

  /// The same as ticks of the device's clock.
  package func readTicks(count: Int? = nil) throws(VulkanError) -> [UInt64] {
    let wanted = min(max(count ?? self.count, 0), self.count)
    guard wanted > 0 else { return [] }
    var ticks = [UInt64](repeating: 0, count: wanted)
    let result = ticks.withUnsafeMutableBytes { bytes in
      context.functions.pointee.vkGetQueryPoolResults(
        context.handle, handle, 0, UInt32(wanted), bytes.count, bytes.baseAddress, 8,
        VK_QUERY_RESULT_64_BIT.rawValue)
    }
    try context.check(result, "vkGetQueryPoolResults", "\(wanted) timestamps")
    return ticks
  }
}

extension PhysicalDevice {
  /// Nanoseconds between two ticks of the device's clock.
  package func nanoseconds(from first: UInt64, to tick: UInt64) -> Double {
    // The clock may wrap around within its valid bits: the difference, sign-extended from them, is right.
    let unused = UInt64(64 - min(capabilities.timestampBits, 64))
    let difference = Int64(bitPattern: (tick &- first) << unused) >> Int64(unused)
    return Double(difference) * capabilities.timestampPeriodNanoseconds
  }
}
