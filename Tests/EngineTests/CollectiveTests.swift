import Kernels
import ModelFiles
import Testing
import Transformer
import VulkanRuntime

@testable import Engine

/// Collectives over several logical devices of a CPU driver against sums in double precision.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct CollectiveTests {
  static func devices(_ count: Int) throws -> [Device] {
    let instance = try VulkanInstance()
    let physical = try DeviceSelection.select(spec: TestModels.cpuDriver, from: instance.physicalDevices)
    return try Device.open(
      instance: instance, physicals: Array(repeating: physical, count: count), pipelineCacheDirectory: nil)
  }

  /// What rank `rank` must have, from the inputs of all.
  static func expected(_ collective: Collective, _ inputs: [[Float]], rank: Int) -> [Double] {
    let (ranks, count) = (inputs.count, inputs[0].count)
    let part = count / ranks
    func sum(_ index: Int) -> Double { inputs.reduce(0) { $0 + Double($1[index]) } }
    return switch collective {
    case .allReduce, .scatteredAllReduce: (0..<count).map(sum)
    case .reduceScatter: (rank * part..<(rank + 1) * part).map(sum)
    case .allGather: inputs.flatMap { $0.prefix(part).map { Double($0) } }
    case .allToAll: inputs.flatMap { $0[rank * part..<(rank + 1) * part].map { Double($0) } }
    case .broadcast: inputs[0].map { Double($0) }
    case .sendReceive: inputs[(rank + ranks - 1) % ranks].map { Double($0) }
    }
  }

  /// Where devices leave things for one another: homes of their own are what several physical devices have, and host
  /// memory of which they may find what they read last.
  enum Home: CaseIterable {
    case host, device, own, cached

    var memory: MeshMemory { self == .host || self == .cached ? .host : .device }
    var isApart: Bool { self == .own || self == .cached }

    func group(_ devices: [Device], floats: Int, path: MeshPath) throws -> CollectiveGroup {
      try CollectiveGroup(
        devices: devices, caches: devices.map { KernelCache(device: $0) }, floats: floats,
        transport: MeshTransport(memory: memory, path: path), areApart: isApart)
    }
  }

  @Test(arguments: [
    (2, Home.host, MeshPath.flags), (2, .device, .flags), (2, .own, .flags), (2, .host, .threads),
    (3, .device, .threads), (3, .own, .threads), (2, .cached, .flags), (3, .cached, .threads),
    (2, .cached, .threads),
  ])
  func everyoneGetsWhatTheReferenceSays(_ ranks: Int, _ home: Home, _ path: MeshPath) throws {
    let devices = try Self.devices(ranks)
    // The second is of several segments, the last of them shorter.
    let counts = [16 * ranks, (1 << 20) / ranks / 4 * 4 * ranks + 52 * ranks]
    let group = try home.group(devices, floats: counts[1], path: path)
    var random = SplitMix64(state: UInt64.random(in: 0 ... .max))
    for count in counts {
      let inputs = (0..<ranks).map { _ in (0..<count).map { _ in Float.random(in: -1...1, using: &random) } }
      for collective in Collective.allCases {
        for rank in 0..<ranks { try group.write(inputs[rank], rank: rank) }
        _ = try group.run(try group.record(collective, count: count, repetitions: 3, mostPlaces: 2))
        var results: [[Float]] = []
        for rank in 0..<ranks {
          let expected = Self.expected(collective, inputs, rank: rank)
          let found = try group.read(expected.count, rank: rank)
          results.append(found)
          let error = zip(found, expected).reduce(0.0) { $0 + ($1.0.double - $1.1) * ($1.0.double - $1.1) }
          let norm = expected.reduce(0.0) { $0 + $1 * $1 }
          #expect(error <= 1e-12 * norm, "\(collective.rawValue) of \(count) on rank \(rank)")
        }
        if collective == .allReduce || collective == .scatteredAllReduce {
          #expect(results.allSatisfy { $0 == results[0] }, "\(collective.rawValue): the same bits everywhere")
        }
      }
    }
  }

  /// Outputs of one are inputs of the next: whoever reads too early gets other sums.
  @Test(arguments: Home.allCases)
  func nobodyIsEarly(_ home: Home) throws {
    let devices = try Self.devices(2)
    let group = try home.group(devices, floats: 4096, path: .flags)
    let recording = try group.record(.allReduce, count: 4096, repetitions: 20, isChained: true, mostPlaces: 5)
    for round in 0..<20 {
      for rank in 0..<2 { try group.write((0..<4096).map { Float($0 % 16 + rank + round) }, rank: rank) }
      _ = try group.run(recording)
      for rank in 0..<2 {
        let found = try group.read(4096, rank: rank, ofInputs: true)
        #expect(found == (0..<4096).map { Float((1 << 19) * (2 * ($0 % 16 + round) + 1)) })
      }
    }
  }

  /// One device never comes: the other's kernel stops looking for it.
  @Test(arguments: Home.allCases)
  func waitsEnd(_ home: Home) throws {
    let devices = try Self.devices(2)
    let group = try home.group(devices, floats: 4096, path: .flags)
    let recording = try group.record(.allReduce, count: 4096)
    _ = try group.run(recording)
    let never = try devices[1].makeSemaphore()
    try devices[1].computeQueue.submit([], wait: [(never, 1)])
    let start = ContinuousClock.now
    let error = #expect(throws: EngineError.self) {
      try group.run(recording, limit: .milliseconds(200))
    }
    #expect(error?.description.contains("not done in time") == true)
    #expect(ContinuousClock.now - start < .seconds(10))
    try devices[0].waitIdle()
    try never.signal(1)
  }
}

extension Float {
  fileprivate var double: Double { Double(self) }
}
