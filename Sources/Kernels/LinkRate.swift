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
    for _ in 0..<(physical.kind == .cpu ? 2 : 6) {
      let start = ContinuousClock.now
      try transferQueue.submit([commands])
      try transferQueue.waitIdle()
      rate = max(rate, Double(4 * byteCount) / ((ContinuousClock.now - start) / .seconds(1)))
    }
    return rate
  }
}
