import VulkanRuntime

/// Pinned host memory for pages of the KV cache, taken from the system in blocks as it is needed.
package final class HostPages {
  private let device: Device
  private let pageBytes: Int
  private let pagesPerBlock: Int
  private var blocks: [Int: Buffer] = [:]

  /// - Parameter pageBytes: of one page in all layers.
  package init(device: Device, pageBytes: Int) {
    self.device = device
    self.pageBytes = pageBytes
    pagesPerBlock = max(1, (32 << 20) / max(pageBytes, 1))
  }

  /// Where a page lies.
  package func place(of page: Int) throws -> (buffer: Buffer, offset: Int) {
    let block = page / pagesPerBlock
    if blocks[block] == nil {
      blocks[block] = try device.makeBuffer(
        byteCount: pagesPerBlock * pageBytes, memory: .upload, label: "KV cache pages on the host")
    }
    return (blocks[block]!, page % pagesPerBlock * pageBytes)
  }
}
