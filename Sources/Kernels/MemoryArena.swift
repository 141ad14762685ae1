import VulkanRuntime

/// Memory of one kind handed out in pieces of a few large allocations, freed together.
package final class MemoryArena {
  private let device: Device
  private let label: String
  private let memory: MemoryKind
  private let blockBytes: Int
  package private(set) var buffers: [Buffer] = []
  private var used = 0

  /// - Parameter blockBytes: what one allocation holds, unless a single piece is larger.
  package init(device: Device, label: String, memory: MemoryKind = .device, blockBytes: Int = 512 << 20) {
    self.device = device
    self.label = label
    self.memory = memory
    self.blockBytes = min(blockBytes, Int(clamping: device.capabilities.maxAllocationBytes))
  }

  /// A piece of memory, aligned to 256 bytes.
  package struct Piece {
    package var buffer: Buffer
    package var offset: Int
    package var byteCount: Int
    package var address: UInt64 { buffer.address + UInt64(offset) }
  }

  /// - Parameter expected: bytes that are still to be asked for after this piece, so that the last block is no
  ///   larger than needed.
  package func allocate(_ byteCount: Int, expected: Int) throws -> Piece {
    let rounded = (byteCount + 255) / 256 * 256
    if let last = buffers.last, last.byteCount - used >= rounded {
      defer { used += rounded }
      return Piece(buffer: last, offset: used, byteCount: byteCount)
    }
    let block = max(rounded, min(blockBytes, rounded + expected))
    let buffer = try device.makeBuffer(byteCount: block, memory: memory, label: label)
    buffers.append(buffer)
    used = rounded
    return Piece(buffer: buffer, offset: 0, byteCount: byteCount)
  }
}
