#if canImport(Glibc)
  import Glibc
#endif

/// A token and the natural logarithm of its probability.
public struct TokenLogprob: Sendable, Hashable {
  public var token: Int32
  public var logprob: Float
}

/// How probable a generated token was, and which tokens were most probable in its place.
///
/// Probabilities are those of the model after penalties, before temperature and filters.
public struct TokenLogprobs: Sendable, Hashable {
  public var chosen: TokenLogprob
  /// Best first; the lowest id first among equals.
  public var top: [TokenLogprob]

  /// - Parameter logits: one for each token of the vocabulary.
  init(_ logits: [Float], chosen token: Int32, top count: Int) {
    let largest = Double(logits.max() ?? 0)
    let sum = logits.reduce(0.0) { $0 + exp(Double($1) - largest) }
    let shift = largest + log(sum)
    let logprob = { (token: Int32) in
      TokenLogprob(token: token, logprob: Float(Double(logits[Int(token)]) - shift))
    }
    var best: [Int32] = []
    for (index, logit) in logits.enumerated() where count > 0 {
      if best.count == count {
        guard logit > logits[Int(best[count - 1])] else { continue }
        best.removeLast()
      }
      let place = best.firstIndex { logits[Int($0)] < logit } ?? best.count
      best.insert(Int32(index), at: place)
    }
    chosen = logprob(token)
    top = best.map(logprob)
  }
}
