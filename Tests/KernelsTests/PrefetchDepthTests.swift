import Testing

@testable import Kernels

struct PrefetchDepthTests {
  @Test func growsWhereTheDeviceWaitsAndShrinksWhereItDoesNot() {
    var depth = PrefetchDepth(fixed: nil, most: 4)
    #expect(depth.depth == 4)
    for _ in 0..<200 { _ = depth.note(waits: 0, looks: 20) }
    #expect(depth.depth == 1)
    for expected in [2, 3, 4, 4] {
      let isEnough = depth.note(waits: 10, looks: 20)
      #expect(isEnough)
      #expect(depth.depth == expected)
    }
  }

  @Test func triesLessAndLessOftenWhatWasTooLittle() {
    var depth = PrefetchDepth(fixed: nil, most: 3)
    var shrinks: [Int] = []
    for step in 0..<2000 {
      let before = depth.depth
      // Two are enough, one is not.
      _ = depth.note(waits: before == 1 ? 5 : 0, looks: 10)
      if before == 2, depth.depth == 1 { shrinks.append(step) }
      #expect(depth.depth >= 1)
    }
    let distances = zip(shrinks, shrinks.dropFirst()).map { $1 - $0 }
    #expect(shrinks.count > 3 && shrinks.count < 12)
    #expect(zip(distances, distances.dropFirst()).allSatisfy { $1 > $0 })
  }

  @Test func fewLooksSayNothingAndWhatIsAskedForStays() {
    var depth = PrefetchDepth(fixed: nil, most: 3)
    let isEnough = depth.note(waits: 2, looks: 2)
    #expect(!isEnough)
    #expect(depth.depth == 3)
    var fixed = PrefetchDepth(fixed: 0, most: 3)
    for _ in 0..<50 { _ = fixed.note(waits: 10, looks: 10) }
    #expect(fixed.depth == 0 && fixed.isFixed)
  }
}
