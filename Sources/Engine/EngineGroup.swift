import VulkanRuntime

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

/// What an engine of a group met with.
public enum EngineNotice: Sendable {
  /// A step failed; whom it concerns has heard of it.
  case failure(any Error)
  /// Devices were lost, and what was done about it: a line.
  case loss(String)
}

/// Engines of one model on devices of their own, behind one queue: a request goes to the engine with the fewest, and
/// waits in the queue while all have as many as they generate at a time. A single engine has all of them at once, and
/// its own queue.
///
/// Each engine has a thread that runs its steps, and on which the events of its requests are handled. An engine whose
/// devices fail gets requests again when those that are left work; not when it fails again before it has finished any,
/// and others are there.
public final class EngineGroup: RequestServer {
  public let engines: [Engine]
  private let queue: RequestQueue
  /// The engines' threads.
  package let threads: [Thread]
  private let hasEnded = Guarded(false)

  /// Loads `options.dataParallel` engines, one after the other.
  ///
  /// - Parameters:
  ///   - onProgress: called some times a second with the engine that is loading; throwing stops the load.
  ///   - onNotice: called on an engine's thread.
  public init(
    model: LanguageModel, options: EngineOptions,
    onProgress: @escaping (_ engine: Int, LoadProgress) throws -> Void = { _, _ in },
    onNotice: @escaping @Sendable (EngineNotice) -> Void = { _ in }
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
    let queue = RequestQueue(engines: engines, onNotice: onNotice)
    self.queue = queue
    var threads: [Thread] = []
    do {
      for index in engines.indices { threads.append(try Thread { queue.work(index) }) }
    } catch {
      queue.end()
      for thread in threads { thread.join() }
      queue.release()
      throw error
    }
    self.threads = threads
  }

  deinit { end() }

  /// Ends the threads after the steps under way: nothing happens to any request any more.
  package func end() {
    let isFirst = hasEnded.withLock { hasEnded in
      defer { hasEnded = true }
      return !hasEnded
    }
    guard isFirst else { return }
    queue.end()
    // Whoever lets go last may be one of these threads, in a handler: it lets go of the engines when it ends.
    let isOwn = threads.contains(where: \.isCurrent)
    for thread in threads where !thread.isCurrent { thread.join() }
    if !isOwn { queue.release() }
  }

  /// - Throws: one line when the request is not possible.
  @discardableResult
  public func submit(
    _ request: GenerationRequest, onEvent: @escaping @Sendable (GenerationEvent) -> Void
  ) throws -> RequestID {
    try submit(request, near: nil, onEvent: onEvent)
  }

  /// - Parameter place: the engine that knows keys and values of the prompt; it gets the request if it has room.
  package func submit(
    _ request: GenerationRequest, near place: Int?,
    onEvent: @escaping @Sendable (GenerationEvent) -> Void
  ) throws -> RequestID {
    // Engines are alike but for their memory: the shortest context holds for all.
    for engine in engines { try engine.check(request.prompt) }
    try request.validate()
    return try queue.add(request, near: place, onEvent: onEvent)
  }

  public func cancel(_ id: RequestID) { queue.cancel(id) }

  /// Waits until something has happened to a request, a tenth of a second at most.
  public func step() throws -> Bool { queue.wait() }

  /// Runs `job` on an engine's thread between two of its steps; with nil if the group ends first.
  package func enqueue(on engine: Int, _ job: @escaping (Engine?) -> Void) {
    queue.add(job, to: engine)
  }

  /// The engine that a request is on, until its last event is handled.
  package func place(of id: RequestID) -> Int? { queue.place(of: id) }

  /// `place` if that engine works, else the engine with the fewest requests.
  package func home(near place: Int?) -> Int { queue.home(near: place) }

  /// Requests that each engine has been given so far.
  package var givenCounts: [Int] { queue.givenCounts }
}
