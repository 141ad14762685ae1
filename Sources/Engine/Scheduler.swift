/// Decides what each step computes. A value without a device: it makes steps, is told what they drew, and knows slots
/// and pages.
///
/// Every step has a token of each running sequence, and chunks of prompts within a budget. First come, first served: a
/// sequence starts when all that came before it have started and slot and pages are there; when pages run out, the
/// youngest gives all of its up. Their contents go to host memory and come back when it goes on; where that has no room
/// they are computed again. So the oldest always goes on, and nobody starves.
///
/// Steps are made before the results of the last ones are read. A sequence whose next token is not read yet goes on from
/// the one on the device; one that turns out to have ended may have been computed a little too far, which nobody sees.
struct Scheduler {
  struct Limits: Sendable {
    /// Sequences that run at the same time.
    var sequences: Int
    /// Tokens of prompts in a step without anything else.
    var promptTokens: Int
    /// Tokens of a step that has both, unless most of them are not of prompts, before it is known how long steps take.
    var mixedTokens: Int
    /// Groups of texts that take turns: as many as a pipeline has stages, so that each stage has a group to compute
    /// while others compute theirs, and no stage waits until a token has been through all of them.
    var groups = 1
    /// Stages of the pipeline, and how long they take, if that says in which chunks prompts alone are computed.
    var stages = 1
    var stageTimes: StageTimes?
  }

  let limits: Limits
  var pages: PageAllocator
  /// In order of arrival.
  private(set) var waiting: [ScheduledSequence] = []
  private(set) var running: [ScheduledSequence] = []
  private var freeSlots: [Int]
  /// Slots that steps in flight still use, and the last of those steps.
  private var leaving: [(slot: Int, step: UInt64)] = []
  /// Steps made, and those done.
  private(set) var stepCount: UInt64 = 0
  private var doneCount: UInt64 = 0
  private(set) var preemptionCount = 0
  /// Pages that host memory has room for.
  let hostPageCount: Int
  private(set) var freeHostPages: [Int]
  /// To be made before the next step.
  private var moves: [PageMove] = []
  /// Pages that came back from host memory.
  private(set) var returnedPageCount = 0
  /// How long steps take: whoever runs them tells it.
  var pace = StepPace()

  init(limits: Limits, pages: PageAllocator, hostPageCount: Int = 0) {
    self.limits = limits
    self.hostPageCount = hostPageCount
    freeHostPages = (0..<hostPageCount).reversed()
    self.pages = pages
    freeSlots = (0..<limits.sequences).reversed()
  }

  var isIdle: Bool { waiting.isEmpty && running.isEmpty }

  // MARK: - Sequences

  /// A sequence arrives. Ids grow from one to the next.
  ///
  /// - Parameter limit: tokens, those of the prompt among them, at which it ends: more than the prompt has, and no more
  ///   than all pages hold.
  /// - Parameter sharesPages: whether what is known of its tokens from before need not be computed again.
  mutating func add(id: UInt64, prompt: [Int32], limit: Int, sharesPages: Bool = true) {
    precondition(!prompt.isEmpty && limit > prompt.count && pages.count(forTokens: limit) <= pages.pageCount)
    waiting.append(ScheduledSequence(id: id, tokens: prompt, limit: limit, sharesPages: sharesPages))
  }

  /// A sequence has ended, or nobody wants it any more: its pages are free at once.
  mutating func remove(id: UInt64) {
    if let index = running.firstIndex(where: { $0.id == id }) {
      var sequence = running.remove(at: index)
      giveUp(&sequence)
    } else if let index = waiting.firstIndex(where: { $0.id == id }) {
      freeHostPages += waiting.remove(at: index).kept?.pages ?? []
    }
  }

  /// Whether what a step made for the sequence is still of it: it has not ended since, nor will be computed again.
  func isRunning(id: UInt64, epoch: Int) -> Bool { running.contains { $0.id == id && $0.epoch == epoch } }

  /// Adds a token that a step drew to its sequence; false if that has ended since, or will be computed again.
  mutating func accept(_ token: Int32, id: UInt64, epoch: Int) -> Bool {
    guard let index = running.firstIndex(where: { $0.id == id && $0.epoch == epoch }) else { return false }
    running[index].tokens.append(token)
    running[index].unread -= 1
    rememberFullPages(at: index, step: stepCount)
    return true
  }

  /// The results of the oldest step in flight are read.
  mutating func finishStep() {
    doneCount += 1
    freeSlots += leaving.filter { $0.step <= doneCount }.map(\.slot)
    leaving.removeAll { $0.step <= doneCount }
  }

  // MARK: - Steps

  /// The next step; nil when there is nothing to do before results are read.
  mutating func nextStep() -> [ScheduledPart]? {
    var parts: [ScheduledPart] = []
    let preemptionsBefore = preemptionCount
    let group = nextGroup()
    var index = 0
    while index < running.count {
      defer { index += 1 }
      guard running[index].ready == 1, self.group(of: running[index]) == group else { continue }
      let pageCount = running[index].pages.count
      while !pages.grow(&running[index].pages, tokens: running[index].length) {
        preemptYoungest()
        if running.count == index { break }
      }
      guard index < running.count else { break }
      parts.append(part(at: index, count: 1, firstNewPage: pageCount))
    }
    // Prompts must not hold up those who wait for their next token. But steps of few texts are short, and little enters
    // beside them: few would stay few while many wait.
    let mixed = max(limits.mixedTokens - parts.count, limits.mixedTokens / 2, 1)
    let textCount = running.count { $0.ready == 1 }
    let isStarved = 2 * textCount < limits.sequences && waiting.count > textCount
    var budget =
      parts.isEmpty
      ? promptChunk
      : min(limits.promptTokens, pace.promptTokensBesideText.map { isStarved ? max($0, mixed) : $0 } ?? mixed)
    for index in running.indices where budget > 0 && running[index].ready > 1 {
      parts.append(
        part(
          at: index, count: min(budget, running[index].ready), firstNewPage: running[index].pages.count))
      budget -= parts[parts.count - 1].count
    }
    // Whoever starts when pages have just run out would be the next to give them up.
    while budget > 0, preemptionCount == preemptionsBefore, let part = start(budget: budget) {
      parts.append(part)
      budget -= part.count
    }
    guard !parts.isEmpty else { return nil }
    stepCount += 1
    return parts
  }

  /// What must be done, in this order, before the step that `nextStep` made last.
  mutating func takeMoves() -> [PageMove] {
    defer { moves = [] }
    return moves
  }

  /// Where the full pages that `tokens` begins with are, as far as they are known: on the device, or in host memory, if
  /// a sequence has given them up. All moves must have been taken.
  func places(of tokens: [Int32]) -> [PagePlace] {
    // The last token is one more than is to be found.
    var places = pages.match(tokens + [0], step: stepCount).pages.map(PagePlace.device)
    for sequence in waiting {
      guard let kept = sequence.kept else { continue }
      let shared = zip(tokens, sequence.tokens).prefix { $0 == $1 }.count
      let full = min(kept.tokens, shared) / pages.pageTokens
      if full > places.count { places += kept.pages[places.count..<full].map(PagePlace.host) }
    }
    return places
  }

  /// Tokens of a step of prompts alone: chunks in which those that are there pass the pipeline soonest.
  private var promptChunk: Int {
    guard let times = limits.stageTimes, limits.stages > 1 else { return limits.promptTokens }
    let tokens =
      running.reduce(0) { $0 + ($1.ready > 1 ? $1.tokens.count : 0) }
      + waiting.reduce(0) { $0 + $1.tokens.count }
    return times.promptChunk(tokens: max(tokens, 1), stages: limits.stages, most: limits.promptTokens)
  }

  private func group(of sequence: ScheduledSequence) -> Int { (sequence.slot ?? 0) % limits.groups }

  /// Whose turn it is: groups without a text to go on with are passed over.
  private func nextGroup() -> Int {
    let first = Int(stepCount % UInt64(limits.groups))
    return (0..<limits.groups).lazy.map { (first + $0) % self.limits.groups }.first { group in
      running.contains { $0.ready == 1 && self.group(of: $0) == group }
    } ?? first
  }

  /// Starts the sequence that has waited longest, if slot and pages are there.
  private mutating func start(budget: Int) -> ScheduledPart? {
    guard let slot = freeSlots.last, let oldest = waiting.first else { return nil }
    let tokens = oldest.tokens
    var match = oldest.sharesPages ? pages.match(tokens, step: stepCount + 1) : PageAllocator.Match()
    let needed = pages.count(forTokens: tokens.count) - match.pages.count
    // Those who run need a page each before long.
    let spare = pages.availableCount - pages.idleCount(match.pages) - needed
    guard spare >= running.count else { return nil }
    let kept = waiting[0].kept
    if let kept, kept.tokens > match.pages.count * pages.pageTokens { match.start = nil }
    // A page that is copied must stay while others are taken.
    if let start = match.start, spare < 1, pages.holderCount(start.page) == 0 { match.start = nil }

    var sequence = waiting.removeFirst()
    freeSlots.removeLast()
    sequence.slot = slot
    for page in match.pages { pages.retain(page) }
    if let start = match.start { pages.retain(start.page) }
    defer { if let start = match.start { pages.release(start.page) } }
    sequence.pages = match.pages
    sequence.rememberedPages = match.pages.count
    sequence.node = match.node
    sequence.computed = match.pages.count * pages.pageTokens
    let hasPages = pages.grow(&sequence.pages, tokens: tokens.count)
    precondition(hasPages, "pages that were counted are gone")
    var copy: (from: UInt32, to: UInt32)?
    if let start = match.start {
      copy = (start.page, sequence.pages[match.pages.count])
      sequence.computed += start.count
    }
    if let kept {
      if kept.tokens > sequence.computed {
        for index in match.pages.count..<kept.pages.count {
          moves.append(.toDevice(hostPage: kept.pages[index], page: sequence.pages[index]))
          returnedPageCount += 1
        }
        sequence.computed = kept.tokens
      }
      // Moves are made in order: the next one to this place comes after.
      freeHostPages += kept.pages
      sequence.kept = nil
    }
    running.append(sequence)
    var first = part(at: running.count - 1, count: min(budget, sequence.ready), firstNewPage: 0)
    first.isStart = true
    first.copy = copy
    return first
  }

  /// The next `count` tokens of a running sequence that holds pages for them.
  private mutating func part(at index: Int, count: Int, firstNewPage: Int) -> ScheduledPart {
    let position = running[index].computed
    running[index].computed += count
    let drawsToken = running[index].computed == running[index].length
    if drawsToken { running[index].unread += 1 }
    rememberFullPages(at: index, step: stepCount + 1)
    let sequence = running[index]
    let known = min(position, sequence.tokens.count)..<min(position + count, sequence.tokens.count)
    return ScheduledPart(
      id: sequence.id, epoch: sequence.epoch, slot: sequence.slot ?? 0, position: position, count: count,
      tokens: sequence.tokens[known], drawsToken: drawsToken, isStart: false, pages: sequence.pages,
      firstNewPage: firstNewPage, copy: nil)
  }

  private mutating func preemptYoungest() {
    var sequence = running.removeLast()
    let kept = keep(sequence)
    giveUp(&sequence)
    sequence.kept = kept
    sequence.epoch += 1
    preemptionCount += 1
    waiting.insert(sequence, at: waiting.firstIndex { $0.id > sequence.id } ?? waiting.count)
  }

  /// Moves what is computed of a sequence to host memory, if that has room. Its last token is computed again, for the
  /// logits after it.
  private mutating func keep(_ sequence: ScheduledSequence) -> ScheduledSequence.Kept? {
    let tokens = min(sequence.computed, sequence.tokens.count - 1)
    let count = pages.count(forTokens: tokens)
    // What may not be shared is wanted whole, in one go.
    guard sequence.sharesPages, count > 0, count <= freeHostPages.count else { return nil }
    let places = Array(freeHostPages.suffix(count))
    freeHostPages.removeLast(count)
    for (page, place) in zip(sequence.pages, places) { moves.append(.toHost(page: page, hostPage: place)) }
    return ScheduledSequence.Kept(pages: places, tokens: tokens)
  }

  /// Takes slot and pages from a sequence: it is as if it had just come, but for the tokens it has.
  private mutating func giveUp(_ sequence: inout ScheduledSequence) {
    pages.release(&sequence.pages)
    if let slot = sequence.slot {
      // Its block table must stay as it is for steps in flight.
      if stepCount == doneCount { freeSlots.append(slot) } else { leaving.append((slot, stepCount)) }
    }
    sequence.slot = nil
    sequence.computed = 0
    sequence.unread = 0
    sequence.rememberedPages = 0
    sequence.node = 0
  }

  /// Tells the prefix cache of pages all of whose tokens are known and computed.
  ///
  /// - Parameter step: the step that computes the last of them.
  private mutating func rememberFullPages(at index: Int, step: UInt64) {
    let size = pages.pageTokens
    let full = min(running[index].computed, running[index].tokens.count) / size
    while running[index].rememberedPages < full {
      let page = running[index].rememberedPages
      running[index].node = pages.remember(
        running[index].pages[page], after: running[index].node,
        tokens: Array(running[index].tokens[page * size..<(page + 1) * size]), step: step)
      running[index].rememberedPages += 1
    }
  }
}
