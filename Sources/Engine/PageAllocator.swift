/// Pages of the KV cache: which are free, and how many sequences hold each of the others. Page numbers are the same in
/// every layer.
///
/// Full pages are remembered by their tokens (`PrefixCache`) and shared by sequences that begin alike. Nobody writes to
/// a shared page: a sequence that goes on within one gets a copy.
struct PageAllocator {
  let pageTokens: Int
  let pageCount: Int
  private var free: [UInt32]
  private var holders: [Int]
  private var prefixes = PrefixCache()

  init(pageCount: Int, pageTokens: Int) {
    self.pageTokens = pageTokens
    self.pageCount = pageCount
    // Taken from the end: low numbers first.
    free = (0..<UInt32(pageCount)).reversed()
    holders = Array(repeating: 0, count: pageCount)
  }

  /// Pages that can be had now, remembered ones among them.
  var availableCount: Int { free.count + prefixes.idleCount }

  /// How many sequences hold a page.
  func holderCount(_ page: UInt32) -> Int { holders[Int(page)] }

  /// Pages that hold so many tokens.
  func count(forTokens tokens: Int) -> Int { (tokens + pageTokens - 1) / pageTokens }

  /// Grows `pages` until they hold `tokens` positions; false, and nothing taken, when too few pages are available.
  mutating func grow(_ pages: inout [UInt32], tokens: Int) -> Bool {
    let wanted = count(forTokens: tokens) - pages.count
    guard wanted <= availableCount else { return false }
    for _ in 0..<max(wanted, 0) {
      guard let page = free.popLast() ?? prefixes.evict() else { return false }
      holders[Int(page)] = 1
      pages.append(page)
    }
    return true
  }

  /// One more sequence holds `page`, which is remembered or held already.
  mutating func retain(_ page: UInt32) {
    if holders[Int(page)] == 0 { prefixes.use(page) }
    holders[Int(page)] += 1
  }

  mutating func release(_ page: UInt32) {
    holders[Int(page)] -= 1
    guard holders[Int(page)] == 0 else { return }
    if prefixes.contains(page) { prefixes.setIdle(page) } else { free.append(page) }
  }

  mutating func release(_ pages: inout [UInt32]) {
    // A page is of no use without those before it: the last goes first.
    for page in pages.reversed() { release(page) }
    pages.removeAll()
  }

  // MARK: - Prefixes

  /// What is there already of a sequence.
  struct Match {
    /// Pages to share.
    var pages: [UInt32] = []
    /// Where the last of them is in the cache.
    var node: PrefixCache.Node = 0
    /// A page whose first `count` tokens come next, and then others.
    var start: (page: UInt32, count: Int)?
  }

  /// The remembered pages that `tokens` begins with. At least one token is left to compute, for the logits after it.
  ///
  /// - Parameter step: the step that will be the first to use them.
  func match(_ tokens: [Int32], step: UInt64) -> Match {
    var match = Match()
    let most = tokens.count - 1
    var position = 0
    while position + pageTokens <= most,
      let (page, node) = prefixes.page(
        after: match.node, tokens: Array(tokens[position..<position + pageTokens]))
    {
      match.pages.append(page)
      match.node = node
      position += pageTokens
    }
    if let start = prefixes.longestStart(
      after: match.node, of: tokens[position..<min(position + pageTokens, most)], before: step),
      start.count >= pageTokens / 2
    {
      match.start = start
    }
    return match
  }

  /// Pages among `pages` that count as available now and will not once they are held.
  func idleCount(_ pages: [UInt32]) -> Int { pages.count { prefixes.isIdle($0) } }

  /// Remembers that `page` holds `tokens` after `node` once `step` is done.
  ///
  /// - Returns: their place in the cache.
  mutating func remember(_ page: UInt32, after node: PrefixCache.Node, tokens: [Int32], step: UInt64)
    -> PrefixCache.Node
  {
    prefixes.insert(page, after: node, tokens: tokens, step: step)
  }
}
