import Benchmark
import Testing

@Suite struct SamplesTests {
  @Test func theMedianIsTheMiddle() {
    #expect(Samples([3]).median == 3)
    #expect(Samples([9, 1, 5]).median == 5)
    #expect(Samples([1, 9, 3, 5]).median == 4)
  }

  @Test func theEndsAreTheLeastAndTheMost() {
    let samples = Samples([4, 2, 8])
    #expect(samples.least == 2 && samples.most == 8)
  }

  /// Seconds become tokens a second: the order turns round.
  @Test func valuesAreSortedAgainWhenTheyAreMapped() {
    let speeds = Samples([1, 2, 4]).map { 8 / $0 }
    #expect(speeds.sorted == [2, 4, 8])
    #expect(speeds.median == 4)
  }
}
