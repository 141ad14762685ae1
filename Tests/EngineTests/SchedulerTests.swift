import ModelFiles
import Testing

@testable import Engine

/// The scheduler as a value, against a device that only remembers which tokens each place of each page was computed for.
@Suite struct SchedulerTests {
  /// What keys and values at a place depend on: the tokens up to it.
  typealias History = UInt64

  static func history(_ before: History, _ token: Int32) -> History {
    (before ^ UInt64(UInt32(bitPattern: token))) &* 0x9E37_79B9_7F4A_7C15 &+ before >> 29 &+ 1
  }

  /// The token that follows a history: any function will do.
  static func next(_ history: History) -> Int32 { Int32(history >> 40 & 3) }

  /// Steps wait in a queue; block tables are read when a step runs, not when it is made.
  struct Device {
    let pageTokens: Int
    var cache: [[History]]
    var tables: [[UInt32]]
    var lastTokens: [Int32]
    var queue: [(moves: [PageMove], parts: [ScheduledPart])] = []
    /// Pages in host memory.
    var host: [Int: [History]] = [:]

    init(slots: Int, pages: Int, pageTokens: Int) {
      self.pageTokens = pageTokens
      cache = Array(repeating: Array(repeating: 0, count: pageTokens), count: pages)
      tables = Array(repeating: Array(repeating: 0, count: pages), count: slots)
      lastTokens = Array(repeating: -1, count: slots)
    }

    mutating func submit(_ parts: [ScheduledPart], _ moves: [PageMove]) {
      for part in parts {
        for index in part.firstNewPage..<part.pages.count { tables[part.slot][index] = part.pages[index] }
      }
      queue.append((moves, parts))
    }

    /// Runs the oldest step; the tokens that it draws.
    mutating func run() -> (parts: [ScheduledPart], tokens: [Int32]) {
      let (moves, parts) = queue.removeFirst()
      for move in moves {
        switch move {
        case .toHost(let page, let hostPage): host[hostPage] = cache[Int(page)]
        case .toDevice(let hostPage, let page): cache[Int(page)] = host[hostPage]!
        }
      }
      for copy in parts.compactMap(\.copy) { cache[Int(copy.to)] = cache[Int(copy.from)] }
      // In each layer a step writes all its keys and values before it reads any.
      let rows = parts.flatMap { part in (0..<part.count).map { (part, $0) } }
      for (part, index) in rows.sorted(by: { $0.0.position + $0.1 < $1.0.position + $1.1 }) {
        let position = part.position + index
        let token = part.tokens.isEmpty ? lastTokens[part.slot] : part.tokens[part.tokens.startIndex + index]
        self[part.slot, position] = SchedulerTests.history(
          position == 0 ? 0 : self[part.slot, position - 1], token)
      }
      var tokens: [Int32] = []
      for part in parts where part.drawsToken {
        let token = SchedulerTests.next(self[part.slot, part.position + part.count - 1])
        lastTokens[part.slot] = token
        tokens.append(token)
      }
      return (parts.filter(\.drawsToken), tokens)
    }

    subscript(slot: Int, position: Int) -> History {
      get { cache[Int(tables[slot][position / pageTokens])][position % pageTokens] }
      set { cache[Int(tables[slot][position / pageTokens])][position % pageTokens] = newValue }
    }
  }

  /// What a sequence alone would be.
  static func alone(_ prompt: [Int32], limit: Int, end: Int32?) -> [Int32] {
    var history: History = 0
    for token in prompt { history = Self.history(history, token) }
    var tokens: [Int32] = []
    while prompt.count + tokens.count < limit {
      let token = next(history)
      tokens.append(token)
      if token == end { break }
      history = Self.history(history, token)
    }
    return tokens
  }

  struct Request {
    var prompt: [Int32]
    var limit: Int
    /// The token that ends it, if any.
    var end: Int32?
    var arrival: Int
    var tokens: [Int32] = []
    var firstStep: Int?
  }

  @Test(arguments: 0..<12 as Range<UInt64>)
  func everySequenceIsAsIfAlone(seed: UInt64) {
    var random = SplitMix64(state: seed)
    let pageTokens = 4
    let slots = Int.random(in: 1...9, using: &random)
    let pageCount = Int.random(in: 12...40, using: &random)
    let promptTokens = Int.random(in: 1...24, using: &random)
    let ahead = Int.random(in: 1...3, using: &random)
    let hostPages = seed % 3 == 0 ? 0 : Int.random(in: 1...40, using: &random)
    var scheduler = Scheduler(
      limits: Scheduler.Limits(
        sequences: slots, promptTokens: promptTokens, mixedTokens: max(1, promptTokens / 2)),
      pages: PageAllocator(pageCount: pageCount, pageTokens: pageTokens), hostPageCount: hostPages)
    var device = Device(slots: slots, pages: pageCount, pageTokens: pageTokens)
    var active: [UInt64: Request] = [:]
    var arrived: UInt64 = 0
    var finished = 0
    let total: UInt64 = 1000
    var beginnings: [[Int32]] = [[]]
    var step = 0
    while arrived < total || !active.isEmpty || !device.queue.isEmpty {
      while arrived < total, active.count < 30, Int.random(in: 0..<3, using: &random) > 0 {
        // Some begin as others did.
        var prompt = Array(
          beginnings.randomElement(using: &random)!.prefix(.random(in: 0...24, using: &random)))
        for _ in 0..<Int.random(in: 1...9, using: &random) {
          prompt.append(.random(in: 0...3, using: &random))
        }
        beginnings.append(prompt)
        if beginnings.count > 6 { beginnings.remove(at: .random(in: 0..<6, using: &random)) }
        let limit = min(prompt.count + .random(in: 1...30, using: &random), pageCount * pageTokens)
        guard limit > prompt.count else { continue }
        active[arrived] = Request(
          prompt: prompt, limit: limit, end: Bool.random(using: &random) ? 3 : nil, arrival: step)
        scheduler.add(id: arrived, prompt: prompt, limit: limit)
        arrived += 1
      }
      if Int.random(in: 0..<8, using: &random) == 0,
        let id = active.keys.sorted().randomElement(using: &random)
      {
        scheduler.remove(id: id)
        active[id] = nil
      }
      while device.queue.count < ahead, let parts = scheduler.nextStep() {
        let rows = parts.filter { !($0.count == 1 && $0.drawsToken) }.reduce(0) { $0 + $1.count }
        #expect(rows <= promptTokens)
        // The oldest of all is always under way.
        if let oldest = active.keys.min(), scheduler.running.first?.id != oldest {
          #expect(
            scheduler.running.isEmpty || scheduler.running.first!.id > oldest, "a younger one started first")
          #expect(scheduler.waiting.first?.id == oldest)
        }
        device.submit(parts, scheduler.takeMoves())
        step += 1
      }
      guard !device.queue.isEmpty else {
        #expect(scheduler.isIdle || device.queue.isEmpty)
        continue
      }
      let (parts, tokens) = device.run()
      for (part, token) in zip(parts, tokens)
      where scheduler.accept(token, id: part.id, epoch: part.epoch) {
        guard var request = active[part.id] else {
          Issue.record("a token for sequence \(part.id), which has ended")
          continue
        }
        request.tokens.append(token)
        active[part.id] = request
        guard token == request.end || request.prompt.count + request.tokens.count == request.limit else {
          continue
        }
        #expect(request.tokens == Self.alone(request.prompt, limit: request.limit, end: request.end))
        scheduler.remove(id: part.id)
        active[part.id] = nil
        finished += 1
      }
      scheduler.finishStep()
    }
    #expect(finished > 300)
    #expect(pageCount > 20 || slots < 4 || scheduler.preemptionCount > 0, "pages never ran short")
    #expect(scheduler.preemptionCount < 10 || hostPages < 20 || scheduler.returnedPageCount > 0)
    #expect(scheduler.isIdle)
    #expect(Set(scheduler.freeHostPages) == Set(0..<hostPages) && scheduler.freeHostPages.count == hostPages)
    #expect(scheduler.pages.availableCount == pageCount)
    #expect((0..<UInt32(pageCount)).allSatisfy { scheduler.pages.holderCount($0) == 0 })
  }

  /// Steps that a sequence waits are bounded by the work of those that came before it.
  @Test func nobodyStarves() {
    var scheduler = Scheduler(
      limits: Scheduler.Limits(sequences: 4, promptTokens: 8, mixedTokens: 4),
      pages: PageAllocator(pageCount: 16, pageTokens: 4))
    var device = Device(slots: 4, pages: 16, pageTokens: 4)
    // A long one first; short ones keep coming for as long as it runs.
    scheduler.add(id: 0, prompt: Array(repeating: 1, count: 40), limit: 64)
    var steps = 0
    var drawn = 0
    var arrived: UInt64 = 1
    while drawn < 24 {
      scheduler.add(id: arrived, prompt: [Int32(arrived % 4), 2], limit: 12)
      arrived += 1
      guard let parts = scheduler.nextStep() else {
        Issue.record("nothing to do")
        return
      }
      device.submit(parts, scheduler.takeMoves())
      steps += 1
      let (drawing, tokens) = device.run()
      for (part, token) in zip(drawing, tokens) where scheduler.accept(token, id: part.id, epoch: part.epoch)
      {
        if part.id == 0 { drawn += 1 }
        if let sequence = scheduler.running.first(where: { $0.id == part.id }),
          sequence.tokens.count == sequence.limit
        {
          scheduler.remove(id: part.id)
        }
      }
      scheduler.finishStep()
    }
    // Five steps of eight tokens for the prompt, one of which draws, then one for each token.
    #expect(steps == 5 + 23)
  }

  @Test func aSharedBeginningIsComputedOnce() {
    var scheduler = Scheduler(
      limits: Scheduler.Limits(sequences: 4, promptTokens: 64, mixedTokens: 64),
      pages: PageAllocator(pageCount: 32, pageTokens: 4))
    let beginning: [Int32] = (0..<16).map { $0 }
    scheduler.add(id: 0, prompt: beginning + [50], limit: 20)
    scheduler.add(id: 1, prompt: beginning + [60, 61], limit: 20)
    // In the same step even: attention reads what the step itself writes.
    let parts = scheduler.nextStep()!
    #expect(parts.map(\.position) == [0, 16])
    #expect(parts.map(\.count) == [17, 2])
    #expect(parts[0].pages.prefix(4) == parts[1].pages.prefix(4))
    #expect(parts[0].pages[4] != parts[1].pages[4])
    #expect(scheduler.pages.holderCount(parts[0].pages[0]) == 2)
    scheduler.finishStep()
    scheduler.remove(id: 0)
    scheduler.remove(id: 1)
    #expect(scheduler.pages.availableCount == 32)
    // One that goes on within a page gets a copy of it.
    scheduler.add(id: 2, prompt: Array(beginning[..<15]) + [70], limit: 20)
    let later = scheduler.nextStep()!
    #expect(later[0].position == 15 && later[0].count == 1)
    #expect(later[0].copy?.from == parts[0].pages[3] && later[0].copy?.to == later[0].pages[3])
    #expect(scheduler.pages.holderCount(parts[0].pages[3]) == 0)
  }
}
