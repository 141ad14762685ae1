import Engine
import Kernels
import Transformer
import VulkanRuntime

/// How long collectives take between devices.
package final class CollectiveBenchmark {
  private let instance: VulkanInstance
  private let devices: [Device]
  private let caches: [KernelCache]
  /// Operations of a submission, so that what that costs is small beside them; fewer where they are large.
  private static let most = 32
  /// Bytes that all repetitions of a submission may have.
  private static let mostBytes = 64 << 20

  /// - Parameter specs: devices by index or part of the name; the same one may be there several times.
  package init(devices specs: [String], pipelineDirectory: String?) throws {
    let instance = try VulkanInstance()
    self.instance = instance
    devices = try Device.open(
      instance: instance,
      physicals: try specs.map { try DeviceSelection.select(spec: $0, from: instance.physicalDevices) },
      pipelineCacheDirectory: pipelineDirectory)
    caches = devices.map { KernelCache(device: $0) }
  }

  /// Which memory and paths between the devices work.
  package func trial(memory: MeshMemory?, path: MeshPath?) throws -> MeshTrial {
    try MeshTrial(devices: devices, caches: caches, memory: memory, path: path, isThorough: true)
  }

  /// What the link between devices does, by a transport.
  package struct Link: Sendable {
    /// Seconds of an all-reduce of next to nothing.
    package var latency: Double
    /// Bytes a second that each device passes to another while all do.
    package var rate: Double

    package init(latency: Double, rate: Double) {
      self.latency = latency
      self.rate = rate
    }

    /// Seconds of a collective, by these two figures alone.
    package func seconds(_ collective: Collective, byteCount: Int, ranks: Int) -> Double {
      Double(collective.meetings) * latency
        + collective.traffic(ranks: ranks) * Double(byteCount) / rate
    }
  }

  private static let linkBytes = 8 << 20

  package func link(
    _ transport: MeshTransport, repetitions: Int, checkpoint: () throws -> Void
  ) throws -> Link {
    let latency = try run(
      .allReduce, byteCount: 1, transport: transport, repetitions: repetitions, checkpoint: checkpoint
    ).seconds.median
    let large = try run(
      .sendReceive, byteCount: Self.linkBytes, transport: transport, repetitions: repetitions,
      checkpoint: checkpoint)
    return Link(
      latency: latency, rate: Double(large.byteCount) / max(large.seconds.median - latency, 1e-9))
  }

  /// Seconds of one operation with `byteCount` bytes of float32 for each rank, and its bytes: a whole number of quads
  /// for each rank.
  package func run(
    _ collective: Collective, byteCount: Int, transport: MeshTransport, repetitions: Int,
    checkpoint: () throws -> Void
  ) throws -> (seconds: Samples, byteCount: Int, traffic: Double) {
    let unit = 16 * devices.count
    let byteCount = max(unit, byteCount / unit * unit)
    let group = try CollectiveGroup(
      devices: devices, caches: caches, floats: byteCount / 4, transport: transport)
    let count = max(1, min(Self.most, Self.mostBytes / byteCount))
    let recording = try group.record(collective, count: byteCount / 4, repetitions: count)
    let start = ContinuousClock.now
    repeat {
      try checkpoint()
      _ = try group.run(recording)
    } while ContinuousClock.now - start < .milliseconds(400)
    let seconds = try (0..<repetitions).map { _ in
      try checkpoint()
      return try group.run(recording)
    }
    return (Samples(seconds), byteCount, collective.traffic(ranks: devices.count))
  }
}
