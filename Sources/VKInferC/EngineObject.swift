import CVKInfer
import Engine
import VulkanRuntime

/// An engine, or several that share out what their sessions generate. Each has a thread of its own (`EngineGroup`), on
/// which what happens to requests comes (`SessionObject.receive`), and states are saved and restored.
///
/// One lock guards what is known of the engines and of their sessions. It is held for moments only, never during a step.
final class EngineObject: HandleObject, @unchecked Sendable {
  static let kind: UInt = 2
  static let name = "engine"
  static let hasThreads = true

  let model: LanguageModel
  /// How embeddings are made.
  let pooling: Pooling
  let lock = Lock()
  /// Threads wait for something to read in any session.
  private let news = Condition()
  private let callbacks: Callbacks

  // Under the lock.
  /// Nil when the engine is closed.
  private var group: EngineGroup?
  private var sessions: [ObjectIdentifier: SessionObject] = [:]
  /// Sessions that have something to read, longest first.
  private var ready: [SessionObject] = []
  private var answers: [RequestID: Answer] = [:]
  private var generatingCount = 0
  private var waiterCount = 0

  /// The engines' threads.
  private let threads: [Thread]

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

  /// Loads a model, on a thread whose stack is large enough for any driver; returns when that is done.
  init(model: LanguageModel, options: EngineOptions, pooling: Pooling, callbacks: Callbacks) throws {
    self.model = model
    self.pooling = pooling
    self.callbacks = callbacks
    let group = try Thread.run { try Self.load(model, options, callbacks) }
    self.group = group
    threads = group.threads
  }

  private static func load(
    _ model: LanguageModel, _ options: EngineOptions, _ callbacks: Callbacks
  ) throws -> EngineGroup {
    let start = ContinuousClock.now
    let group = try EngineGroup(model: model, options: options) { _, step in
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
    } onNotice: { notice in
      switch notice {
      case .failure(let error): callbacks.log(VKINFER_LOG_ERROR, "\(error)")
      case .loss(let text): callbacks.log(VKINFER_LOG_INFO, text)
      }
    }
    let milliseconds = Int((ContinuousClock.now - start) / .milliseconds(1))
    for (index, engine) in group.engines.enumerated() {
      let number = group.engines.count > 1 ? "engine \(index): " : ""
      callbacks.log(
        VKINFER_LOG_INFO,
        "\(number)loaded onto \(engine.deviceName), with a context of \(engine.contextLength) tokens")
      if let text = engine.placementText { callbacks.log(VKINFER_LOG_INFO, "\(number)weights: \(text)") }
      if engine.placementTexts.count > 1 {
        for text in engine.placementTexts { callbacks.log(VKINFER_LOG_INFO, number + text) }
      }
      if let text = engine.meshPathText { callbacks.log(VKINFER_LOG_INFO, number + text) }
    }
    for text in group.engines[0].tuningTexts { callbacks.log(VKINFER_LOG_INFO, "tiling: \(text)") }
    callbacks.log(VKINFER_LOG_INFO, "loaded in \(milliseconds) ms")
    savePipelines(group, callbacks)
    return group
  }

  /// The next start is slower if this fails, nothing else.
  private static func savePipelines(_ group: EngineGroup, _ callbacks: Callbacks) {
    for engine in group.engines {
      do { try engine.savePipelineCache() } catch { callbacks.log(VKINFER_LOG_INFO, "\(error)") }
    }
  }

  // MARK: - From any thread

  /// Throws on an engine's own thread, which must not wait for itself.
  func checkMayWait() throws {
    guard !threads.contains(where: \.isCurrent) else {
      throw Failure(
        VKINFER_ERROR_STATE, "not from a callback on the engine's thread: it would wait for itself")
    }
  }

  /// Runs `body` on an engine's thread between two steps, and waits for it.
  func perform<Result>(on place: Int, _ body: @escaping (Engine) throws -> Result) throws -> Result {
    try checkMayWait()
    var result: Swift.Result<Result, any Error>?
    let done = Condition()
    let job = { [lock] (engine: Engine?) in
      let value = Swift.Result { () throws -> Result in
        guard let engine else { throw Self.closed }
        return try body(engine)
      }
      lock.withLock {
        result = value
        done.broadcast()
      }
    }
    return try lock.withLock {
      // Not kept while this waits: whoever closes the engine frees it.
      try openGroup().enqueue(on: place, job)
      while true {
        if let result { return try result.get() }
        _ = done.wait(lock)
      }
    }
  }

  /// The logits after a text, computed in a batch with what else there is.
  func logits(after tokens: [Int32], near place: Int?) throws -> [Float] {
    var request = GenerationRequest(prompt: tokens)
    request.wantsLogits = true
    return try numbers(of: request, near: place) { $0.logits }
  }

  /// The embedding of a text, in the same way.
  func embedding(of tokens: [Int32], near place: Int?) throws -> [Float] {
    var request = GenerationRequest(prompt: tokens)
    request.embedding = pooling
    return try numbers(of: request, near: place) { $0.embedding }
  }

  /// What comes with the token after a text.
  private func numbers(
    of request: GenerationRequest, near place: Int?,
    from part: @escaping @Sendable (GeneratedToken) -> [Float]?
  ) throws -> [Float] {
    var request = request
    request.maxTokens = 1
    request.ignoresEndOfText = true
    let answer = Answer(part)
    return try lock.withLock {
      let id = try openGroup().submit(request, near: place) { [lock] event in
        lock.withLock { answer.receive(event) }
      }
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

  /// Looks at the engines; with the lock held, so briefly.
  func inspect<Result>(_ body: (EngineGroup) throws -> Result) throws -> Result {
    try lock.withLock { try body(openGroup()) }
  }

  private static let closed = Failure(VKINFER_ERROR_HANDLE, "the engine was closed meanwhile")

  /// The engines; the lock is held.
  func openGroup() throws -> EngineGroup {
    guard let group else { throw Self.closed }
    return group
  }

  /// Ends the threads and frees the devices. Called once, by whoever took the handle.
  ///
  /// - Parameter freesHere: whether the calling thread frees the devices: while a library is unloaded, no other thread
  ///   can unload the driver. Else one does whose stack is large enough for any driver.
  /// - Returns: the sessions that were open.
  func close(freesHere: Bool = false) -> [SessionObject] {
    let (last, orphans) = lock.withLock {
      defer {
        group = nil
        sessions = [:]
        ready = []
      }
      for session in sessions.values { session.engineCloses() }
      for answer in answers.values { answer.end(.failure(Self.closed)) }
      news.broadcast()
      return (group, Array(sessions.values))
    }
    // Nobody else keeps it, now that the lock is free.
    var unfinished = last
    let free = { [callbacks] in
      unfinished?.end()
      if let unfinished { Self.savePipelines(unfinished, callbacks) }
      unfinished = nil
    }
    _ = consume last
    if freesHere || (try? Thread.run(free)) == nil { free() }
    return orphans
  }

  // MARK: - Sessions; the lock is held

  func add(_ session: SessionObject) throws {
    _ = try openGroup()
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
        _ = try openGroup()
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
