/// Pages of the KV cache: which are free, and which a sequence holds. Page numbers are the same in every layer.
struct PageAllocator {
  let pageTokens: Int
  private var free: [UInt32]

  init(pageCount: Int, pageTokens: Int) {
    self.pageTokens = pageTokens
    // Taken from the end: low numbers first.
    free = (0..<UInt32(pageCount)).reversed()
  }

  var freeCount: Int { free.count }

  /// Grows `pages` until they hold `tokens` positions; false, and nothing taken, when too few pages are free.
  mutating func grow(_ pages: inout [UInt32], tokens: Int) -> Bool {
    let wanted = (tokens + pageTokens - 1) / pageTokens
    guard wanted - pages.count <= free.count else { return false }
    while pages.count < wanted { pages.append(free.removeLast()) }
    return true
  }

  mutating func release(_ pages: inout [UInt32]) {
    free.append(contentsOf: pages.reversed())
    pages.removeAll()
  }
}
