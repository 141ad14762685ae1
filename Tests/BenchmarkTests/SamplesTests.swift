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

  @Test func percentilesAreByNearestRank() {
    let samples = Samples((1...200).map { Double($0) })
    #expect(samples.percentile(0.99) == 198 && samples.percentile(0.5) == 100)
    #expect(samples.percentile(0) == 1 && samples.percentile(1) == 200)
    #expect(Samples([7]).percentile(0.99) == 7)
  }

  /// Seconds become tokens a second: the order turns round.
  @Test func valuesAreSortedAgainWhenTheyAreMapped() {
    let speeds = Samples([1, 2, 4]).map { 8 / $0 }
    #expect(speeds.sorted == [2, 4, 8])
    #expect(speeds.median == 4)
  }
}

@Suite struct RequestWorkloadTests {
  @Test func lengthsAreThoseOfTheSeed() {
    func workload(_ seed: UInt64) -> RequestWorkload {
      RequestWorkload(count: 500, prompt: 16...2048, output: 16...512, seed: seed)
    }
    let requests = workload(3).requests
    #expect(requests == workload(3).requests && requests != workload(4).requests)
    #expect(requests.allSatisfy { (16...2048).contains($0.prompt) && (16...512).contains($0.output) })
    // Half of the halvings of the range are below 16 * 2 ^ 3.5.
    #expect((200...300).contains(requests.count { $0.prompt < 181 }))
    #expect(workload(3).longest == requests.map { $0.prompt + $0.output }.max())
    let single = RequestWorkload(count: 5, prompt: 7...7, output: 1...1, seed: 0)
    #expect(single.requests.count == 5 && single.requests.allSatisfy { $0.prompt == 7 && $0.output == 1 })
    #expect(single.meanDepth == 7)
  }
}
