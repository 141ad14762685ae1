import VulkanRuntime

extension Device {
  /// Measures how fast the link copies from host memory to the device's: bytes a second. Nothing may be in flight.
  func linkRate(from source: Buffer, to destination: Buffer) throws -> Double {
    let byteCount = min(destination.byteCount, source.byteCount, 64 << 20)
    let commands = try makeCommandBuffer(queue: transferQueue, reusable: true)
    try commands.begin()
    for _ in 0..<4 {
      commands.copy(from: source, offset: 0, to: destination, offset: 0, byteCount: byteCount)
      commands.barrier()
    }
    try commands.end()
    try waitIdle()
    var rate = 0.0
    var runs = 0
    // A GPU that was idle takes some 0.3 s to bring its clocks up, and what it copies until then says little.
    let end = ContinuousClock.now + (physical.kind == .cpu ? .zero : .milliseconds(350))
    while runs < 2 || ContinuousClock.now < end {
      let start = ContinuousClock.now
      try transferQueue.submit([commands])
      try transferQueue.waitIdle()
      rate = max(rate, Double(4 * byteCount) / ((ContinuousClock.now - start) / .seconds(1)))
      runs += 1
    }
    return rate
  }
}
