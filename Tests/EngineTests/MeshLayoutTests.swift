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

  @Test(arguments: cases, [false, true])
  func placesAreApart(_ of: (MeshShape, MeshMemory, [Int]), _ readsLast: Bool) throws {
    let (mesh, memory, of) = of
    let programs = try MeshTests.model("llama").program.shared(over: mesh)
    let homes = MeshHomes(memory: memory, of: of, readsLast: readsLast)
    let limits = StepLimits(rows: 20, outputs: 3, sequences: 5, pagesPerSequence: 2)
    let layout = MeshLayout(programs: programs, homes: homes, limits: limits, slotCount: 3)
    let rankBytes = 4 * limits.rows * layout.rowStride
    #expect(layout.rowStride >= programs[0].width)
    for home in 0..<homes.count {
      var places: [(name: String, range: Range<Int>)] = []
      func add(_ name: String, _ start: Int, _ count: Int) { places.append((name, start..<start + count)) }
      add("tokens", 0, 4 * limits.sequences)
      add("counts", layout.boardOffset, MeshSignals.boardBytes(deviceCount: mesh.deviceCount, homes: homes))
      for stage in 0..<mesh.pipeline {
        // Whoever reads at home finds a place there.
        guard mesh.ranks(ofStage: stage).contains(where: { of[$0] == home }) else { continue }
        for rank in 0..<mesh.tensor where mesh.tensor > 1 {
          for index in 0..<3 {
            let region = layout.region(ofReduce: index, rows: limits.rows)
            #expect(region.rankBytes >= rankBytes && !region.isUsedAgain)
            add(
              "part \(stage) \(index) \(rank)", layout.parts(home: home, stage: stage, region, rank: rank),
              rankBytes)
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

  /// Of few rows more go round before memory is used again; whoever may find what it read last is told.
  @Test func regionsGoRound() throws {
    let programs = try MeshTests.model("llama").program.shared(over: MeshShape(tensor: 2))
    let limits = StepLimits(rows: 16, outputs: 3, sequences: 5, pagesPerSequence: 2)
    let layout = MeshLayout(
      programs: programs, homes: MeshHomes(memory: .host, of: [0, 0], readsLast: true), limits: limits,
      slotCount: 3, ringBytes: 0)
    for (rows, turns) in [(16, 2), (8, 4), (1, 32)] {
      let regions = (0..<2 * turns + 2).map { layout.region(ofReduce: $0, rows: rows) }
      let bytes = 2 * regions[0].rankBytes
      for (index, region) in regions.enumerated() {
        #expect(region.isUsedAgain == (index > 1 && index % turns == 1 % turns))
        let place = layout.parts(home: 0, stage: 0, region, rank: 0)
        for (other, earlier) in regions[..<index].enumerated() {
          let isSame = other > 0 && (index - other) % turns == 0
          let distance = abs(layout.parts(home: 0, stage: 0, earlier, rank: 0) - place)
          #expect(isSame ? distance == 0 : distance >= bytes, "\(rows) rows: \(other), \(index)")
        }
        #expect(place + bytes <= layout.byteCount(home: 0))
      }
    }
  }

  /// Where devices find what is there, two places take turns, the same for every step: products know theirs beforehand.
  @Test func regionsTakeTurns() throws {
    let programs = try MeshTests.model("llama").program.shared(over: MeshShape(tensor: 2))
    let limits = StepLimits(rows: 16, outputs: 3, sequences: 5, pagesPerSequence: 2)
    let layout = MeshLayout(
      programs: programs, homes: MeshHomes(memory: .device, of: [0, 0]), limits: limits, slotCount: 3)
    let regions = (0..<7).map { layout.region(ofReduce: $0, rows: limits.rows) }
    for (index, region) in regions.enumerated() {
      for rows in [1, 8] { #expect(layout.region(ofReduce: index, rows: rows).offset == region.offset) }
      let place = layout.parts(home: 0, stage: 0, region, rank: 0)
      #expect(place + 2 * region.rankBytes <= layout.byteCount(home: 0))
      for (other, earlier) in regions[..<index].enumerated() {
        let distance = abs(layout.parts(home: 0, stage: 0, earlier, rank: 0) - place)
        let isSame = other > 0 && (index - other).isMultiple(of: 2)
        #expect(isSame ? distance == 0 : distance >= 2 * region.rankBytes, "\(other), \(index)")
      }
    }
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
