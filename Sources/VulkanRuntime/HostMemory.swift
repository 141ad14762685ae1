import Glibc

/// Pages of host memory that several devices can import: what one writes, all see. Zero at first.
package final class HostMemory: Sendable {
  nonisolated(unsafe) package let base: UnsafeMutableRawPointer
  package let byteCount: Int

  /// - Parameter alignment: what the devices ask of the address and size of memory that they import, a power of two.
  package init(byteCount: Int, alignment: Int) throws(VulkanError) {
    let alignment = max(alignment, 4096)
    let size = (max(byteCount, 1) + alignment - 1) / alignment * alignment
    var pointer: UnsafeMutableRawPointer?
    guard posix_memalign(&pointer, alignment, size) == 0, let pointer else {
      throw VulkanError(
        kind: .outOfHostMemory,
        description:
          "\(size) bytes of host memory that devices share cannot be had; use a smaller --prompt-chunk")
    }
    memset(pointer, 0, size)
    base = pointer
    self.byteCount = size
  }

  deinit { free(base) }
}
