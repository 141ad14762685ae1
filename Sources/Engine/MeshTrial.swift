import Kernels
import Transformer
import VulkanRuntime

/// Finds out where devices had best leave things for one another, and how they wait for that.
///
/// Kernels that look at counts in shared memory need devices that really run at the same time, and see what others write
/// while they run; memory that one device exports must be what the other then reads. No rule of Vulkan says so, so it is
/// tried: in a bounded time, with all devices of the mesh.
package struct MeshTrial {
  package let transport: MeshTransport
  /// What was found, in a line.
  package let text: String
  /// All transports that work, of those tried.
  package let working: [MeshTransport]

  private static let count = 4096
  private static let repetitions = 24
  private static let limit = Duration.milliseconds(700)

  /// - Parameters:
  ///   - memory: the memory to take; nil takes the fastest of those that work.
  ///   - path: the path to take, likewise.
  ///   - waitsLong: whether devices wait for whole stages of others: kernels should not spend that time looking where
  ///     another device takes turns with this one.
  ///   - isThorough: whether all is tried, also what cannot be the best.
  /// - Throws: when nothing of what is wanted works.
  package init(
    devices: [Device], caches: [KernelCache], memory: MeshMemory?, path: MeshPath?, waitsLong: Bool = false,
    isThorough: Bool = false
  ) throws {
    let areCPUs = devices.allSatisfy { $0.physical.kind == .cpu }
    var found: [(transport: MeshTransport, seconds: Double)] = []
    var failures: [String] = []
    func fail(_ what: String) {
      // What is wrong with a path in one memory mostly is in all.
      if !failures.contains(what) { failures.append(what) }
    }
    // Those of one VkDevice are as near to one another as can be: its memory and counts in it are the best they have.
    let areSiblings = devices.allSatisfy { $0.isSibling(of: devices[0]) }
    // A kernel that looks keeps out what it looks for where logical devices of one GPU take turns.
    let runBeside = devices.allSatisfy { device in devices.allSatisfy(device.runsBeside) }
    let usualPaths = MeshPath.allCases.filter { $0 != .flags || areCPUs || runBeside || isThorough }
    for kind in memory.map({ [$0] }) ?? (areCPUs ? [.host, .device] : MeshMemory.allCases) {
      if areCPUs || areSiblings, memory == nil, !isThorough, !found.isEmpty { break }
      do {
        _ = try MeshHomes(memory: kind, devices: devices.map(\.physical)).allocate(devices: devices) { _ in 1
        }
      } catch {
        fail("\(kind.rawValue) memory: \(error)")
        continue
      }
      for path in path.map({ [$0] }) ?? usualPaths {
        let transport = MeshTransport(memory: kind, path: path)
        do {
          found.append((transport, try Self.seconds(transport, devices: devices, caches: caches)))
        } catch {
          fail("\(path.rawValue): \(error)")
        }
      }
    }
    // On a CPU driver, and where logical devices take turns, whoever looks takes the time of whoever computes.
    let mayLook =
      path == .flags || ((!waitsLong || runBeside) && !devices.contains { $0.physical.kind == .cpu })
    let usable = found.filter { mayLook || $0.transport.path != .flags }
    guard let best = areSiblings ? usable.first : usable.min(by: { $0.seconds < $1.seconds })
    else {
      let options =
        [memory == nil ? nil : "--mesh-memory", path == nil ? nil : "--mesh-path"].compactMap { $0 }
      throw EngineError(
        .device,
        "the devices cannot work together (\(failures.joined(separator: "; "))): "
          + (options.isEmpty ? "use one of them" : "leave out \(options.joined(separator: " and "))"))
    }
    transport = best.transport
    working = found.map(\.transport)
    text =
      "devices share \(best.transport.memory.rawValue) memory and wait for one another by "
      + "\(best.transport.path.rawValue); an all-reduce of 16 KB takes "
      + found.map { "\(Int(($0.seconds * 1e6).rounded())) us by \($0.transport.text)" }.joined(
        separator: ", ")
      + failures.map { "; not by \($0)" }.joined()
  }

  /// Seconds of a small all-reduce.
  private static func seconds(
    _ transport: MeshTransport, devices: [Device], caches: [KernelCache]
  ) throws -> Double {
    let looks = transport.path == .flags
    if looks, let device = devices.first(where: { !$0.capabilities.vulkanMemoryModel }) {
      throw EngineError(.device, "\(device.physical.name) lacks the Vulkan memory model")
    }
    let count = Self.count / (4 * devices.count) * 4 * devices.count
    let group = try CollectiveGroup(devices: devices, caches: caches, floats: count, transport: transport)
    // Pipelines are compiled at the first run.
    let first = try group.record(.allReduce, count: count)
    let chain = try group.record(.allReduce, count: count, repetitions: repetitions, isChained: true)
    // Memory that comes round often must not be found as it was; submissions wait behind others then.
    let tight = try group.record(
      .allReduce, count: count, repetitions: repetitions, isChained: true, mostPlaces: 6)
    let rounds = [first, tight, tight, chain, chain, chain]
    var least = Double.infinity
    for (round, recording) in rounds.enumerated() {
      let value = Float(round + 1)
      for rank in devices.indices {
        try group.write((0..<count).map { value * Float($0 % 7 + rank) }, rank: rank)
      }
      // Only kernels that look can wait in vain; others may compile meanwhile.
      let seconds = try group.run(recording, limit: looks ? Self.limit : .seconds(30))
      if round > 2 { least = min(least, seconds) }
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
