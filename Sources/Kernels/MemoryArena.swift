import VulkanRuntime

/// Memory of one kind handed out in pieces of a few large allocations, freed together.
///
/// What will be asked for is known beforehand, so allocations are as large as the pieces in them, and budgets hold.
package final class MemoryArena {
  private let device: Device
  private let label: String
  private let memory: MemoryKind
  private let blockBytes: Int
  private let pieces: [Int]
  private var handedOut = 0
  package private(set) var buffers: [Buffer] = []
  private var used = 0

  /// - Parameters:
  ///   - blockBytes: what one allocation holds, unless a single piece is larger.
  ///   - pieces: bytes of each piece, in the order in which they will be asked for; others may come after them, and
  ///     get allocations of their own.
  package init(
    device: Device, label: String, memory: MemoryKind = .device, blockBytes: Int = 512 << 20, pieces: [Int]
  ) {
    self.device = device
    self.label = label
    self.memory = memory
    self.blockBytes = min(blockBytes, Int(clamping: device.capabilities.maxAllocationBytes))
    self.pieces = pieces
  }

  /// A piece of memory, aligned to 256 bytes.
  package struct Piece {
    package var buffer: Buffer
    package var offset: Int
    package var byteCount: Int
    package var address: UInt64 { buffer.address + UInt64(offset) }
  }

  package func allocate(_ byteCount: Int) throws -> Piece {
    let rounded = Self.aligned(byteCount)
    if buffers.isEmpty || buffers[buffers.count - 1].byteCount - used < rounded {
      var block = rounded
      for next in pieces.dropFirst(handedOut + 1).lazy.map(Self.aligned) {
        guard block + next <= blockBytes else { break }
        block += next
      }
      buffers.append(try device.makeBuffer(byteCount: block, memory: memory, label: label))
      used = 0
    }
    handedOut += 1
    defer { used += rounded }
    return Piece(buffer: buffers[buffers.count - 1], offset: used, byteCount: byteCount)
  }

  /// What a piece of so many bytes takes.
  static func aligned(_ byteCount: Int) -> Int { (byteCount + 255) / 256 * 256 }
}
