import Testing
import VulkanRuntime

@Suite(.onDevice)
struct SubmissionTests {
  /// A command buffer that adds 1 to each of 64 counters.
  private func incrementer(_ device: Device, _ counters: Buffer, reusable: Bool) throws -> CommandBuffer {
    let pipeline = try device.scalePipeline(factor: 1)
    let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: reusable)
    try commands.begin()
    commands.keepAlive([counters])
    commands.barrier()
    commands.dispatch(
      pipeline,
      pushConstants: ScaleConstants(
        source: counters.address, destination: counters.address, count: 64, addend: 1),
      groups: (1, 1, 1))
    commands.barrierToHost()
    try commands.end()
    return commands
  }

  @Test func aRecordingIsReplayed() throws {
    let device = try TestDevice.open()
    let counters = try device.makeBuffer(byteCount: 256, memory: .download, label: "counters")
    counters.write([UInt32](repeating: 0, count: 64))
    let commands = try incrementer(device, counters, reusable: true)
    let done = try device.makeSemaphore()
    for step in 1...100 {
      try device.computeQueue.submit([commands], signal: [(done, UInt64(step))])
    }
    #expect(try done.wait(for: 100, timeoutNanoseconds: 60_000_000_000))
    #expect(try done.value == 100)
    #expect(counters.words(64) == [UInt32](repeating: 100, count: 64))
  }

  @Test func aSubmissionWaitsForTheHost() throws {
    let device = try TestDevice.open()
    let counters = try device.makeBuffer(byteCount: 256, memory: .download, label: "counters")
    counters.write([UInt32](repeating: 0, count: 64))
    let commands = try incrementer(device, counters, reusable: true)
    let go = try device.makeSemaphore()
    let done = try device.makeSemaphore()
    try device.computeQueue.submit([commands], wait: [(go, 1)], signal: [(done, 1)])
    #expect(try !done.wait(for: 1, timeoutNanoseconds: 20_000_000))
    #expect(try done.value == 0)
    counters.write([UInt32](repeating: 41, count: 64))
    try go.signal(1)
    #expect(try done.wait(for: 1, timeoutNanoseconds: 60_000_000_000))
    #expect(counters.words(64) == [UInt32](repeating: 42, count: 64))
  }

  @Test func recordingAgainWaitsForTheDevice() throws {
    let device = try TestDevice.open()
    let count = 1 << 22
    let filled = try device.makeBuffer(byteCount: count, memory: .download, label: "filled")
    let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: true)
    for value in 1...20 {
      try commands.begin()
      if value > 1 { #expect(filled.words(count / 4).last == UInt32(value - 1)) }
      commands.fill(filled, offset: 0, byteCount: count, value: UInt32(value))
      commands.barrierToHost()
      try commands.end()
      try device.computeQueue.submit([commands])
    }
    try device.waitIdle()
  }

  @Test func semaphoresOrderTwoQueues() throws {
    let device = try TestDevice.open()
    let source = try device.makeBuffer(byteCount: 256, memory: .upload, label: "source")
    let local = try device.makeBuffer(byteCount: 256, memory: .device, label: "local")
    let result = try device.makeBuffer(byteCount: 256, memory: .download, label: "result")
    source.write([UInt32](repeating: 10, count: 64))
    let upload = try device.makeCommandBuffer(queue: device.transferQueue, reusable: false)
    try upload.begin()
    upload.copy(from: source, offset: 0, to: local, offset: 0, byteCount: 256)
    try upload.end()
    let increment = try incrementer(device, local, reusable: false)
    let download = try device.makeCommandBuffer(queue: device.transferQueue, reusable: false)
    try download.begin()
    download.copy(from: local, offset: 0, to: result, offset: 0, byteCount: 256)
    download.barrierToHost()
    try download.end()
    let uploaded = try device.makeSemaphore()
    let done = try device.makeSemaphore()
    try device.transferQueue.submit([upload], signal: [(uploaded, 1)])
    try device.computeQueue.submit([increment], wait: [(uploaded, 1)], signal: [(done, 1)])
    try device.transferQueue.submit([download], wait: [(done, 1)], signal: [(done, 2)])
    #expect(try done.wait(for: 2, timeoutNanoseconds: 60_000_000_000))
    #expect(result.words(64) == [UInt32](repeating: 11, count: 64))
  }

  @Test func theQueueHoldsWhatItRuns() throws {
    let device = try TestDevice.open()
    let go = try device.makeSemaphore()
    let result = try device.makeBuffer(byteCount: 1 << 16, memory: .download, label: "result")
    do {
      let source = try device.makeBuffer(byteCount: 1 << 16, memory: .upload, label: "source")
      source.write([UInt32](repeating: 6, count: 1 << 14))
      let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: false)
      try commands.begin()
      commands.copy(from: source, offset: 0, to: result, offset: 0, byteCount: 1 << 16)
      commands.barrierToHost()
      try commands.end()
      try device.computeQueue.submit([commands], wait: [(go, 1)])
    }
    let whileRunning = device.allocatedBytes
    try go.signal(1)
    try device.waitIdle()
    #expect(result.words(1 << 14) == [UInt32](repeating: 6, count: 1 << 14))
    // On a discrete device host memory is not counted, on others the source buffer was.
    #expect(device.allocatedBytes <= whileRunning)
  }

  @Test func misuseIsAnError() throws {
    let device = try TestDevice.open()
    let counters = try device.makeBuffer(byteCount: 256, memory: .device, label: "counters")
    let once = try incrementer(device, counters, reusable: false)
    try device.computeQueue.submit([once])
    #expect(throws: VulkanError.self) { try device.computeQueue.submit([once]) }
    let unrecorded = try device.makeCommandBuffer(queue: device.computeQueue, reusable: true)
    #expect(throws: VulkanError.self) { try device.computeQueue.submit([unrecorded]) }
    #expect(throws: VulkanError.self) { try unrecorded.end() }
    let other = try TestDevice.open()
    let foreign = try incrementer(
      other, other.makeBuffer(byteCount: 256, memory: .device, label: "counters"), reusable: true)
    #expect(throws: VulkanError.self) { try device.computeQueue.submit([foreign]) }

    let pipeline = try device.scalePipeline(factor: 1)
    let constants = ScaleConstants(source: 0, destination: 0, count: 0, addend: 0)
    let recordings: [(CommandBuffer) -> Void] = [
      { $0.dispatch(pipeline, pushConstants: constants, groups: (0, 1, 1)) },
      { $0.dispatch(pipeline, pushConstants: constants, groups: (1, Int.max, 1)) },
      { $0.dispatch(pipeline, pushConstants: UInt32(0), groups: (1, 1, 1)) },
    ]
    for record in recordings {
      let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: false)
      try commands.begin()
      record(commands)
      #expect(throws: VulkanError.self) { try commands.end() }
    }
    try device.waitIdle()
  }

  @Test func aPhysicalDeviceIsOpenedTwice() throws {
    let devices = try [TestDevice.open(), TestDevice.open()]
    for (index, device) in devices.enumerated() {
      let counters = try device.makeBuffer(byteCount: 256, memory: .download, label: "counters")
      counters.write([UInt32](repeating: UInt32(index), count: 64))
      try device.computeQueue.submit([incrementer(device, counters, reusable: false)])
      try device.waitIdle()
      #expect(counters.words(64) == [UInt32](repeating: UInt32(index) + 1, count: 64))
    }
  }
}
