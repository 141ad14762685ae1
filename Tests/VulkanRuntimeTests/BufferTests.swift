import Testing
import VulkanRuntime

@Suite(.onDevice)
struct BufferTests {
  @Test(arguments: [MemoryKind.device, .upload, .download, .mappedDevice])
  func absurdSizesAreErrors(_ kind: MemoryKind) throws {
    let device = try TestDevice.open()
    let heaps = device.physical.heaps.map(\.byteCount).reduce(0, +)
    for size in [0, -1, Int.min, Int.max, Int.max - 15, 1 << 60, Int(clamping: heaps) + 1] {
      do throws(VulkanError) {
        _ = try device.makeBuffer(byteCount: size, memory: kind, label: "absurd")
        Issue.record("a buffer of \(size) bytes was made")
      } catch {
        #expect(error.kind == .unsupported || error.kind == .outOfDeviceMemory)
        #expect(error.description.contains("'absurd'") && !error.description.contains("\n"))
      }
    }
    #expect(device.allocatedBytes == 0)
  }

  @Test func allocationsAreCounted() throws {
    let device = try TestDevice.open()
    var buffers: [Buffer] = []
    for _ in 0..<4 {
      buffers.append(try device.makeBuffer(byteCount: 1 << 20, memory: .device, label: "counted"))
    }
    #expect(device.allocatedBytes >= 4 << 20)
    #expect(device.allocatedBytes < 5 << 20)
    buffers.removeAll()
    #expect(device.allocatedBytes == 0)
    #expect(device.peakAllocatedBytes >= 4 << 20)
  }

  @Test func buffersOutliveTheirDevice() throws {
    let buffer: Buffer
    do {
      let device = try TestDevice.open()
      buffer = try device.makeBuffer(byteCount: 64, memory: .upload, label: "orphan")
    }
    buffer.write([1, 2, 3])
    #expect(buffer.words(3) == [1, 2, 3])
  }

  @Test func copiesAndFillsMoveExactlyTheirBytes() throws {
    let device = try TestDevice.open()
    let source = try device.makeBuffer(byteCount: 40, memory: .upload, label: "source")
    let result = try device.makeBuffer(byteCount: 40, memory: .download, label: "result")
    source.write((1...10).map { $0 })
    // On the transfer queue, which may be one that cannot compute.
    try device.run(on: device.transferQueue) { commands in
      commands.fill(result, offset: 0, byteCount: 40, value: 0xabcd)
      commands.barrier()
      commands.copy(from: source, offset: 8, to: result, offset: 4, byteCount: 12)
      commands.copy(from: source, offset: 0, to: result, offset: 40, byteCount: 0)
    }
    #expect(result.words(10) == [0xabcd, 3, 4, 5] + [UInt32](repeating: 0xabcd, count: 6))
  }

  @Test func rangesBeyondABufferAreErrors() throws {
    let device = try TestDevice.open()
    let buffer = try device.makeBuffer(byteCount: 64, memory: .device, label: "small")
    let recordings: [(CommandBuffer) -> Void] = [
      { $0.fill(buffer, offset: 60, byteCount: 8, value: 0) },
      { $0.fill(buffer, offset: 2, byteCount: 4, value: 0) },
      { $0.fill(buffer, offset: -4, byteCount: 4, value: 0) },
      { $0.fill(buffer, offset: 4, byteCount: Int.max & ~3, value: 0) },
      { $0.copy(from: buffer, offset: Int.max, to: buffer, offset: 0, byteCount: 4) },
      { $0.copy(from: buffer, offset: 0, to: buffer, offset: 32, byteCount: -4) },
    ]
    for record in recordings {
      let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: false)
      try commands.begin()
      record(commands)
      #expect(throws: VulkanError.self) { try commands.end() }
      #expect(throws: VulkanError.self) { try device.computeQueue.submit([commands]) }
    }
  }
}
