import Dispatch
import Synchronization

/// What takes requests and generates them, many at a time: an engine, or several behind one queue.
public protocol RequestServer: Sendable {
  @discardableResult
  func submit(
    _ request: GenerationRequest, onEvent: @escaping @Sendable (GenerationEvent) -> Void
  ) throws -> RequestID
  func cancel(_ id: RequestID)
  /// Goes on with all requests, for a while. Returns whether there is more to do.
  func step() throws -> Bool
}

extension Engine: RequestServer {}

/// Engines of one model on devices of their own, behind one queue: a request goes to the engine with the fewest, and
/// waits in the queue while all have as many as they generate at a time.
///
/// Each engine has a thread that runs its steps and on which the events of its requests are handled. An engine whose
/// devices fail gets requests again when those that are left work; not when it fails again before it has finished any.
public final class EngineGroup: RequestServer {
  public let engines: [Engine]
  private let queue: RequestQueue
  private let workers = DispatchGroup()

  /// Loads `options.dataParallel` engines, one after the other.
  ///
  /// - Parameter onProgress: called some times a second with the engine that is loading; throwing stops the load.
  public init(
    model: LanguageModel, options: EngineOptions,
    onProgress: @escaping (_ engine: Int, LoadProgress) throws -> Void = { _, _ in }
  ) throws {
    guard (1...64).contains(options.dataParallel) else {
      throw EngineError(.option, "\(options.dataParallel) engines are not possible: use 1 to 64")
    }
    let engines = try (0..<options.dataParallel).map { index in
      var options = options
      options.replica = index
      return try Engine(model: model, options: options) { try onProgress(index, $0) }
    }
    self.engines = engines
    let queue = RequestQueue(engines: engines)
    self.queue = queue
    for index in engines.indices {
      DispatchQueue(label: "engine \(index)", qos: .userInitiated).async(group: workers) { queue.work(index) }
    }
  }

  deinit {
    queue.end()
    workers.wait()
  }

  /// - Throws: one line when the request is not possible.
  @discardableResult
  public func submit(
    _ request: GenerationRequest, onEvent: @escaping @Sendable (GenerationEvent) -> Void
  ) throws -> RequestID {
    // Engines are alike but for their memory: the shortest context holds for all.
    for engine in engines { try engine.check(request.prompt) }
    try request.validate()
    return queue.add(request, onEvent: onEvent)
  }

  public func cancel(_ id: RequestID) { queue.cancel(id) }

  /// Waits until something has happened to a request, a tenth of a second at most.
  public func step() throws -> Bool { try queue.wait() }

  /// Requests that each engine has been given so far.
  package var givenCounts: [Int] { queue.givenCounts }
}

/// The requests of a group of engines, and which engine each one is on.
private final class RequestQueue: Sendable {
  private struct Entry: Sendable {
    var request: GenerationRequest
    var onEvent: @Sendable (GenerationEvent) -> Void
  }

  private struct State: Sendable {
    var count: UInt64 = 0
    var waiting: [(id: UInt64, entry: Entry)] = []
    var running: [UInt64: (engine: Int, id: RequestID)] = [:]
    var loads: [Int]
    var given: [Int]
    var conditions: [Condition]
    var isEnding = false
    var hasNews = false
  }

  private enum Condition: Sendable {
    case works
    /// It failed after the last request that it finished, and works again.
    case onTrial
    /// It failed, and may work again before long.
    case failed(any Error)
    /// It gets no more requests.
    case dead(any Error)

    var takesRequests: Bool {
      switch self {
      case .works, .onTrial: true
      case .failed, .dead: false
      }
    }
  }

  private let engines: [Engine]
  private let state: Mutex<State>
  private let news = DispatchSemaphore(value: 0)
  private let wakes: [DispatchSemaphore]

  init(engines: [Engine]) {
    self.engines = engines
    let none = engines.map { _ in 0 }
    state = Mutex(State(loads: none, given: none, conditions: engines.map { _ in .works }))
    wakes = engines.map { _ in DispatchSemaphore(value: 0) }
  }

  var givenCounts: [Int] { state.withLock(\.given) }

  func add(
    _ request: GenerationRequest, onEvent: @escaping @Sendable (GenerationEvent) -> Void
  ) -> RequestID {
    let id = state.withLock { state in
      state.count += 1
      state.waiting.append((state.count, Entry(request: request, onEvent: onEvent)))
      return state.count
    }
    deal()
    return RequestID(number: id)
  }

  func cancel(_ id: RequestID) {
    let (place, dropped) = state.withLock { state -> ((engine: Int, id: RequestID)?, Entry?) in
      if let place = state.running[id.number] { return (place, nil) }
      guard let index = state.waiting.firstIndex(where: { $0.id == id.number }) else { return (nil, nil) }
      return (nil, state.waiting.remove(at: index).entry)
    }
    if let place {
      engines[place.engine].cancel(place.id)
      wakes[place.engine].signal()
    }
    if let dropped {
      dropped.onEvent(
        .finished(
          GenerationResult(
            text: "", tokens: [], logprobs: [], promptTokenCount: dropped.request.prompt.count,
            sharedTokenCount: 0, finishReason: .cancelled, timeToFirstToken: 0, decodeSeconds: 0)))
      tell()
    }
  }

  /// Hands requests to engines that have room for them.
  private func deal() {
    while true {
      // Under the lock, so that a request is known to run before its first event.
      let outcome = state.withLock { state -> (engine: Int, failed: Entry?, error: (any Error)?)? in
        guard !state.waiting.isEmpty else { return nil }
        let alive = engines.indices.filter { state.conditions[$0].takesRequests }
        guard let best = alive.min(by: { state.loads[$0] < state.loads[$1] }) else {
          // One that may yet work is waited for.
          for condition in state.conditions { if case .failed = condition { return nil } }
          guard case .dead(let error) = state.conditions[0] else { return nil }
          return (0, state.waiting.removeFirst().entry, error)
        }
        guard state.loads[best] < engines[best].maxSequences else { return nil }
        let (id, entry) = state.waiting.removeFirst()
        do {
          let place = try engines[best].submit(entry.request) { [self] event in
            entry.onEvent(event)
            switch event {
            case .failed(let error):
              // Before it counts as idle: it gets no more, if not the request was at fault.
              if (error as? EngineError)?.kind != .prompt { noteFailure(error, of: best) }
              end(id, engine: best)
            case .finished:
              self.state.withLock { if case .onTrial = $0.conditions[best] { $0.conditions[best] = .works } }
              end(id, engine: best)
            case .prompt, .token: tell()
            }
          }
          state.running[id] = (best, place)
          state.loads[best] += 1
          state.given[best] += 1
          return (best, nil, nil)
        } catch {
          return (best, entry, error)
        }
      }
      guard let outcome else { return }
      if let entry = outcome.failed, let error = outcome.error {
        entry.onEvent(.failed(error))
        tell()
      } else {
        wakes[outcome.engine].signal()
      }
    }
  }

  /// An engine that fails while it is on trial is done with.
  private func noteFailure(_ error: any Error, of engine: Int) {
    state.withLock { state in
      switch state.conditions[engine] {
      case .works: state.conditions[engine] = .failed(error)
      case .onTrial: state.conditions[engine] = .dead(error)
      case .failed, .dead: break
      }
    }
  }

  private func end(_ id: UInt64, engine: Int) {
    state.withLock { state in
      state.running[id] = nil
      state.loads[engine] -= 1
    }
    deal()
    tell()
  }

  private func tell() {
    let isNew = state.withLock { state in
      defer { state.hasNews = true }
      return !state.hasNews
    }
    if isNew { news.signal() }
  }

  func wait() throws -> Bool {
    let isIdle = { (state: State) in state.waiting.isEmpty && state.running.isEmpty }
    if state.withLock({ isIdle($0) && !$0.hasNews }) { return false }
    _ = news.wait(timeout: .now() + .milliseconds(100))
    return state.withLock { state in
      state.hasNews = false
      return !isIdle(state)
    }
  }

  /// Runs the steps of an engine until the group ends.
  func work(_ index: Int) {
    while !state.withLock(\.isEnding) {
      wakes[index].wait()
      do {
        while try !state.withLock(\.isEnding) && engines[index].step() {}
      } catch {
        // Its requests have ended with the error; what waits goes to the others.
        noteFailure(error, of: index)
        deal()
        repair(index)
      }
    }
  }

  /// Finds out whether an engine that failed can go on: its next step says so.
  private func repair(_ index: Int) {
    let outcome = Result { try engines[index].step() }
    let isBusy = state.withLock { state in
      switch (outcome, state.conditions[index]) {
      case (.success, .failed): state.conditions[index] = .onTrial
      case (.failure(let error), _): state.conditions[index] = .dead(error)
      default: break
      }
      return state.running.values.contains { $0.engine == index }
    }
    deal()
    // One that came during the step that failed has not ended yet.
    if isBusy { wakes[index].signal() }
  }

  func end() {
    state.withLock { $0.isEnding = true }
    for wake in wakes { wake.signal() }
  }
}
