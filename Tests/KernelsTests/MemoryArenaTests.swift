import Testing
import VulkanRuntime

@testable import Kernels

@Suite("Memory arena", .enabled(if: TestDevice.absence == nil, "\(TestDevice.absence ?? "")"))
struct MemoryArenaTests {
  @Test("allocations are as large as the pieces in them, which do not overlap", arguments: [1, 7, 40])
  func sizes(count: Int) throws {
    let device = try TestDevice.open()
    let blockBytes = 1 << 20
    let sizes = (0..<count).map { _ in Int.random(in: 1...blockBytes / 3) } + [2 * blockBytes, 5, 300]
    let arena = MemoryArena(device: device, label: "test", blockBytes: blockBytes, pieces: sizes)
    let pieces = try sizes.map { try arena.allocate($0) }
    func aligned(_ size: Int) -> Int { (size + 255) / 256 * 256 }
    #expect(arena.buffers.reduce(0) { $0 + $1.byteCount } == sizes.reduce(0) { $0 + aligned($1) })
    #expect(arena.buffers.count <= 3 + count / 2)
    for buffer in arena.buffers {
      var end = 0
      for piece in pieces where piece.buffer === buffer {
        #expect(piece.offset == end)
        end = piece.offset + aligned(piece.byteCount)
      }
      #expect(end == buffer.byteCount)
    }
    // What was not announced gets just what it takes.
    _ = try arena.allocate(1000)
    #expect(arena.buffers.last?.byteCount == 1024)
  }
}
