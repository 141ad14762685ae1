/// Pages whose tokens are known, so that a sequence that begins with the same tokens need not compute them again.
///
/// Pages form a tree: one follows another if some sequence held both in a row, and a page's place is its parent and
/// its own tokens. Tokens are compared, not only their hash: a page is never taken for another. A page that no sequence
/// holds is *idle*: it stays until its memory is needed, the one that was used longest ago first.
struct PrefixCache {
  /// A place in the tree. The root, before the first page, is 0; numbers are never used twice.
  typealias Node = UInt64

  private struct Place: Hashable {
    var parent: Node
    var tokens: [Int32]
  }

  private struct Entry {
    var node: Node
    var place: Place
    /// The step that computes the page.
    var step: UInt64
    /// When it became idle; nil while a sequence holds it.
    var idleSince: UInt64?
  }

  private var pages: [Place: UInt32] = [:]
  private var entries: [UInt32: Entry] = [:]
  private var children: [Node: Set<UInt32>] = [:]
  private var nodeCount: Node = 0
  /// Pages as they became idle, oldest first. Those used or forgotten since are still here, with an older time.
  private var queue: [(page: UInt32, since: UInt64)] = []
  private var queueStart = 0
  private var clock: UInt64 = 0
  private(set) var idleCount = 0

  func contains(_ page: UInt32) -> Bool { entries[page] != nil }

  func isIdle(_ page: UInt32) -> Bool { entries[page]?.idleSince != nil }

  /// The page that holds `tokens` after `parent`, and its place.
  func page(after parent: Node, tokens: [Int32]) -> (page: UInt32, node: Node)? {
    guard let page = pages[Place(parent: parent, tokens: tokens)], let entry = entries[page] else {
      return nil
    }
    return (page, entry.node)
  }

  /// Among the pages after `parent`, the one that begins with most of `tokens`; none that `step` itself computes, since
  /// copies are made before a step.
  func longestStart(after parent: Node, of tokens: ArraySlice<Int32>, before step: UInt64)
    -> (page: UInt32, count: Int)?
  {
    var best: (page: UInt32, count: Int)?
    for page in children[parent] ?? [] {
      guard let entry = entries[page], entry.step < step else { continue }
      let count = zip(entry.place.tokens, tokens).prefix { $0 == $1 }.count
      if count > best?.count ?? 0 { best = (page, count) }
    }
    return best
  }

  /// Remembers that `page` will hold `tokens` after `parent` once `step` is done, unless another page does already.
  ///
  /// - Returns: their place.
  mutating func insert(_ page: UInt32, after parent: Node, tokens: [Int32], step: UInt64) -> Node {
    let place = Place(parent: parent, tokens: tokens)
    if let known = pages[place], let entry = entries[known] { return entry.node }
    nodeCount += 1
    pages[place] = page
    entries[page] = Entry(node: nodeCount, place: place, step: step)
    children[parent, default: []].insert(page)
    return nodeCount
  }

  /// A sequence holds `page` again.
  mutating func use(_ page: UInt32) {
    guard entries[page]?.idleSince != nil else { return }
    entries[page]?.idleSince = nil
    idleCount -= 1
  }

  /// No sequence holds `page` any more.
  mutating func setIdle(_ page: UInt32) {
    clock += 1
    entries[page]?.idleSince = clock
    idleCount += 1
    queue.append((page, clock))
  }

  /// Forgets the page that has been idle for longest.
  mutating func evict() -> UInt32? {
    while queueStart < queue.count {
      let (page, since) = queue[queueStart]
      queueStart += 1
      if queueStart > 64, queueStart > queue.count / 2 {
        queue.removeFirst(queueStart)
        queueStart = 0
      }
      guard let entry = entries[page], entry.idleSince == since else { continue }
      idleCount -= 1
      entries[page] = nil
      pages[entry.place] = nil
      children[entry.place.parent]?.remove(page)
      if children[entry.place.parent]?.isEmpty == true { children[entry.place.parent] = nil }
      return page
    }
    return nil
  }
}
