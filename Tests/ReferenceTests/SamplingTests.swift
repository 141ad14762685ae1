import Foundation
import Reference
import Testing

@Suite struct SamplingTests {
  /// Probabilities 0.1, 0.4, 0.2, 0.3.
  let logits = [0.1, 0.4, 0.2, 0.3].map { log($0) }

  func expectClose(
    _ actual: [Double], _ expected: [Double], sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(actual.count == expected.count, sourceLocation: sourceLocation)
    for (a, b) in zip(actual, expected) {
      #expect(abs(a - b) < 1e-12, "\(actual) is not \(expected)", sourceLocation: sourceLocation)
    }
  }

  @Test func switchedOffIsSoftmax() {
    expectClose(SamplingRule().probabilities(logits: logits), [0.1, 0.4, 0.2, 0.3])
  }

  @Test func temperature() {
    var rule = SamplingRule()
    rule.temperature = 0.5
    expectClose(rule.probabilities(logits: logits), [1, 16, 4, 9].map { $0 / 30.0 })
    rule.temperature = 0
    #expect(rule.probabilities(logits: [1, 3, 3, 2]) == [0, 1, 0, 0])
  }

  @Test func topK() {
    var rule = SamplingRule()
    rule.topK = 2
    expectClose(rule.probabilities(logits: logits), [0, 4 / 7.0, 0, 3 / 7.0])
    // Ties at the cut go to the lower id.
    expectClose(rule.probabilities(logits: [0, 0, 0]), [0.5, 0.5, 0])
  }

  @Test func topP() {
    var rule = SamplingRule()
    rule.topP = 0.69
    expectClose(rule.probabilities(logits: logits), [0, 4 / 7.0, 0, 3 / 7.0])
    rule.topP = 0.71
    expectClose(rule.probabilities(logits: logits), [0, 4 / 9.0, 2 / 9.0, 3 / 9.0])
    rule.topP = 0
    #expect(rule.probabilities(logits: logits) == [0, 1, 0, 0])
  }

  /// Top-p counts the probabilities that top-k left: 4/7 alone is past one half.
  @Test func topPComesAfterTopK() {
    var rule = SamplingRule()
    rule.topK = 2
    rule.topP = 0.55
    #expect(rule.probabilities(logits: logits) == [0, 1, 0, 0])
  }

  @Test func minP() {
    var rule = SamplingRule()
    rule.minP = 0.6
    expectClose(rule.probabilities(logits: logits), [0, 4 / 7.0, 0, 3 / 7.0])
  }

  @Test func penalties() {
    var rule = SamplingRule()
    rule.temperature = 0
    rule.repeatPenalty = 2
    // Positive logits shrink, negative ones grow away from zero, for prompt and output alike.
    #expect(rule.probabilities(logits: [3, 2, -1], prompt: [0]) == [0, 1, 0])
    #expect(rule.probabilities(logits: [-1.5, -1, -4], output: [1]) == [1, 0, 0])

    rule.repeatPenalty = 1
    rule.presencePenalty = 1.5
    #expect(rule.probabilities(logits: [3, 2, -1], prompt: [0]) == [1, 0, 0])
    #expect(rule.probabilities(logits: [3, 2, -1], output: [0, 0]) == [0, 1, 0])

    rule.presencePenalty = 0
    rule.frequencyPenalty = 0.6
    #expect(rule.probabilities(logits: [3, 2, -1], output: [0]) == [1, 0, 0])
    #expect(rule.probabilities(logits: [3, 2, -1], output: [0, 0]) == [0, 1, 0])
  }
}
