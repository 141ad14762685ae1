/// A run of the word's bytes that stands for one token so far: a node of a doubly linked list.
struct MergeSymbol {
  /// Where the run starts, in bytes from the start of the word.
  var start: Int
  /// Bytes of the run; 0 once the symbol has become part of the one before it.
  var length: Int
  /// The token it stands for, or -1 for none.
  var token: Int32
  var previous: Int
  var next: Int
}

/// What two neighbouring symbols may become.
struct Merge {
  /// Lower goes first.
  var priority: UInt32
  var token: Int32
}

/// Which neighbours merge: the part in which one BPE model differs from another.
protocol MergeRule {
  /// What `left` and its right neighbour `right` become, or nil when they stay apart.
  func merge(_ left: MergeSymbol, _ right: MergeSymbol) -> Merge?
}

/// Byte-pair merging of one word: the pair of lowest priority first, the leftmost of equals (Sennrich et al. 2016).
///
/// Symbols form a linked list and candidate pairs a binary heap. A candidate whose symbols have changed since is
/// recognised when it comes up, so a word of n symbols takes O(n log n). One workspace serves word after word without
/// further allocation.
struct MergeWorkspace {
  private struct Candidate {
    var priority: UInt32
    var token: Int32
    var left: Int
    /// Bytes of both symbols together. A symbol's start never moves and its length only grows, so the pair is still
    /// the one that was queued exactly when the sum is unchanged.
    var length: Int

    @inline(__always)
    func precedes(_ other: Candidate) -> Bool {
      priority != other.priority ? priority < other.priority : left < other.left
    }
  }

  private var symbols: [MergeSymbol] = []
  private var heap: [Candidate] = []

  /// Forgets the last word.
  mutating func reset() {
    symbols.removeAll(keepingCapacity: true)
    heap.removeAll(keepingCapacity: true)
  }

  /// Appends a symbol to the word.
  @inline(__always)
  mutating func append(start: Int, length: Int, token: Int32) {
    let index = symbols.count
    symbols.append(
      MergeSymbol(start: start, length: length, token: token, previous: index - 1, next: index + 1))
  }

  /// Merges until no neighbours can, then hands each remaining symbol to `emit`, in order.
  @inline(__always)
  mutating func merge(by rule: some MergeRule, emit: (MergeSymbol) -> Void) {
    for left in symbols.indices.dropLast() { consider(left, by: rule) }
    while let candidate = pop() {
      let left = candidate.left
      let right = symbols[left].next
      guard symbols[left].length > 0, right < symbols.count,
        symbols[left].length + symbols[right].length == candidate.length
      else { continue }
      symbols[left].length = candidate.length
      symbols[left].token = candidate.token
      symbols[right].length = 0
      let next = symbols[right].next
      symbols[left].next = next
      if next < symbols.count {
        symbols[next].previous = left
        consider(left, by: rule)
      }
      if symbols[left].previous >= 0 { consider(symbols[left].previous, by: rule) }
    }
    var index = 0
    while index < symbols.count {
      emit(symbols[index])
      index = symbols[index].next
    }
  }

  /// Queues the pair that starts at `left`, which has a right neighbour, if it can merge.
  @inline(__always)
  private mutating func consider(_ left: Int, by rule: some MergeRule) {
    let first = symbols[left]
    let second = symbols[first.next]
    guard let merge = rule.merge(first, second) else { return }
    push(
      Candidate(
        priority: merge.priority, token: merge.token, left: left, length: first.length + second.length))
  }

  private mutating func push(_ candidate: Candidate) {
    var index = heap.count
    heap.append(candidate)
    while index > 0 {
      let parent = (index - 1) / 2
      guard candidate.precedes(heap[parent]) else { break }
      heap[index] = heap[parent]
      index = parent
    }
    heap[index] = candidate
  }

  private mutating func pop() -> Candidate? {
    guard let first = heap.first, let last = heap.popLast() else { return nil }
    guard !heap.isEmpty else { return first }
    var index = 0
    while true {
      var child = 2 * index + 1
      guard child < heap.count else { break }
      if child + 1 < heap.count && heap[child + 1].precedes(heap[child]) { child += 1 }
      guard heap[child].precedes(last) else { break }
      heap[index] = heap[child]
      index = child
    }
    heap[index] = last
    return first
  }
}
