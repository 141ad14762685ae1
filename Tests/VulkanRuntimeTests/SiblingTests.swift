import Testing
import VulkanRuntime

/// Logical devices of one physical device that are opened together, whether they come to share a VkDevice or not.
@Suite(.onDevice)
struct SiblingTests {
  static func open() throws -> [Device] {
    let instance = try TestDevice.instance.get()
    let physical = try DeviceSelection.select(
      spec: TestDevice.environmentSpec, from: instance.physicalDevices)
    return try Device.open(
      instance: instance, physicals: [physical, physical], pipelineCacheDirectory: nil)
  }

  @Test func eachHasQueuesAndCountsOfItsOwn() throws {
    let devices = try Self.open()
    #expect(devices[0].computeQueue !== devices[1].computeQueue)
    #expect(devices[0].runsBeside(devices[1]) == devices[0].isSibling(of: devices[1]))
    let buffer = try devices[0].makeBuffer(byteCount: 1 << 16, memory: .device, label: "the first one's")
    #expect(devices[0].allocatedBytes >= 1 << 16 && devices[1].allocatedBytes == 0)
    let alone = try TestDevice.open()
    #expect(!alone.isSibling(of: devices[0]) && !alone.runsBeside(devices[0]))
    withExtendedLifetime(buffer) {}
  }

  @Test func oneOutlivesTheOther() throws {
    var devices = try Self.open()
    devices.removeFirst()
    let buffer = try devices[0].makeBuffer(byteCount: 4 * 64, memory: .download, label: "filled")
    try devices[0].run { $0.fill(buffer, offset: 0, byteCount: 4 * 64, value: 7) }
    #expect(buffer.words(64) == [UInt32](repeating: 7, count: 64))
  }

  /// The one that reads is told by a semaphore, which it waits for before it is to be signalled.
  @Test func oneReadsWhatTheOtherWrites() throws {
    let devices = try Self.open()
    let areSiblings = devices[0].isSibling(of: devices[1])
    guard devices[1].canShareSemaphores(with: devices[0]),
      areSiblings || devices[1].physical.memoryHandle(for: [devices[0].physical]) != nil
    else { return }
    let shared = try SharedMemory(of: 1, byteCount: 4096, devices: devices, label: "shared")
    #expect((shared.views[0] === shared.views[1]) == areSiblings)
    let result = try devices[1].makeBuffer(byteCount: 4096, memory: .download, label: "result")
    let written = try devices[0].makeSemaphore(sharedWith: devices)
    let seen = try devices[1].makeSemaphore(sharing: written)
    for round in UInt32(1)...10 {
      let reading = try devices[1].recordOnce { commands in
        commands.barrier()
        commands.copy(from: shared.views[1], offset: 0, to: result, offset: 0, byteCount: 4096)
        commands.barrierToHost()
      }
      try devices[1].computeQueue.submit([reading], wait: [(seen, UInt64(round))])
      let writing = try devices[0].recordOnce { commands in
        commands.fill(shared.views[0], offset: 0, byteCount: 4096, value: round)
        commands.barrier()
      }
      try devices[0].computeQueue.submit([writing], signal: [(written, UInt64(round))])
      try devices[1].waitIdle()
      #expect(result.words(1024) == [UInt32](repeating: round, count: 1024))
    }
  }
}
