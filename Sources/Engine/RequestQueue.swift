import VulkanRuntime

/// The requests of a group of engines, which engine each one is on, and what the engines' threads have to do.
///
/// One lock guards it, which is not held during steps nor while events are handled. Events come on the engines' threads,
/// also those of requests that never got to an engine.
final class RequestQueue: @unchecked Sendable {
  private struct Entry {
    var id: UInt64
    var request: GenerationRequest
    /// The engine that it had better go to.
    var place: Int?
    var onEvent: @Sendable (GenerationEvent) -> Void
  }

  private enum Health {
    case works
    /// It failed after the last request that it finished, and works again.
    case onTrial
    /// It failed, and may work again before long.
    case failed(any Error)
    /// It gets no more requests.
    case dead(any Error)
  }

  /// What the thread of an engine has to do.
  private struct Worker {
    let wake = Condition()
    var health = Health.works
    var isStepWanted = false
    var jobs: [(Engine?) -> Void] = []
    /// Requests that it has, and was given so far.
    var load = 0
    var given = 0
    /// What was said of its lost devices.
    var lossText: String?
  }

  /// None once the group has ended: requests under way know of this queue.
  private var engines: [Engine]
  private let lock = Lock()
  private let newsCame = Condition()
  private let onNotice: @Sendable (EngineNotice) -> Void

  // Under the lock.
  private var workers: [Worker]
  private var count: UInt64 = 0
  private var waiting: [Entry] = []
  private var running: [UInt64: (engine: Int, id: RequestID)] = [:]
  /// The ends of requests that got to no engine, to be handled on the first one's thread.
  private var endings: [(onEvent: @Sendable (GenerationEvent) -> Void, event: GenerationEvent)] = []
  private var isEnding = false
  private var hasNews = false

  init(engines: [Engine], onNotice: @escaping @Sendable (EngineNotice) -> Void) {
    self.engines = engines
    workers = engines.map { _ in Worker() }
    self.onNotice = onNotice
  }

  var givenCounts: [Int] { lock.withLock { workers.map(\.given) } }

  func place(of id: RequestID) -> Int? { lock.withLock { running[id.number]?.engine } }

  func home(near place: Int?) -> Int {
    lock.withLock {
      if let place, takesRequests(place) { return place }
      return idlest ?? place ?? 0
    }
  }

  // MARK: - Requests

  func add(
    _ request: GenerationRequest, near place: Int?,
    onEvent: @escaping @Sendable (GenerationEvent) -> Void
  ) throws -> RequestID {
    try lock.withLock {
      count += 1
      let entry = Entry(id: count, request: request, place: place, onEvent: onEvent)
      if workers.count == 1 {
        try give(entry, to: 0)
      } else {
        waiting.append(entry)
        deal()
      }
      return RequestID(number: count)
    }
  }

  func cancel(_ id: RequestID) {
    lock.withLock {
      if let place = running[id.number] {
        engines[place.engine].cancel(place.id)
        wake(place.engine)
      } else if let index = waiting.firstIndex(where: { $0.id == id.number }) {
        let dropped = waiting.remove(at: index)
        end(
          dropped,
          .finished(
            GenerationResult(
              text: "", tokens: [], logprobs: [], promptTokenCount: dropped.request.prompt.count,
              sharedTokenCount: 0, finishReason: .cancelled, timeToFirstToken: 0, decodeSeconds: 0)))
      }
    }
  }

  func add(_ job: @escaping (Engine?) -> Void, to engine: Int) {
    lock.withLock {
      workers[engine].jobs.append(job)
      workers[engine].wake.signal()
    }
  }

  /// Waits until something has happened; false when all requests have ended.
  func wait() -> Bool {
    lock.withLock {
      guard hasNews || !isIdle else { return false }
      if !hasNews { _ = newsCame.wait(lock, until: Deadline(milliseconds: 100)) }
      hasNews = false
      return !isIdle
    }
  }

  // MARK: - With the lock held

  private var isIdle: Bool { waiting.isEmpty && running.isEmpty && endings.isEmpty }

  private func takesRequests(_ engine: Int) -> Bool {
    switch workers[engine].health {
    case .works, .onTrial: true
    case .failed, .dead: workers.count == 1
    }
  }

  /// The engine with the fewest requests of those that take any.
  private var idlest: Int? {
    workers.indices.filter(takesRequests).min { workers[$0].load < workers[$1].load }
  }

  private func hasRoom(_ engine: Int) -> Bool {
    workers[engine].load < engines[engine].maxSequences
  }

  /// Hands requests to engines that have room for them.
  private func deal() {
    while let entry = waiting.first {
      var best = idlest
      if let place = entry.place, takesRequests(place), hasRoom(place) { best = place }
      guard let best else {
        // One that may yet work is waited for.
        for worker in workers { if case .failed = worker.health { return } }
        guard case .dead(let error) = workers[0].health else { return }
        end(waiting.removeFirst(), .failed(error))
        continue
      }
      guard hasRoom(best) else { return }
      waiting.removeFirst()
      do { try give(entry, to: best) } catch { end(entry, .failed(error)) }
    }
  }

  /// Known to run before its first event comes, since that waits for the lock.
  private func give(_ entry: Entry, to engine: Int) throws {
    let place = try engines[engine].submit(entry.request) { [self] event in
      entry.onEvent(event)
      note(event, of: entry.id, on: engine)
    }
    running[entry.id] = (engine, place)
    workers[engine].load += 1
    workers[engine].given += 1
    wake(engine)
  }

  private func isDead(_ engine: Int) -> Bool {
    if case .dead = workers[engine].health { true } else { false }
  }

  private func isBusy(_ engine: Int) -> Bool { workers[engine].load > 0 }

  private func end(_ entry: Entry, _ event: GenerationEvent) {
    endings.append((entry.onEvent, event))
    workers[0].wake.signal()
  }

  private func wake(_ engine: Int) {
    workers[engine].isStepWanted = true
    workers[engine].wake.signal()
  }

  private func tell() {
    hasNews = true
    newsCame.broadcast()
  }

  /// An engine that fails while it is on trial is done with.
  private func noteFailure(_ error: any Error, of engine: Int) {
    switch workers[engine].health {
    case .works: workers[engine].health = .failed(error)
    case .onTrial: workers[engine].health = .dead(error)
    case .failed, .dead: break
    }
  }

  // MARK: - The engines' threads

  /// Something has happened to a request, and was handled.
  private func note(_ event: GenerationEvent, of id: UInt64, on engine: Int) {
    lock.withLock {
      switch event {
      case .prompt, .token: break
      case .finished:
        switch workers[engine].health {
        case .onTrial: workers[engine].health = .works
        case .dead where workers.count == 1: workers[engine].health = .works
        case .works, .failed, .dead: break
        }
        release(id, engine: engine)
      case .failed(let error):
        // Before it counts as idle: it gets no more, if not the request was at fault.
        if (error as? EngineError)?.kind != .prompt { noteFailure(error, of: engine) }
        release(id, engine: engine)
      }
      tell()
    }
  }

  private func release(_ id: UInt64, engine: Int) {
    running[id] = nil
    workers[engine].load -= 1
    deal()
  }

  /// Runs what an engine has to do until the group ends.
  func work(_ index: Int) {
    let engine = engines[index]
    while let (jobs, endings) = next(index) {
      for ending in endings { ending.onEvent(ending.event) }
      if !endings.isEmpty { lock.withLock { tell() } }
      for job in jobs { job(engine) }
      do {
        if try engine.step() { lock.withLock { wake(index) } }
      } catch {
        onNotice(.failure(error))
        repair(index, after: error)
      }
      noteLoss(index)
    }
    let left = lock.withLock {
      defer { workers[index].jobs = [] }
      return workers[index].jobs
    }
    for job in left { job(nil) }
  }

  /// Waits for something to do; nil once the group ends.
  private func next(
    _ index: Int
  ) -> (
    jobs: [(Engine?) -> Void],
    endings: [(onEvent: @Sendable (GenerationEvent) -> Void, event: GenerationEvent)]
  )? {
    lock.withLock {
      while !isEnding, !workers[index].isStepWanted, workers[index].jobs.isEmpty,
        index > 0 || endings.isEmpty
      {
        _ = workers[index].wake.wait(lock)
      }
      guard !isEnding else { return nil }
      defer {
        workers[index].isStepWanted = false
        workers[index].jobs = []
        if index == 0 { endings = [] }
      }
      return (workers[index].jobs, index == 0 ? endings : [])
    }
  }

  /// Finds out at once, not when the next request comes, whether an engine that failed can go on: its next step says so.
  private func repair(_ index: Int, after error: any Error) {
    let wasDead = lock.withLock {
      let wasDead = isDead(index)
      // Its requests have ended with the error; what waits goes to the others.
      noteFailure(error, of: index)
      deal()
      if isBusy(index) { wake(index) }
      return wasDead
    }
    guard !wasDead else { return }
    let outcome = Result { try engines[index].step() }
    if case .failure(let error) = outcome { onNotice(.failure(error)) }
    lock.withLock {
      switch (outcome, workers[index].health) {
      case (.success, .failed): workers[index].health = .onTrial
      case (.failure(let error), _): workers[index].health = .dead(error)
      default: break
      }
      deal()
      // One that came during the step that failed has not ended yet.
      if isBusy(index) { wake(index) }
    }
  }

  private func noteLoss(_ index: Int) {
    let engine = engines[index]
    guard let text = engine.lossText else { return }
    let isNew = lock.withLock {
      defer { workers[index].lossText = text }
      return workers[index].lossText != text
    }
    if isNew { onNotice(.loss(text)) }
  }

  func end() {
    lock.withLock {
      isEnding = true
      for worker in workers { worker.wake.signal() }
    }
  }

  /// Lets go of the engines, whose threads have ended.
  func release() {
    lock.withLock {
      running = [:]
      engines = []
    }
  }
}
