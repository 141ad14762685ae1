import CVKInfer
import Engine

/// An engine and its thread, which does everything on the device: loading, steps, saving and restoring, freeing.
///
/// One lock guards the state of the engine and of its sessions. It is held for moments only, never during a step; what
/// happens to a request comes on the engine's thread (`SessionObject.receive`).
final class EngineObject: HandleObject, @unchecked Sendable {
  static let kind: UInt = 2
  static let name = "engine"
  static let hasThreads = true

  let model: LanguageModel
  /// How embeddings are made.
  let pooling: Pooling
  let lock = Lock()
  /// The engine's thread waits for work.
  private let work = Condition()
  /// Threads wait for something to read in any session, or for a job.
  private let news = Condition()
  private let callbacks: Callbacks

  // Under the lock.
  private var engine: Engine?
  private var openFailure: Failure?
  private var isClosing = false
  /// Whether the thread that closes frees the engine.
  private var leavesEngine = false
  private var isStepWanted = false
  private var jobs: [Job] = []
  private var sessions: [ObjectIdentifier: SessionObject] = [:]
  /// Sessions that have something to read, longest first.
  private var ready: [SessionObject] = []
  private var answers: [RequestID: Answer] = [:]
  private var generatingCount = 0
  private var waiterCount = 0

  private var thread: Thread?

  /// What the caller wants to hear of.
  struct Callbacks: @unchecked Sendable {
    var progress: vkinfer_progress?
    var progressUser: UnsafeMutableRawPointer?
    var log: vkinfer_log?
    var logUser: UnsafeMutableRawPointer?

    func log(_ level: Int32, _ text: String) {
      guard let log else { return }
      text.withCString { log(logUser, UInt32(level), $0) }
    }
  }

  private struct Job {
    /// Called with nil when the engine is closed first.
    var run: (Engine?) -> Void
  }

  /// Loads a model; returns when that is done.
  init(model: LanguageModel, options: EngineOptions, pooling: Pooling, callbacks: Callbacks) throws {
    self.model = model
    self.pooling = pooling
    self.callbacks = callbacks
    // The thread holds this object until it has ended.
    let thread = try Thread { [self] in run(options) }
    self.thread = thread
    let failure = lock.withLock {
      while engine == nil, openFailure == nil { _ = news.wait(lock) }
      return openFailure
    }
    if let failure {
      thread.join()
      throw failure
    }
  }

  // MARK: - The engine's thread

  private func run(_ options: EngineOptions) {
    do {
      try load(options)
    } catch {
      lock.withLock {
        openFailure = Failure(error)
        news.broadcast()
      }
      return
    }
    var hasFailed = false
    var lossText: String?
    while let (engine, jobs) = nextWork() {
      for job in jobs { job.run(engine) }
      do {
        if try engine.step() { lock.withLock { isStepWanted = true } }
        hasFailed = false
      } catch {
        callbacks.log(VKINFER_LOG_ERROR, "\(error)")
        // What is left is made ready at once, not when the next request comes; whoever waits already goes on then.
        lock.withLock { if !hasFailed || generatingCount > 0 || !answers.isEmpty { isStepWanted = true } }
        hasFailed = true
      }
      if let text = engine.lossText, text != lossText {
        lossText = text
        callbacks.log(VKINFER_LOG_INFO, text)
      }
    }
    unload()
  }

  private func load(_ options: EngineOptions) throws {
    let start = ContinuousClock.now
    let loaded = try Engine(model: model, options: options) { [callbacks] step in
      guard let progress = callbacks.progress else { return }
      let result =
        switch step {
        case .weights(let loaded, let total):
          progress(
            callbacks.progressUser, UInt32(VKINFER_STAGE_WEIGHTS), UInt64(clamping: loaded),
            UInt64(clamping: total))
        case .kernels(let seconds):
          progress(
            callbacks.progressUser, UInt32(VKINFER_STAGE_KERNELS), UInt64(max(seconds, 0) * 1000), 0)
        }
      guard result == 0 else {
        throw Failure(VKINFER_ERROR_CANCELLED, "the progress callback stopped the load")
      }
    }
    let milliseconds = Int((ContinuousClock.now - start) / .milliseconds(1))
    callbacks.log(
      VKINFER_LOG_INFO,
      "loaded onto \(loaded.deviceName) in \(milliseconds) ms, with a context of \(loaded.contextLength) tokens"
    )
    for text in loaded.tuningTexts { callbacks.log(VKINFER_LOG_INFO, "tiling: \(text)") }
    savePipelines(loaded)
    lock.withLock {
      engine = loaded
      news.broadcast()
    }
  }

  /// Waits for something to do; nil once the engine is to close.
  private func nextWork() -> (Engine, [Job])? {
    lock.withLock {
      while !isClosing, !isStepWanted, jobs.isEmpty { _ = work.wait(lock) }
      guard !isClosing, let engine else { return nil }
      defer { jobs = [] }
      isStepWanted = false
      return (engine, jobs)
    }
  }

  private func unload() {
    let (last, unfinished, isLeft) = lock.withLock {
      defer { jobs = [] }
      return (engine, jobs, leavesEngine)
    }
    for job in unfinished { job.run(nil) }
    if let last { savePipelines(last) }
    // Freed here, where the stack is large enough for any driver, and without the lock.
    withExtendedLifetime(last) { if !isLeft { lock.withLock { engine = nil } } }
  }

  /// The next start is slower if this fails, nothing else.
  private func savePipelines(_ engine: Engine) {
    do { try engine.savePipelineCache() } catch { callbacks.log(VKINFER_LOG_INFO, "\(error)") }
  }

  // MARK: - From any thread

  /// Throws on the engine's own thread, which must not wait for itself.
  func checkMayWait() throws {
    guard thread?.isCurrent != true else {
      throw Failure(
        VKINFER_ERROR_STATE, "not from a callback on the engine's thread: it would wait for itself")
    }
  }

  /// Runs `body` on the engine's thread between two steps, and waits for it.
  func perform<Result>(_ body: @escaping (Engine) throws -> Result) throws -> Result {
    try checkMayWait()
    var result: Swift.Result<Result, any Error>?
    let done = Condition()
    let job = Job { [lock] engine in
      let value = Swift.Result { () throws -> Result in
        guard let engine else { throw Failure(VKINFER_ERROR_HANDLE, "the engine was closed meanwhile") }
        return try body(engine)
      }
      lock.withLock {
        result = value
        done.broadcast()
      }
    }
    return try lock.withLock {
      guard !isClosing else { throw Failure(VKINFER_ERROR_HANDLE, "the engine was closed meanwhile") }
      jobs.append(job)
      work.signal()
      while true {
        if let result { return try result.get() }
        _ = done.wait(lock)
      }
    }
  }

  /// The logits after a text, computed in a batch with what else there is.
  func logits(after tokens: [Int32]) throws -> [Float] {
    var request = GenerationRequest(prompt: tokens)
    request.wantsLogits = true
    return try numbers(of: request) { $0.logits }
  }

  /// The embedding of a text, in the same way.
  func embedding(of tokens: [Int32]) throws -> [Float] {
    var request = GenerationRequest(prompt: tokens)
    request.embedding = pooling
    return try numbers(of: request) { $0.embedding }
  }

  /// What comes with the token after a text.
  private func numbers(
    of request: GenerationRequest, from part: @escaping @Sendable (GeneratedToken) -> [Float]?
  ) throws -> [Float] {
    var request = request
    request.maxTokens = 1
    request.ignoresEndOfText = true
    let answer = Answer(part)
    return try lock.withLock {
      let id = try openEngine().submit(request) { [lock] event in
        lock.withLock { answer.receive(event) }
      }
      wake()
      answers[id] = answer
      defer { answers[id] = nil }
      while true {
        if let result = answer.result { return try result.get() }
        _ = answer.news.wait(lock)
      }
    }
  }

  /// What comes of a request for logits or an embedding; the lock guards it.
  private final class Answer: @unchecked Sendable {
    let news = Condition()
    private let part: @Sendable (GeneratedToken) -> [Float]?
    private var numbers: [Float]?
    private(set) var result: Swift.Result<[Float], any Error>?

    init(_ part: @escaping @Sendable (GeneratedToken) -> [Float]?) { self.part = part }

    func receive(_ event: GenerationEvent) {
      switch event {
      case .prompt: return
      case .token(let token): numbers = part(token)
      case .finished:
        end(
          numbers.map { .success($0) }
            ?? .failure(
              Failure(VKINFER_ERROR_PROMPT, "the context is full: there is no place after the text")))
      case .failed(let error): end(.failure(error))
      }
    }

    func end(_ result: Swift.Result<[Float], any Error>) {
      self.result = result
      news.broadcast()
    }
  }

  /// Looks at the engine; with the lock held, so briefly.
  func inspect<Result>(_ body: (Engine) throws -> Result) throws -> Result {
    try lock.withLock { try body(openEngine()) }
  }

  /// The engine; the lock is held.
  func openEngine() throws -> Engine {
    guard !isClosing, let engine else { throw Failure(VKINFER_ERROR_HANDLE, "the engine is closed") }
    return engine
  }

  /// There are new requests or cancellations; the lock is held.
  func wake() {
    isStepWanted = true
    work.signal()
  }

  /// Ends the thread. Called once, by whoever took the handle.
  ///
  /// - Parameter freesHere: whether the calling thread frees the device: while a library is unloaded, no other thread
  ///   can unload the driver.
  /// - Returns: the sessions that were open.
  func close(freesHere: Bool = false) -> [SessionObject] {
    let orphans = lock.withLock {
      defer {
        sessions = [:]
        ready = []
      }
      isClosing = true
      leavesEngine = freesHere
      for session in sessions.values { session.engineCloses() }
      let failure = Failure(VKINFER_ERROR_HANDLE, "the engine was closed meanwhile")
      for answer in answers.values { answer.end(.failure(failure)) }
      news.broadcast()
      work.signal()
      return Array(sessions.values)
    }
    thread?.join()
    // Not freed with the lock held.
    let last = lock.withLock {
      defer { engine = nil }
      return engine
    }
    withExtendedLifetime(last) {}
    return orphans
  }

  // MARK: - Sessions; the lock is held

  func add(_ session: SessionObject) throws {
    _ = try openEngine()
    sessions[ObjectIdentifier(session)] = session
  }

  func remove(_ session: SessionObject) {
    sessions[ObjectIdentifier(session)] = nil
    ready.removeAll { $0 === session }
  }

  func generationBegins() { generatingCount += 1 }

  func generationEnds() {
    generatingCount -= 1
    if generatingCount == 0 { news.broadcast() }
  }

  /// A session has something to read.
  func announce(_ session: SessionObject) {
    if !session.isAnnounced {
      session.isAnnounced = true
      ready.append(session)
    }
    if waiterCount > 0 { news.signal() }
  }

  /// Waits for a session that has something to read; the lock is not held.
  func wait(_ deadline: Deadline) throws -> (status: vkinfer_status, session: OpaquePointer?) {
    try checkMayWait()
    return try lock.withLock {
      waiterCount += 1
      defer { waiterCount -= 1 }
      while true {
        _ = try openEngine()
        while !ready.isEmpty {
          let session = ready.removeFirst()
          session.isAnnounced = false
          guard session.hasUnread else { continue }
          // Behind the others, as long as there is more to read.
          session.isAnnounced = true
          ready.append(session)
          return (VKINFER_OK, session.handle)
        }
        guard generatingCount > 0 else { return (VKINFER_DONE, nil) }
        guard news.wait(lock, until: deadline) else { return (VKINFER_TIMEOUT, nil) }
      }
    }
  }
}
