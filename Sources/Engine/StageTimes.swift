/// How long the slowest stage of a pipeline takes for steps of so many tokens, as measured, and what follows for the
/// micro-batches of prompts.
package struct StageTimes: Sendable, Hashable {
  package struct Point: Sendable, Hashable {
    package var tokens: Int
    package var seconds: Double

    package init(tokens: Int, seconds: Double) {
      self.tokens = tokens
      self.seconds = seconds
    }
  }

  /// By growing numbers of tokens.
  package let points: [Point]

  package init(_ points: [Point]) {
    self.points = points.sorted { $0.tokens < $1.tokens }
  }

  /// Between the points on straight lines; beyond the last as fast a token as there.
  package func seconds(tokens: Int) -> Double {
    guard let last = points.last, let first = points.first else { return 0 }
    if tokens <= first.tokens { return first.seconds }
    if tokens >= last.tokens { return last.seconds * Double(tokens) / Double(last.tokens) }
    let above = points.firstIndex { $0.tokens >= tokens } ?? points.count - 1
    let (low, high) = (points[above - 1], points[above])
    let part = Double(tokens - low.tokens) / Double(high.tokens - low.tokens)
    return low.seconds + part * (high.seconds - low.seconds)
  }

  /// Seconds for `tokens` of prompts in chunks of `chunk` to pass all stages, with the bubble at both ends.
  package func promptSeconds(tokens: Int, chunk: Int, stages: Int) -> Double {
    Double((tokens + chunk - 1) / chunk + stages - 1) * seconds(tokens: min(chunk, tokens))
  }

  /// The chunk with which `tokens` of prompts pass all stages soonest.
  ///
  /// - Parameter most: the largest there may be.
  package func promptChunk(tokens: Int, stages: Int, most: Int) -> Int {
    let whole = min(most, tokens)
    var best = (chunk: whole, seconds: promptSeconds(tokens: tokens, chunk: whole, stages: stages))
    // In as many equal chunks as there are, from the fewest on.
    for count in 1...max(1, 16 * stages) {
      let chunk = (tokens + count - 1) / count
      guard chunk <= most, chunk > 0 else { continue }
      let seconds = promptSeconds(tokens: tokens, chunk: chunk, stages: stages)
      if seconds < best.seconds { best = (chunk, seconds) }
    }
    return best.chunk
  }
}
