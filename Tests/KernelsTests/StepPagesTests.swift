import Testing

@testable import Kernels

/// Pages of 32 tokens.
struct StepPagesTests {
  @Test func aStepReadsWhatIsComputedAndWritesWhatItComputes() {
    // A text at position 70, and a prompt from its third page on.
    var step = StepPages(
      spans: [70..<71, 64..<130], pages: [[4, 5, 9], [4, 5, 6, 7, 8]], pageCount: 12)
    #expect(step.read(window: nil) == [4..<6, 9..<10])
    #expect(step.written == [6..<10])
  }

  @Test func aWindowLeavesOutWhatIsBeforeIt() {
    var step = StepPages(spans: [100..<101], pages: [[0, 2, 4, 6]], pageCount: 8)
    // Positions 69 to 100.
    #expect(step.read(window: 32) == [4..<5, 6..<7])
    #expect(step.read(window: 101) == [0..<1, 2..<3, 4..<5, 6..<7])
    #expect(step.read(window: 37) == [4..<5, 6..<7])
    #expect(step.read(window: 38) == [2..<3, 4..<5, 6..<7])
    #expect(step.written == [6..<7])
  }

  @Test func layersThatStayAreSpreadAndTheOthersTakeTurnsInTheRing() {
    let residency = CacheResidency(layerCount: 8, resident: 4, ringLayers: 2)
    #expect(residency.places == [0, nil, 1, nil, 0, nil, 1, nil])
    #expect(residency.hostLayers == 4 && residency.deviceLayers == 6)
    #expect(CacheResidency(residentLayers: 3).hostLayers == 0)
  }
}
