import CShaderInterface
import Kernels
import VulkanRuntime

/// What a device can do at best, and what its commands cost.
package struct DeviceFigures {
  let benchmark: BenchmarkDevice
  let repetitions: Int
  /// Whether a figure of that name is wanted.
  let wants: (String) -> Bool

  package init(benchmark: BenchmarkDevice, repetitions: Int, wants: @escaping (String) -> Bool) {
    self.benchmark = benchmark
    self.repetitions = repetitions
    self.wants = wants
  }

  /// Measures what is wanted, and hands over each figure as it comes.
  package func run(_ onFigure: (KernelFigure) throws -> Void) throws {
    try transfers(onFigure)
    try dispatches(onFigure)
    try submissions(onFigure)
  }

  // MARK: Memory

  private func transfers(_ onFigure: (KernelFigure) throws -> Void) throws {
    let bandwidth = Bandwidth(benchmark: benchmark, repetitions: repetitions)
    let kinds = ["device read", "device copy", "device vkCmdCopyBuffer"]
    func name(_ kind: String, _ variant: Bandwidth.Variant) -> String {
      "\(kind), \(variant.threads) threads x \(variant.loads) loads"
    }
    let names = bandwidth.variants.flatMap { variant in kinds.map { name($0, variant) } } + kinds
    if names.contains(where: wants) {
      let source = try bandwidth.randomBuffer(parts: 2)
      let bytes = Double(source.byteCount)
      for variant in bandwidth.variants where wants(name(kinds[0], variant)) {
        let speed = try bandwidth.read(variant, from: source)
        try onFigure(figure(name(kinds[0], variant), speed, bytes: bytes))
      }
      let destination = try benchmark.device.makeBuffer(
        byteCount: source.byteCount, memory: .device, label: "memory to be written")
      for variant in bandwidth.variants where wants(name(kinds[1], variant)) {
        let speed = try bandwidth.copy(variant, from: source, to: destination)
        try onFigure(figure(name(kinds[1], variant), speed, bytes: 2 * bytes))
      }
      if wants(kinds[2]) {
        let seconds = try copySeconds(from: source, to: destination)
        try onFigure(
          KernelFigure(name: kinds[2], microseconds: seconds.map { $0 * 1e6 }, bytes: 2 * bytes))
      }
    }
    for (name, upward) in [("host to device", true), ("device to host", false)] where wants(name) {
      let byteCount = benchmark.traits.isCPU ? 64 << 20 : 256 << 20
      let host = try benchmark.device.makeBuffer(
        byteCount: byteCount, memory: upward ? .upload : .download, label: "host memory")
      let local = try benchmark.device.makeBuffer(
        byteCount: byteCount, memory: .device, label: "device memory")
      try benchmark.fill((upward ? host : local).address, byteCount: byteCount, keepAlive: [host, local])
      let seconds = try copySeconds(from: upward ? host : local, to: upward ? local : host)
      try onFigure(
        KernelFigure(name: name, microseconds: seconds.map { $0 * 1e6 }, bytes: Double(byteCount)))
    }
  }

  private func figure(_ name: String, _ bytesPerSecond: Samples, bytes: Double) -> KernelFigure {
    KernelFigure(name: name, microseconds: bytesPerSecond.map { bytes / $0 * 1e6 }, bytes: bytes)
  }

  private func copySeconds(from source: Buffer, to destination: Buffer) throws -> Samples {
    try benchmark.time(repetitions: repetitions) { commands in
      commands.copy(from: source, offset: 0, to: destination, offset: 0, byteCount: source.byteCount)
    }.seconds
  }

  // MARK: Commands

  private func dispatches(_ onFigure: (KernelFigure) throws -> Void) throws {
    for groups in [1, 128, 1024] {
      for dependent in [true, false] {
        let name =
          "dispatch of \(groups) workgroup\(groups == 1 ? "" : "s"), "
          + (dependent ? "barrier behind each" : "no barriers between")
        guard wants(name) else { continue }
        let (pipeline, memory) = try idleKernel(dispatches: dependent ? 1 : Self.chain, groups: groups)
        let seconds = try benchmark.time(repetitions: repetitions, keepAlive: [memory]) { commands in
          for index in 0..<Self.chain {
            let offset = dependent ? 0 : UInt64(16 * groups * index)
            commands.dispatch(
              pipeline, pushConstants: TransferPush(source: 0, destination: memory.address + offset),
              groups: (groups, 1, 1))
            if dependent { commands.barrier() }
          }
        }.seconds
        try onFigure(
          KernelFigure(name: name, microseconds: seconds.map { $0 * 1e6 / Double(Self.chain) }))
      }
    }
  }

  private func submissions(_ onFigure: (KernelFigure) throws -> Void) throws {
    let (device, queue) = (benchmark.device, benchmark.device.computeQueue)
    let (submitName, recordName) = (
      "submit and wait, host time", "record a dispatch and a barrier, host time"
    )
    guard wants(submitName) || wants(recordName) else { return }
    let (pipeline, memory) = try idleKernel(dispatches: 1, groups: 1)
    let commands = try device.makeCommandBuffer(queue: queue, reusable: true)
    func record(_ count: Int) throws {
      try commands.begin()
      commands.keepAlive([memory])
      for _ in 0..<count {
        commands.dispatch(
          pipeline, pushConstants: TransferPush(source: 0, destination: memory.address), groups: (1, 1, 1))
        commands.barrier()
      }
      try commands.end()
    }
    func hostMicroseconds(_ count: Int, _ body: () throws -> Void) throws -> Samples {
      try benchmark.repeated(repetitions) {
        let start = ContinuousClock.now
        try body()
        return (ContinuousClock.now - start) / .seconds(1) * 1e6 / Double(count)
      }
    }
    if wants(submitName) {
      try record(1)
      let times = try hostMicroseconds(100) {
        for _ in 0..<100 {
          try queue.submit([commands])
          try queue.waitIdle()
        }
      }
      try onFigure(KernelFigure(name: submitName, microseconds: times))
    }
    if wants(recordName) {
      let times = try hostMicroseconds(Self.chain) { try record(Self.chain) }
      try onFigure(KernelFigure(name: recordName, microseconds: times))
    }
  }

  /// Dispatches in a row, of which one's share is reported.
  private static let chain = 500

  private func idleKernel(dispatches: Int, groups: Int) throws -> (Pipeline, Buffer) {
    let pipeline = try benchmark.cache.pipeline(
      "idle", specialization: [UInt32(benchmark.traits.invocations(benchmark.traits.subgroupSize))],
      pushConstantBytes: MemoryLayout<TransferPush>.size, subgroupSize: benchmark.traits.subgroupSize)
    let memory = try benchmark.device.makeBuffer(
      byteCount: 16 * groups * dispatches, memory: .device, label: "memory of idle kernels")
    return (pipeline, memory)
  }
}
