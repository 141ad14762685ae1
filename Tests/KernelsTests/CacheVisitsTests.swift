import Testing

@testable import Kernels

/// The order in which keys and values come, are computed with and return, on three queues that run as they please.
struct CacheVisitsTests {
  enum Work: Equatable {
    case bring, compute, takeBack
  }

  /// What is queued: like `CacheStream` and `StepSubmission` do it.
  struct Entry {
    var work: Work
    var layer: Int
    var place: Int
    var step: Int
    var waits: [(count: WritableKeyPath<Counts, UInt64> & Sendable, value: UInt64)]
    var visit: UInt64
  }

  struct Counts {
    var arrived: UInt64 = 0
    var used: UInt64 = 0
    var returned: UInt64 = 0
  }

  /// Whose keys and values lie somewhere, and after which step.
  struct Contents: Equatable {
    var layer: Int
    var step: Int
  }

  /// Memory while the queues run: copies read when they begin and write when they end.
  struct Machine {
    var counts = Counts()
    var homes: [Contents]
    var ring: [Contents?]
    var queues: [[Entry]]
    var running: [(entry: Entry, read: Contents?)?] = [nil, nil, nil]
    var mostTogether = 0

    func mayBegin(_ queue: Int) -> Bool {
      guard running[queue] == nil, let entry = queues[queue].first else { return false }
      return entry.waits.allSatisfy { counts[keyPath: $0.count] >= $0.value }
    }

    mutating func begin(_ queue: Int) {
      let entry = queues[queue].removeFirst()
      let read = entry.work == .bring ? homes[entry.layer] : ring[entry.place]
      switch entry.work {
      case .bring: #expect(read == Contents(layer: entry.layer, step: entry.step - 1), "stale at home")
      case .compute: #expect(read == Contents(layer: entry.layer, step: entry.step - 1), "not there")
      case .takeBack: #expect(read == Contents(layer: entry.layer, step: entry.step), "overwritten")
      }
      // What is half written is nobody's.
      if entry.work == .bring { ring[entry.place] = nil }
      running[queue] = (entry, read)
      mostTogether = max(mostTogether, running.count { $0 != nil })
    }

    mutating func end(_ queue: Int) {
      guard let (entry, read) = running[queue] else { return }
      running[queue] = nil
      switch entry.work {
      case .bring:
        ring[entry.place] = read
        counts.arrived = entry.visit
      case .compute:
        #expect(ring[entry.place] == read, "overwritten while it was computed with")
        ring[entry.place] = Contents(layer: entry.layer, step: entry.step)
        counts.used = entry.visit
      case .takeBack:
        #expect(ring[entry.place] == read, "overwritten while it was taken back")
        homes[entry.layer] = Contents(layer: entry.layer, step: entry.step)
        counts.returned = entry.visit
      }
    }
  }

  /// All of some steps, as they are queued on the queues of copies in, computing and copies out.
  static func queued(_ residency: CacheResidency, steps: Int) -> [[Entry]] {
    var visits = CacheVisits(residency)
    var queues: [[Entry]] = [[], [], []]
    for step in 1...steps {
      for (layer, place) in residency.places.enumerated() {
        guard let place else { continue }
        let free = visits.returnBeforeNext(layer)
        visits.begin()
        let visit = visits.count
        queues[0].append(
          Entry(
            work: .bring, layer: layer, place: place, step: step, waits: [(\.returned, free)], visit: visit))
        queues[1].append(
          Entry(
            work: .compute, layer: layer, place: place, step: step, waits: [(\.arrived, visit)], visit: visit)
        )
        queues[2].append(
          Entry(
            work: .takeBack, layer: layer, place: place, step: step, waits: [(\.used, visit)], visit: visit))
        visits.end(layer)
        #expect(visits.lastReturn == visit)
      }
    }
    return queues
  }

  @Test(arguments: [(6, 0, 2), (6, 0, 3), (7, 3, 2), (5, 2, 3), (1, 0, 1), (2, 0, 2), (8, 0, 8)])
  func queuesThatRunAsTheyPleaseNeitherMixNorStop(_ shape: (layers: Int, resident: Int, ring: Int)) {
    let residency = CacheResidency(
      layerCount: shape.layers, resident: shape.resident, ringLayers: shape.ring)
    var random = SystemRandomNumberGenerator()
    var mostTogether = 0
    for _ in 0..<200 {
      var machine = Machine(
        homes: (0..<shape.layers).map { Contents(layer: $0, step: 0) },
        ring: Array(repeating: nil, count: shape.ring), queues: Self.queued(residency, steps: 5))
      while true {
        let choices = (0..<3).flatMap { queue -> [(queue: Int, begins: Bool)] in
          machine.running[queue] != nil
            ? [(queue, false)] : machine.mayBegin(queue) ? [(queue, true)] : []
        }
        guard let choice = choices.randomElement(using: &random) else { break }
        if choice.begins { machine.begin(choice.queue) } else { machine.end(choice.queue) }
      }
      #expect(machine.queues.joined().isEmpty, "queues wait for each other")
      for (layer, place) in residency.places.enumerated() where place != nil {
        #expect(machine.homes[layer].step == 5)
      }
      mostTogether = max(mostTogether, machine.mostTogether)
    }
    // Pages of one layer come while another is computed and those of a third return.
    if shape.ring >= 3 { #expect(mostTogether == 3) }
  }
}
