/// Where the device memory of a run goes, in bytes, and how long a context fits.
package struct MemoryPlan: Sendable, Hashable {
  package var weights: Int
  /// Keys and values of one token, all layers.
  package var cachePerToken: Int
  /// Tokens for which the cache has room.
  package var contextLength: Int
  package var workspace: Int

  package init(weights: Int, cachePerToken: Int, contextLength: Int, workspace: Int) {
    self.weights = weights
    self.cachePerToken = cachePerToken
    self.contextLength = contextLength
    self.workspace = workspace
  }

  package var cache: Int { cachePerToken * contextLength }
  package var total: Int { weights + cache + workspace }

  /// The plan with a context that fits `available` bytes: the same one, or a shorter one where `mayShorten`.
  ///
  /// - Parameter pageTokens: contexts are shortened to whole pages.
  package func fitted(available: Int, pageTokens: Int, mayShorten: Bool) throws(PlacementError) -> MemoryPlan
  {
    if total <= available { return self }
    let rest = available - weights - workspace
    let tokens = rest > 0 && cachePerToken > 0 ? rest / cachePerToken / pageTokens * pageTokens : 0
    guard tokens > 0 else {
      throw PlacementError(
        "too little device memory: the weights take \(megabytes(weights)) and a step \(megabytes(workspace)), but only "
          + "\(megabytes(max(available, 0))) are free; use a smaller model or a finer quantisation")
    }
    guard mayShorten else {
      throw PlacementError(
        "too little device memory: a context of \(contextLength) tokens takes \(megabytes(cache)) beside "
          + "\(megabytes(weights + workspace)), but only \(megabytes(available)) are free; "
          + "--context \(tokens) would fit")
    }
    var shortened = self
    shortened.contextLength = tokens
    return shortened
  }
}

/// Why a model cannot be placed, in one line.
package struct PlacementError: Error, CustomStringConvertible, Sendable {
  package let description: String
  package init(_ description: String) { self.description = description }
}

/// "1234 MB", or "12.3 GB" from 10 GB on.
package func megabytes(_ bytes: Int) -> String {
  let megabytes = Double(bytes) / 1e6
  if megabytes < 10_000 { return "\(Int(megabytes.rounded(.up))) MB" }
  let tenths = Int((megabytes / 100).rounded())
  return "\(tenths / 10).\(tenths % 10) GB"
}
