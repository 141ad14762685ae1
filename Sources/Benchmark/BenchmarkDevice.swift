import Engine
import Kernels
import VulkanRuntime

/// A device on which things are timed.
package final class BenchmarkDevice {
  package let device: Device
  /// The kernels of usual steps.
  package let cache: KernelCache
  /// Those of other methods, by method.
  private var otherCaches: [StepMethod: KernelCache] = [:]
  package var traits: DeviceTraits { cache.traits }
  private let instance: VulkanInstance
  /// Called now and then; throws to end the work.
  private let checkpoint: () throws -> Void

  /// A device that idles is slow: it is given this much work before each figure.
  private static let warmUp = Duration.milliseconds(400)

  /// - Parameters:
  ///   - spec: the device, by index or part of its name; nil takes the best.
  ///   - pipelineDirectory: where compiled pipelines are kept between runs; nil keeps none.
  ///   - captureStatistics: whether the driver is asked for registers and the like.
  package init(
    spec: String?, pipelineDirectory: String?, captureStatistics: Bool = false,
    checkpoint: @escaping () throws -> Void = {}
  ) throws {
    instance = try VulkanInstance()
    let physical = try DeviceSelection.select(spec: spec, from: instance.physicalDevices)
    device = try Device(
      instance: instance, physical: physical, pipelineCacheDirectory: pipelineDirectory,
      captureStatistics: captureStatistics)
    cache = KernelCache(device: device)
    self.checkpoint = checkpoint
  }

  package var name: String { device.physical.name }

  /// The kernels of steps that are computed in that way.
  func cache(for method: StepMethod) -> KernelCache {
    if method.isUsual { return cache }
    if let known = otherCaches[method] { return known }
    let made = KernelCache(device: device, method: method)
    otherCaches[method] = made
    return made
  }

  /// Whether the device can compute steps in that way.
  ///
  /// - Throws: `KernelError.unsupported` where it lacks what products of many tokens are to be computed on.
  package func check(_ method: StepMethod) throws {
    try cache(for: method).checkMethod()
  }

  /// Messages of a Vulkan validation layer so far; 0 without one.
  package var validationMessageCount: Int { instance.validationMessageCount }

  /// Bytes of device memory that can still be taken.
  package var availableMemory: Int { Engine.availableMemory(device.physical) }

  /// `body` over and over until the device's clock is up, at least once. Where kernels are compiled, for seconds in which
  /// the device idles and its clock falls, it counts from then on.
  package func warmUp(_ body: () throws -> Void) throws {
    var start = ContinuousClock.now
    var compiled = device.pipelinesMade.count
    repeat {
      try checkpoint()
      try body()
      if device.pipelinesMade.count != compiled {
        compiled = device.pipelinesMade.count
        start = .now
      }
    } while ContinuousClock.now - start < Self.warmUp
  }

  /// The results of `repetitions` calls of `body`, once the device's clock is up.
  package func repeated(_ repetitions: Int, _ body: () throws -> Double) throws -> Samples {
    try warmUp { _ = try body() }
    return Samples(
      try (0..<repetitions).map { _ in
        try checkpoint()
        return try body()
      })
  }

  /// Device seconds of what `record` records, from the end of what was before to its own end.
  ///
  /// It is recorded once and submitted again and again; on a device without timestamps the host's clock must do.
  package func time(
    repetitions: Int, keepAlive buffers: [Buffer] = [], record: (CommandBuffer) throws -> Void
  ) throws -> Timing {
    try time(repetitions: repetitions, keepAlive: buffers) { commands, end in
      try record(commands)
      end()
    }
  }

  /// The same up to the call of `end`, which `record` makes once.
  ///
  /// - Parameter isWarm: whether the device's clock is up already.
  package func time(
    repetitions: Int, keepAlive buffers: [Buffer] = [], isWarm: Bool = false,
    record: (_ commands: CommandBuffer, _ end: () -> Void) throws -> Void
  ) throws -> Timing {
    let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: true)
    let pool = device.capabilities.timestampBits > 0 ? try device.makeTimestampPool(count: 2) : nil
    try commands.begin()
    commands.keepAlive(buffers)
    if let pool {
      commands.resetTimestamps(pool)
      commands.writeTimestamp(pool, index: 0)
    }
    try record(commands) { if let pool { commands.writeTimestamp(pool, index: 1) } }
    try commands.end()
    func run() throws -> Double {
      let start = ContinuousClock.now
      try device.computeQueue.submit([commands])
      try device.computeQueue.waitIdle()
      return try pool.map { try $0.read()[1] * 1e-9 } ?? (ContinuousClock.now - start) / .seconds(1)
    }
    // The first run of anything pays for what others find ready.
    if isWarm { _ = try run() } else { try warmUp { _ = try run() } }
    let seconds = Samples(
      try (0..<repetitions).map { _ in
        try checkpoint()
        return try run()
      })
    return Timing(seconds: seconds, pipelines: commands.usedPipelines)
  }

  /// Runs what `record` records, once, and waits for it.
  package func run(keepAlive buffers: [Buffer] = [], _ record: (CommandBuffer) throws -> Void) throws {
    try device.run { commands in
      commands.keepAlive(buffers)
      try record(commands)
      commands.barrier()
    }
  }
}

/// What a recording took, and what ran in it.
package struct Timing {
  package var seconds: Samples
  package var pipelines: [Pipeline]
}

extension BenchmarkDevice {
  /// How products are cut on this device, as far as that was measured.
  package var tuningTexts: [String] {
    ([cache] + otherCaches.values).flatMap(\.tuning.texts).sorted()
  }

  /// Every kernel variant made so far: the shader and what its constants stand for.
  package var variantTexts: [String] {
    ([cache] + otherCaches.values).flatMap(\.made).map(\.variant.text).sorted()
  }
}
