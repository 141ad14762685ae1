import CVKInfer
import Engine
import VulkanRuntime

@c @implementation
public func vkinfer_session_open(
  _ engine: OpaquePointer?, _ session: UnsafeMutablePointer<OpaquePointer?>?
) -> vkinfer_status {
  reporting {
    let engine = try find(engine, EngineObject.self)
    let out = try Arguments.out(session, "session")
    let object = SessionObject(engine: engine)
    let handle = try HandleTable.shared.withLock { try $0.insert(object) }
    do {
      try engine.lock.withLock {
        object.handle = handle
        try engine.add(object)
      }
    } catch {
      _ = try HandleTable.shared.withLock { try $0.remove(handle, SessionObject.self) }
      throw error
    }
    out.pointee = handle
  }
}

@c @implementation
public func vkinfer_session_close(_ session: OpaquePointer?) -> vkinfer_status {
  reporting { try HandleTable.shared.withLock { try $0.remove(session, SessionObject.self) }.close() }
}

// MARK: - The text

@c @implementation
public func vkinfer_session_feed(
  _ session: OpaquePointer?, _ tokens: UnsafePointer<Int32>?, _ count: Int
) -> vkinfer_status {
  reporting {
    try find(session, SessionObject.self).feed(Arguments.elements(tokens, count: count, "tokens"))
  }
}

@c @implementation
public func vkinfer_session_feed_text(
  _ session: OpaquePointer?, _ text: UnsafePointer<CChar>?, _ length: Int, _ flags: UInt32
) -> vkinfer_status {
  reporting {
    let session = try find(session, SessionObject.self)
    try session.feed(TextFlags.tokens(text, length: length, flags: flags, of: session.engine.model))
  }
}

@c @implementation
public func vkinfer_session_tokens(
  _ session: OpaquePointer?, _ tokens: UnsafeMutablePointer<Int32>?, _ capacity: Int,
  _ count: UnsafeMutablePointer<Int>?
) -> vkinfer_status {
  reporting {
    try Arguments.deliver(
      find(session, SessionObject.self).text(), to: tokens, capacity: capacity, count: count)
  }
}

@c @implementation
public func vkinfer_session_truncate(_ session: OpaquePointer?, _ count: Int) -> vkinfer_status {
  reporting { try find(session, SessionObject.self).truncate(count) }
}

// MARK: - Generating

extension vkinfer_generation_options {
  static var usual: vkinfer_generation_options {
    var options = vkinfer_generation_options()
    options.size = UInt32(MemoryLayout<vkinfer_generation_options>.size)
    options.max_tokens = -1
    options.top_p = 1
    options.repeat_penalty = 1
    options.logprobs = -1
    return options
  }

  /// The request without a prompt.
  func request() throws -> GenerationRequest {
    var request = GenerationRequest(prompt: [])
    guard max_tokens >= -1, logprobs >= -1 else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "max_tokens and logprobs must be -1 or more")
    }
    request.maxTokens = max_tokens < 0 ? nil : Int(max_tokens)
    request.logprobs = logprobs < 0 ? nil : Int(logprobs)
    request.ignoresEndOfText = ignore_end != 0
    request.sampling.temperature = temperature
    request.sampling.topK = Int(top_k)
    request.sampling.topP = top_p
    request.sampling.minP = min_p
    request.sampling.repeatPenalty = repeat_penalty
    request.sampling.presencePenalty = presence_penalty
    request.sampling.frequencyPenalty = frequency_penalty
    request.sampling.seed = seed
    guard stop_count <= 64 else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "\(stop_count) stop texts are too many: use up to 64")
    }
    for (index, text) in try Arguments.elements(stop, count: Int(stop_count), "stop").enumerated() {
      let text = try Arguments.text(text, "stop[\(index)]")
      guard text.utf8.count <= 4096 else {
        throw Failure(VKINFER_ERROR_ARGUMENT, "stop[\(index)] has more than 4096 bytes")
      }
      request.stopStrings.append(text)
    }
    try request.validate()
    return request
  }
}

@c @implementation
public func vkinfer_generation_options_default(
  _ options: UnsafeMutablePointer<vkinfer_generation_options>?, _ size: Int
) -> vkinfer_status {
  reporting { try Arguments.fillDefaults(options, size: size, with: .usual, "vkinfer_generation_options") }
}

/// Starts a generation with a caller's options.
private func start(
  _ session: SessionObject, _ options: UnsafePointer<vkinfer_generation_options>?
) throws {
  var request = try Arguments.options(options, defaults: .usual, "vkinfer_generation_options").request()
  try session.start { tokens in
    request.prompt = tokens
    return request
  }
}

@c @implementation
public func vkinfer_session_start(
  _ session: OpaquePointer?, _ options: UnsafePointer<vkinfer_generation_options>?
) -> vkinfer_status {
  reporting { try start(find(session, SessionObject.self), options) }
}

@c @implementation
public func vkinfer_session_next(
  _ session: OpaquePointer?, _ timeout: Int32, _ token: UnsafeMutablePointer<vkinfer_token>?
) -> vkinfer_status {
  answering {
    let session = try find(session, SessionObject.self)
    // Checked first: a token that was read cannot be put back.
    try Arguments.fill(token, with: vkinfer_token(), "vkinfer_token")
    let (status, next) = try session.next(Deadline(milliseconds: timeout))
    if status == VKINFER_OK { try Arguments.fill(token, with: next, "vkinfer_token") }
    return status
  }
}

@c @implementation
public func vkinfer_session_run(
  _ session: OpaquePointer?, _ options: UnsafePointer<vkinfer_generation_options>?,
  _ callback: vkinfer_token_callback?, _ user: UnsafeMutableRawPointer?
) -> vkinfer_status {
  reporting {
    let session = try find(session, SessionObject.self)
    try session.engine.checkMayWait()
    try start(session, options)
    var isWanted = true
    while true {
      var (status, token) = try session.next(.never)
      guard status == VKINFER_OK else { return }
      token.size = UInt32(MemoryLayout<vkinfer_token>.size)
      if isWanted, let callback, callback(user, &token) != 0 {
        isWanted = false
        try session.cancel()
      }
    }
  }
}

@c @implementation
public func vkinfer_session_cancel(_ session: OpaquePointer?) -> vkinfer_status {
  reporting { try find(session, SessionObject.self).cancel() }
}

@c @implementation
public func vkinfer_session_result(
  _ session: OpaquePointer?, _ result: UnsafeMutablePointer<vkinfer_result>?
) -> vkinfer_status {
  reporting {
    try Arguments.fill(result, with: find(session, SessionObject.self).lastResult(), "vkinfer_result")
  }
}

// MARK: - What the model makes of the text

@c @implementation
public func vkinfer_session_logits(
  _ session: OpaquePointer?, _ logits: UnsafeMutablePointer<Float>?, _ capacity: Int,
  _ count: UnsafeMutablePointer<Int>?
) -> vkinfer_status {
  reporting {
    let session = try find(session, SessionObject.self)
    try deliver(
      session.engine.model.vocabularySize, to: logits, capacity: capacity, count: count, session.logits)
  }
}

@c @implementation
public func vkinfer_session_embedding(
  _ session: OpaquePointer?, _ values: UnsafeMutablePointer<Float>?, _ capacity: Int,
  _ count: UnsafeMutablePointer<Int>?
) -> vkinfer_status {
  reporting {
    let session = try find(session, SessionObject.self)
    try deliver(
      session.engine.model.width, to: values, capacity: capacity, count: count, session.embedding)
  }
}

/// Gives out numbers, which are not computed in vain.
private func deliver(
  _ needed: Int, to buffer: UnsafeMutablePointer<Float>?, capacity: Int, count: UnsafeMutablePointer<Int>?,
  _ compute: () throws -> [Float]
) throws {
  guard buffer != nil, UInt(bitPattern: capacity) >= UInt(needed) else {
    return try Arguments.deliver(
      Array(repeating: 0, count: needed), to: buffer, capacity: capacity, count: count)
  }
  _ = try Arguments.out(count, "count")
  try Arguments.deliver(compute(), to: buffer, capacity: capacity, count: count)
}

@c @implementation
public func vkinfer_session_save(_ session: OpaquePointer?, _ path: UnsafePointer<CChar>?) -> vkinfer_status {
  reporting {
    let session = try find(session, SessionObject.self)
    let path = try Arguments.text(path, "path")
    let (text, place) = try session.rest(before: "it is saved")
    try session.engine.perform(on: place) { try $0.saveState(of: text, to: path) }
  }
}

@c @implementation
public func vkinfer_session_restore(
  _ session: OpaquePointer?, _ path: UnsafePointer<CChar>?
) -> vkinfer_status {
  reporting {
    let session = try find(session, SessionObject.self)
    let path = try Arguments.text(path, "path")
    let (_, place) = try session.rest(before: "it is restored")
    try session.replace(session.engine.perform(on: place) { try $0.restoreState(from: path) }, on: place)
  }
}
