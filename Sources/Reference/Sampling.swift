#if canImport(Glibc)
  import Glibc
#endif

/// How the next token is drawn from the logits.
///
/// Applied in this order (vLLM's, with min-p last): penalties, temperature, top-k, top-p, min-p. The values given
/// as defaults switch their step off.
package struct SamplingRule: Sendable, Hashable {
  /// Divides the logits; 0 takes the most likely token (after penalties), ties to the lower id.
  package var temperature = 1.0
  /// Keep the `topK` most likely tokens; 0 keeps all.
  package var topK = 0
  /// Keep the most likely tokens up to and with the one at which their probabilities sum to `topP`.
  package var topP = 1.0
  /// Keep tokens at least `minP` times as likely as the most likely one.
  package var minP = 0.0
  /// Logits of tokens that occur in prompt or output are divided by this where positive, else multiplied.
  package var repeatPenalty = 1.0
  /// Subtracted from the logits of tokens that occur in the output.
  package var presencePenalty = 0.0
  /// Subtracted from the logits of tokens that occur in the output, once for each time.
  package var frequencyPenalty = 0.0

  package init() {}

  /// The probability of every token to be drawn next.
  ///
  /// - Parameters:
  ///   - logits: of every token of the vocabulary.
  ///   - prompt: tokens given by the user; `output`: tokens generated after them.
  package func probabilities(logits: [Double], prompt: [Int32] = [], output: [Int32] = []) -> [Double] {
    let penalised = penalise(logits, prompt: prompt, output: output)
    // Most likely first; among equals the lower id first, so that cuts are defined.
    let order = penalised.indices.sorted { (penalised[$1], $0) < (penalised[$0], $1) }
    var result = [Double](repeating: 0, count: logits.count)
    guard let best = order.first else { return result }
    guard temperature > 0 else {
      result[best] = 1
      return result
    }

    var kept = order[...]
    if topK > 0 { kept = kept.prefix(topK) }
    var likelihoods = ReferenceStages.softmax(kept.map { penalised[$0] / temperature })
    if topP < 1 {
      var sum = 0.0
      let count = likelihoods.prefix { likelihood in
        defer { sum += likelihood }
        return sum < topP
      }.count
      kept = kept.prefix(max(count, 1))
    }
    let smallest = minP * likelihoods[0]
    kept = kept.prefix(zip(kept, likelihoods).prefix { $1 >= smallest }.count)

    likelihoods = ReferenceStages.softmax(kept.map { penalised[$0] / temperature })
    for (token, likelihood) in zip(kept, likelihoods) { result[token] = likelihood }
    return result
  }

  private func penalise(_ logits: [Double], prompt: [Int32], output: [Int32]) -> [Double] {
    var result = logits
    for token in Set(prompt).union(output).map(Int.init) where logits.indices.contains(token) {
      result[token] *= logits[token] > 0 ? 1 / repeatPenalty : repeatPenalty
    }
    for token in Set(output).map(Int.init) where logits.indices.contains(token) {
      result[token] -= presencePenalty
    }
    for token in output.map(Int.init) where logits.indices.contains(token) {
      result[token] -= frequencyPenalty
    }
    return result
  }
}
