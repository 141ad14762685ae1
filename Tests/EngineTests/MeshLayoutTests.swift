import Testing
import Transformer

@testable import Kernels

/// Where the devices of a mesh leave things for one another, for homes of any kind.
struct MeshLayoutTests {
  /// A mesh, and the home of each device.
  static let cases: [(MeshShape, MeshMemory, [Int])] = [
    (MeshShape(tensor: 2), .host, [0, 0]),
    (MeshShape(tensor: 2), .device, [0, 0]),
    (MeshShape(tensor: 2), .device, [0, 1]),
    (MeshShape(pipeline: 2), .device, [0, 1]),
    (MeshShape(tensor: 2, pipeline: 2), .device, [0, 1, 2, 3]),
    (MeshShape(tensor: 2, pipeline: 2), .device, [0, 0, 1, 1]),
    (MeshShape(tensor: 2, pipeline: 2), .device, [0, 1, 0, 1]),
    (MeshShape(tensor: 2, pipeline: 2), .host, [0, 0, 0, 0]),
  ]

  @Test(arguments: cases)
  func placesAreApart(_ mesh: MeshShape, _ memory: MeshMemory, _ of: [Int]) throws {
    let programs = try MeshTests.model("llama").program.shared(over: mesh)
    let homes = MeshHomes(memory: memory, of: of)
    let limits = StepLimits(rows: 20, outputs: 3, sequences: 5, pagesPerSequence: 2)
    let layout = MeshLayout(programs: programs, homes: homes, limits: limits, slotCount: 3)
    let rankBytes = 4 * layout.rankStride
    #expect(layout.rankStride >= limits.rows * programs[0].width)
    for home in 0..<homes.count {
      var places: [(name: String, range: Range<Int>)] = []
      func add(_ name: String, _ start: Int, _ count: Int) { places.append((name, start..<start + count)) }
      add("tokens", 0, 4 * limits.sequences)
      add("counts", layout.boardOffset, MeshSignals.boardBytes(deviceCount: mesh.deviceCount))
      for stage in 0..<mesh.pipeline {
        // Whoever reads at home finds a place there.
        guard mesh.ranks(ofStage: stage).contains(where: { of[$0] == home }) else { continue }
        for rank in 0..<mesh.tensor where mesh.tensor > 1 {
          for region in [0, 1, MeshLayout.embeddingRegion] {
            add(
              "part \(stage) \(region) \(rank)",
              layout.parts(home: home, stage: stage, region: region, rank: rank), rankBytes)
          }
        }
        for slot in 0..<3 where stage > 0 {
          add("link \(stage) \(slot)", layout.link(home: home, into: stage, slot: slot), rankBytes)
        }
      }
      if home == of[mesh.sampler], mesh.tensor > 1 {
        for rank in 0..<mesh.tensor {
          add("logits \(rank)", layout.logits(rank: rank), 4 * limits.outputs * layout.logitsStride)
        }
      }
      for (index, place) in places.enumerated() {
        #expect(place.range.upperBound <= layout.byteCount(home: home), "\(place.name)")
        #expect(place.range.lowerBound % 16 == 0, "\(place.name)")
        for other in places[..<index] {
          #expect(!place.range.overlaps(other.range), "\(place.name), \(other.name)")
        }
      }
    }
    // A home is its first device's; host memory is no device's.
    let owned = mesh.indices.map { layout.ownedBytes(device: $0) }
    let all = (0..<homes.count).reduce(0) { $0 + layout.byteCount(home: $1) }
    #expect(owned.reduce(0, +) == (memory == .host ? 0 : all))
  }

  @Test func whatSeveralReadIsLeftInEachHomeOnce() {
    let homes = MeshHomes(memory: .device, of: [0, 1, 0, 1])
    #expect(homes.count == 2 && homes.owner(1) == 1)
    #expect(
      homes.homes(of: 0..<2) == [0, 1] && homes.homes(of: 2..<3) == [0] && homes.homes(of: 0..<0) == [])
    #expect(!homes.areOneDevice && MeshHomes(memory: .device, of: [0, 0]).areOneDevice)
    // Host memory wants barriers that device memory does not.
    #expect(!MeshHomes(memory: .host, of: [0, 0]).areOneDevice)
  }
}

extension MeshShape {
  fileprivate var indices: Range<Int> { 0..<deviceCount }
}
