import CVKInfer
import Engine
import VulkanRuntime

/// One text on an engine: its tokens, and what a generation has brought that nobody has read. The engine's lock guards it.
final class SessionObject: HandleObject, @unchecked Sendable {
  static let kind: UInt = 3
  static let name = "session"
  static let hasThreads = true

  let engine: EngineObject
  /// Threads wait for the next token.
  private let news = Condition()

  // Under the engine's lock.
  var handle: OpaquePointer?
  /// Whether it is among the engine's sessions that have something to read.
  var isAnnounced = false
  private var tokens: [Int32] = []
  private var phase = Phase.idle
  private var isClosed = false
  private var request: RequestID?
  /// The engine that knows keys and values of the text, of those that share out sessions.
  private var place: Int?
  private var unread: [News] = []
  /// Of `unread`, those that are read.
  private var readCount = 0
  /// Bytes of text in the tokens so far: the rest of the whole text was held back.
  private var shownBytes = 0
  private var result = vkinfer_result()
  private let shown = ShownToken()

  private enum Phase { case idle, generating, ended }

  private enum News {
    case token(GeneratedToken)
    case failed(Failure)
    case end
  }

  init(engine: EngineObject) { self.engine = engine }

  var hasUnread: Bool { readCount < unread.count }

  /// Runs `body` with the lock, if the session is open; `busy` says what cannot be done while it generates.
  private func locked<Result>(busy: String? = nil, _ body: () throws -> Result) throws -> Result {
    try engine.lock.withLock {
      try checkOpen()
      if let busy, phase == .generating {
        throw Failure(
          VKINFER_ERROR_STATE, "the session generates: cancel it and read to the end before \(busy)")
      }
      return try body()
    }
  }

  private func checkOpen() throws {
    guard !isClosed else { throw Failure(VKINFER_ERROR_HANDLE, "the session was closed meanwhile") }
  }

  // MARK: - The text

  func text() throws -> [Int32] { try locked { tokens } }

  func feed(_ new: some Collection<Int32>) throws {
    try locked(busy: "it is fed") {
      let vocabulary = engine.model.vocabularySize
      if let wrong = new.first(where: { !(0..<vocabulary).contains(Int($0)) }) {
        throw Failure(VKINFER_ERROR_PROMPT, "token id \(wrong) is not in the vocabulary of \(vocabulary)")
      }
      // As many as any context may have: what does not fit this one is said at the start of a generation.
      guard tokens.count + new.count <= Int(Int32.max) else {
        throw Failure(VKINFER_ERROR_PROMPT, "the text would have more than \(Int32.max) tokens")
      }
      tokens += new
      drop()
    }
  }

  /// - Parameter engine: which of the engines knows keys and values of the new text.
  func replace(_ new: [Int32], on engine: Int) throws {
    try locked(busy: "it is restored") {
      tokens = new
      place = engine
      drop()
    }
  }

  func truncate(_ count: Int) throws {
    try locked(busy: "it is shortened") {
      guard (0...tokens.count).contains(count) else {
        throw Failure(
          VKINFER_ERROR_ARGUMENT, "the text has \(tokens.count) tokens, not \(UInt(bitPattern: count))")
      }
      tokens.removeLast(tokens.count - count)
      drop()
    }
  }

  /// The tokens of a session that does not generate, and the engine that knows their keys and values best.
  func rest(before what: String) throws -> (text: [Int32], place: Int) {
    try locked(busy: what) { (tokens, try engine.openGroup().home(near: place)) }
  }

  private func drop() {
    unread = []
    readCount = 0
  }

  // MARK: - Generating

  func start(_ make: ([Int32]) -> GenerationRequest) throws {
    try locked(busy: "another generation") {
      let id = try engine.openGroup().submit(make(tokens), near: place) { [self] event in receive(event) }
      drop()
      request = id
      phase = .generating
      shownBytes = 0
      result = vkinfer_result()
      engine.generationBegins()
    }
  }

  func cancel() throws {
    try locked { try stop() }
  }

  private func stop() throws {
    guard phase == .generating, let request else { return }
    try engine.openGroup().cancel(request)
  }

  /// Something has happened: called on the engine's thread.
  private func receive(_ event: GenerationEvent) {
    engine.lock.withLock {
      switch event {
      case .prompt: return
      case .token(let token):
        guard !isClosed else { return }
        shownBytes += token.text.utf8.count
        unread.append(.token(token))
        news.signal()
      case .finished(let finished):
        end(finished)
      case .failed(let error):
        result.finish = VKINFER_FINISH_FAILED
        unread.append(.failed(Failure(error)))
        finish()
      }
      if !isClosed { engine.announce(self) }
    }
  }

  private func end(_ finished: GenerationResult) {
    tokens += finished.tokens
    let rest = String(decoding: finished.text.utf8.dropFirst(shownBytes), as: UTF8.self)
    if !rest.isEmpty { unread.append(.token(GeneratedToken(heldBack: rest))) }
    result.finish =
      switch finished.finishReason {
      case .stop: VKINFER_FINISH_STOP
      case .length: VKINFER_FINISH_LENGTH
      case .cancelled: VKINFER_FINISH_CANCELLED
      }
    result.prompt_tokens = UInt64(finished.promptTokenCount)
    result.shared_tokens = UInt64(finished.sharedTokenCount)
    result.generated_tokens = UInt64(finished.tokens.count)
    result.first_seconds = finished.timeToFirstToken
    result.decode_seconds = finished.decodeSeconds
    finish()
  }

  private func finish() {
    unread.append(.end)
    phase = .ended
    if let request, let engine = try? engine.openGroup().place(of: request) { place = engine }
    request = nil
    engine.generationEnds()
    news.broadcast()
  }

  /// Reads what comes next. The token's pointers are this session's.
  func next(_ deadline: Deadline) throws -> (status: vkinfer_status, token: vkinfer_token) {
    try engine.checkMayWait()
    return try engine.lock.withLock {
      while true {
        try checkOpen()
        if hasUnread { return try read() }
        switch phase {
        case .idle:
          throw Failure(VKINFER_ERROR_STATE, "no generation was started: call vkinfer_session_start")
        case .ended:
          return (VKINFER_DONE, vkinfer_token())
        case .generating:
          guard news.wait(engine.lock, until: deadline) else { return (VKINFER_TIMEOUT, vkinfer_token()) }
        }
      }
    }
  }

  private func read() throws -> (status: vkinfer_status, token: vkinfer_token) {
    let next = unread[readCount]
    readCount += 1
    if !hasUnread { drop() }
    switch next {
    case .token(let token): return (VKINFER_OK, shown.show(token, of: handle))
    case .failed(let failure): throw failure
    case .end: return (VKINFER_DONE, vkinfer_token())
    }
  }

  /// The logits after the last token: those that a request for one more token draws it from.
  func logits() throws -> [Float] {
    try engine.checkMayWait()
    let (text, place) = try rest(before: "its logits are computed")
    return try engine.logits(after: text, near: place)
  }

  func embedding() throws -> [Float] {
    try engine.checkMayWait()
    let (text, place) = try rest(before: "its embedding is computed")
    return try engine.embedding(of: text, near: place)
  }

  func lastResult() throws -> vkinfer_result { try locked { result } }

  // MARK: - Closing

  /// Ends it; the handle is out of the table.
  func close() {
    engine.lock.withLock {
      guard !isClosed else { return }
      // An engine that closes meanwhile ends the request itself.
      try? stop()
      engine.remove(self)
      markClosed()
    }
  }

  /// The engine closes; the lock is held.
  func engineCloses() { markClosed() }

  private func markClosed() {
    isClosed = true
    drop()
    news.broadcast()
  }
}

/// The token that a caller looks at: its text and probabilities, in memory of this object.
private final class ShownToken {
  private var text = UnsafeMutableBufferPointer<CChar>.allocate(capacity: 64)
  private var top = UnsafeMutableBufferPointer<vkinfer_logprob>.allocate(capacity: 0)

  deinit {
    text.deallocate()
    top.deallocate()
  }

  func show(_ token: GeneratedToken, of session: OpaquePointer?) -> vkinfer_token {
    var shown = vkinfer_token()
    shown.id = token.id
    shown.session = session
    let bytes = token.text.utf8
    if text.count <= bytes.count {
      text.deallocate()
      text = .allocate(capacity: 2 * bytes.count + 1)
    }
    for (index, byte) in bytes.enumerated() { text[index] = CChar(bitPattern: byte) }
    text[bytes.count] = 0
    shown.text = UnsafePointer(text.baseAddress)
    shown.text_length = bytes.count
    guard let logprobs = token.logprobs else { return shown }
    shown.logprob = logprobs.chosen.logprob
    if top.count < logprobs.top.count {
      top.deallocate()
      top = .allocate(capacity: logprobs.top.count)
    }
    for (index, entry) in logprobs.top.enumerated() {
      top[index] = vkinfer_logprob(token: entry.token, logprob: entry.logprob)
    }
    shown.top_count = UInt32(logprobs.top.count)
    shown.top = logprobs.top.isEmpty ? nil : UnsafePointer(top.baseAddress)
    return shown
  }
}
