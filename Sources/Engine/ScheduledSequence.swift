/// A sequence of tokens as the scheduler sees it: how long it is, how much of it is computed, which pages it holds.
struct ScheduledSequence {
  let id: UInt64
  /// The prompt, then the tokens drawn so far and read.
  var tokens: [Int32]
  /// Tokens at which it ends.
  let limit: Int
  /// Whether it may hold pages that others have computed.
  let sharesPages: Bool
  /// Its block table and last token on the device; nil while it waits.
  var slot: Int?
  var pages: [UInt32] = []
  /// Tokens that steps up to the last one made compute.
  var computed = 0
  /// Tokens that those steps draw but that are not read yet.
  var unread = 0
  /// How often it was put back: results of steps made before that are void.
  var epoch = 0
  /// Full pages that the prefix cache knows, and the place of the last of them there.
  var rememberedPages = 0
  var node: PrefixCache.Node = 0

  /// What of it is in host memory while it waits; nil for nothing.
  var kept: Kept?

  /// Keys and values of the first tokens.
  struct Kept {
    var pages: [Int]
    var tokens: Int
  }

  init(id: UInt64, tokens: [Int32], limit: Int, sharesPages: Bool) {
    self.sharesPages = sharesPages
    self.id = id
    self.tokens = tokens
    self.limit = limit
  }

  /// Tokens that are there, read or not.
  var length: Int { tokens.count + unread }
  /// Tokens that a step could compute now; when all are, the next one is drawn. 0 once the last one is being drawn.
  var ready: Int { length < limit ? length - computed : 0 }
}

/// A page of the KV cache that goes to host memory, or comes back.
package enum PageMove: Sendable, Hashable {
  case toHost(page: UInt32, hostPage: Int)
  case toDevice(hostPage: Int, page: UInt32)
}

/// Where a page of the KV cache is.
package enum PagePlace: Sendable, Hashable {
  case device(UInt32)
  case host(Int)
}

/// What one step does for one sequence.
struct ScheduledPart: Sendable {
  var id: UInt64
  var epoch: Int
  var slot: Int
  /// The first token's place in the sequence.
  var position: Int
  var count: Int
  /// The tokens to compute; none stands for the one that the step before draws.
  var tokens: ArraySlice<Int32>
  /// Whether the token after these is drawn.
  var drawsToken: Bool
  /// Whether these are the sequence's first tokens in its slot.
  var isStart: Bool
  /// The sequence's pages, those from `firstNewPage` on for the first time.
  var pages: [UInt32]
  var firstNewPage: Int
  /// A page to be copied before the step, and the place of its copy.
  var copy: (from: UInt32, to: UInt32)?
}
