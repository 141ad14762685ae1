import Kernels
import Transformer
import VulkanRuntime

/// Finds out how devices had best wait for one another.
///
/// Kernels that look at counts in shared memory need devices that really run at the same time, and see what others write
/// to host memory while they run. No rule of Vulkan says so, so it is tried: in a bounded time, with all devices of the mesh.
package struct MeshTrial {
  package let path: MeshPath
  /// What was found, in a line.
  package let text: String
  /// All paths that work, of those tried.
  package let working: [MeshPath]

  private static let count = 4096
  private static let repetitions = 24
  private static let limit = Duration.milliseconds(700)

  /// - Parameters:
  ///   - wanted: the path to take; nil takes the fastest of those that work.
  ///   - waitsLong: whether devices wait for whole stages of others: kernels should not spend that time looking.
  /// - Throws: when the path that is wanted does not work.
  package init(
    devices: [Device], caches: [KernelCache], wanted: MeshPath?, waitsLong: Bool = false
  ) throws {
    // On a CPU driver whoever looks takes the time of whoever computes.
    let mayLook = wanted == .flags || (!waitsLong && devices.allSatisfy { $0.physical.kind != .cpu })
    var found: [(path: MeshPath, seconds: Double)] = []
    var failures: [String] = []
    for path in MeshPath.allCases where wanted == nil || path == wanted {
      do {
        found.append((path, try Self.seconds(path, devices: devices, caches: caches)))
      } catch {
        failures.append("\(path.rawValue): \(error)")
      }
    }
    guard
      let best = found.filter({ mayLook || $0.path != .flags }).min(by: { $0.seconds < $1.seconds })
    else {
      throw EngineError(
        .device,
        "the devices cannot work together (\(failures.joined(separator: "; "))); use another --mesh-path")
    }
    path = best.path
    working = found.map(\.path)
    text =
      "devices wait for one another by \(best.path.rawValue); an all-reduce of 16 KB takes "
      + found.map { "\(Int(($0.seconds * 1e6).rounded())) us by \($0.path.rawValue)" }.joined(separator: ", ")
      + failures.map { "; not by \($0)" }.joined()
  }

  /// Seconds of a small all-reduce.
  private static func seconds(
    _ path: MeshPath, devices: [Device], caches: [KernelCache]
  ) throws -> Double {
    if path == .flags, let device = devices.first(where: { !$0.capabilities.vulkanMemoryModel }) {
      throw EngineError(.device, "\(device.physical.name) lacks the Vulkan memory model")
    }
    let count = Self.count / (4 * devices.count) * 4 * devices.count
    let group = try CollectiveGroup(devices: devices, caches: caches, floats: count, path: path)
    // Pipelines are compiled at the first run.
    let first = try group.record(.allReduce, count: count)
    let chain = try group.record(.allReduce, count: count, repetitions: repetitions, isChained: true)
    var least = Double.infinity
    for round in 0..<4 {
      let value = Float(round + 1)
      for rank in devices.indices {
        try group.write((0..<count).map { value * Float($0 % 7 + rank) }, rank: rank)
      }
      // Only kernels that look can wait in vain; others may compile meanwhile.
      let limit = path == .flags ? Self.limit : .seconds(30)
      let seconds = try group.run(round == 0 ? first : chain, limit: limit)
      if round > 0 { least = min(least, seconds) }
      // Each repetition adds up what all ranks have, which is the same from the first one on.
      var factor: Float = 1
      for _ in 1..<(round == 0 ? 1 : repetitions) { factor *= Float(devices.count) }
      for rank in devices.indices {
        let values = try group.read(count, rank: rank, ofInputs: round > 0 && repetitions % 2 == 0)
        for (index, found) in values.enumerated() {
          let sum = devices.indices.reduce(Float(0)) { $0 + value * Float(index % 7 + $1) }
          guard abs(found - sum * factor) <= 1e-4 * abs(sum * factor) else {
            throw EngineError(.device, "device \(rank) got wrong sums")
          }
        }
      }
    }
    return least
  }
}
