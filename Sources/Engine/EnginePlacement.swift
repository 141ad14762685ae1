import Glibc
import Kernels
import ModelFiles
import Placement
import Transformer
import VulkanRuntime

/// Where weights may be when the device has no room for all.
public typealias WeightsFrom = Placement.WeightsFrom

/// How much memory a run may take, and where weights come from that it leaves no room for on the device.
public struct MemoryOptions: Sendable {
  /// Most bytes of device memory; nil takes what is free.
  public var device: Int?
  /// Most bytes of host memory for weights; nil takes most of what is free.
  public var host: Int?
  public var weightsFrom = WeightsFrom.auto
  /// Copies of weights that may be under way ahead of the one that is computed with; nil for as many as it takes for the
  /// device not to wait, within the room that there is.
  public var prefetch: Int?
  /// Where keys and values are that the device has no room for.
  public var kvOffload = KVOffload.auto

  public init() {}

  /// Whether anything is asked for.
  package var isGiven: Bool { device != nil || host != nil || weightsFrom != .auto || prefetch != nil }

  /// What may be taken on a device that has `available` bytes left.
  package func budget(available: Int) -> MemoryBudget {
    MemoryBudget(
      device: min(device ?? available, available), host: host ?? Self.freeHostMemory, from: weightsFrom)
  }

  /// Four fifths of what the system says could be taken now.
  private static var freeHostMemory: Int {
    let pages = sysconf(Int32(_SC_AVPHYS_PAGES))
    let fallback = pages > 0 ? pages * sysconf(Int32(_SC_PAGESIZE)) : 4 << 30
    guard let file = fopen("/proc/meminfo", "r") else { return fallback / 5 * 4 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, Int32(line.count), file) != nil {
      let text = line.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
      guard text.hasPrefix("MemAvailable:") else { continue }
      let digits = text.filter { ("0"..."9").contains($0) }
      return (Int(digits) ?? 0) * 1024 / 5 * 4
    }
    return fallback / 5 * 4
  }
}

/// What a step may ask for and where weights are, where the device has no room for all.
package struct StreamedPlacement: Sendable {
  package var weights: WeightPlacement
  package var promptChunk: Int
  package var limits: StepLimits

  /// Takes as many tokens of a prompt at once as memory allows: each step brings all weights that stream.
  ///
  /// - Parameters:
  ///   - cacheBytes: what keys and values take.
  ///   - sharedBytes: what the device gives to a mesh, for steps with such limits.
  ///   - limits: what a step with chunks of so many tokens of prompts may ask for.
  package init(
    program: Program, source: any TensorSource, memory: MemoryOptions, available: Int, cacheBytes: Int,
    chunk: Int, traits: DeviceTraits, sharedBytes: (StepLimits) -> Int = { _ in 0 },
    limits: (Int) -> StepLimits
  ) throws {
    let budget = memory.budget(available: available)
    func workspace(_ chunk: Int) -> Int {
      Workspace.byteCount(program: program, limits: limits(chunk), traits: traits)
        + sharedBytes(limits(chunk))
    }
    func place(_ chunk: Int) throws -> WeightPlacement {
      try WeightPlacement(
        program: program, source: source, budget: budget, fixed: cacheBytes + workspace(chunk),
        prefetch: memory.prefetch, rowInterleave: traits.rowInterleave)
    }
    var chunks = [chunk]
    while let last = chunks.last, last > Self.leastChunk { chunks.append(max(last / 2, Self.leastChunk)) }
    let (least, leastChunk) = (try place(chunks[chunks.count - 1]), chunks[chunks.count - 1])
    (weights, promptChunk) = (least, leastChunk)
    // Activations take memory from weights that could stay. A prompt is done in as many passes over the weights as it
    // has chunks, so that is well spent as long as steps of a token do not get slower by much.
    for chunk in chunks.dropLast() {
      guard let placed = try? place(chunk) else { continue }
      if workspace(chunk) <= max(0, budget.device - cacheBytes) / 4
        || placed.copiedBytes <= least.copiedBytes + least.copiedBytes / 20
      {
        (weights, promptChunk) = (placed, chunk)
        break
      }
    }
    self.limits = limits(promptChunk)
  }

  /// Tokens of a prompt that are taken at once even where that is all there is room for.
  private static let leastChunk = 16
}

/// The most memory that this process has had, in bytes; nil where the system does not say.
public func peakHostMemory() -> Int? {
  guard let file = fopen("/proc/self/status", "r") else { return nil }
  defer { fclose(file) }
  var line = [CChar](repeating: 0, count: 256)
  while fgets(&line, Int32(line.count), file) != nil {
    let text = line.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    guard text.hasPrefix("VmHWM:") else { continue }
    return Int(text.filter { ("0"..."9").contains($0) }).map { $0 * 1024 }
  }
  return nil
}
