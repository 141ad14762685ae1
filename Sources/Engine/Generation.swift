import VulkanRuntime

/// Names a request of an engine.
public struct RequestID: Sendable, Hashable {
  let number: UInt64
}

/// Requests and cancellations that no step has seen yet: handed over without waiting for the one that runs.
struct Intake: Sendable {
  var count: UInt64 = 0
  var requests: [(id: UInt64, request: ActiveRequest)] = []
  var cancelled: [UInt64] = []
}

extension Engine {
  /// Hands a request over; steps generate it together with others. Can be called from any thread, at any time.
  ///
  /// - Parameter onEvent: called for all that happens to the request, by the thread that calls `step`, which waits for
  ///   it. It may call `submit` and `cancel`, but not `step` or `generate`.
  /// - Throws: one line when the request is not possible.
  @discardableResult
  public func submit(
    _ request: GenerationRequest, onEvent: @escaping @Sendable (GenerationEvent) -> Void
  ) throws -> RequestID {
    try check(request.prompt)
    try request.validate()
    let active = try ActiveRequest(request, model: model, onEvent: onEvent)
    return intake.withLock { intake in
      intake.count += 1
      intake.requests.append((intake.count, active))
      return RequestID(number: intake.count)
    }
  }

  /// Ends a request with what there is; nothing if it has ended. Can be called from any thread, at any time.
  public func cancel(_ id: RequestID) {
    intake.withLock { $0.cancelled.append(id.number) }
  }

  /// Runs one step of all requests. Can be called from any thread: they take turns.
  ///
  /// The sampled tokens stay on the device and feed the next step; steps are queued ahead and their tokens read behind,
  /// so the device never waits for the host.
  ///
  /// - Returns: whether there is more to do.
  /// - Throws: one line when a device failed. Requests that had begun have ended with it; others wait for the next step,
  ///   which goes on with the devices that work (`EngineOptions.rebuilds`). Where none does, that step ends them and throws.
  public func step() throws -> Bool {
    try withBatch { batch in
      do { try repair(batch) } catch {
        for (_, request) in takeIntake().requests { request.onEvent(.failed(error)) }
        throw error
      }
      let new = takeIntake()
      for (id, request) in new.requests { batch.add(request, id: id, contextLength: contextLength) }
      for id in new.cancelled { batch.cancel(id) }
      do {
        return try batch.step()
      } catch {
        let waiting = batch.fail(error)
        intake.withLock { $0.requests = waiting + $0.requests }
        throw error
      }
    }
  }

  private func takeIntake() -> (requests: [(id: UInt64, request: ActiveRequest)], cancelled: [UInt64]) {
    intake.withLock { intake in
      defer {
        intake.requests = []
        intake.cancelled = []
      }
      return (intake.requests, intake.cancelled)
    }
  }

  /// Continues a prompt, and hands over text as it comes. Threads that do so at the same time share steps.
  ///
  /// - Parameters:
  ///   - onPrompt: called with the number of prompt tokens processed so far.
  ///   - shouldStop: asked after each step; true ends the generation.
  ///   - onText: called with each piece of text.
  public func generate(
    _ request: GenerationRequest, onPrompt: (Int) -> Void = { _ in }, shouldStop: () -> Bool = { false },
    onText: (String) -> Void = { _ in }
  ) throws -> GenerationResult {
    let events = EventList()
    let id = try submit(request) { event in events.append(event) }
    var shown = 0
    while true {
      // Whoever an error concerns hears of it as an event.
      _ = try? step()
      for event in events.take() {
        switch event {
        case .prompt(let count):
          onPrompt(count)
        case .token(let token):
          shown += token.text.utf8.count
          if !token.text.isEmpty { onText(token.text) }
        case .finished(let result):
          // What was held back, since it could have been the start of a stop string.
          let rest = String(decoding: result.text.utf8.dropFirst(shown), as: UTF8.self)
          if !rest.isEmpty { onText(rest) }
          return result
        case .failed(let error):
          throw error
        }
      }
      if shouldStop() { cancel(id) }
    }
  }

  func check(_ prompt: [Int32]) throws {
    try model.check(prompt: prompt, contextLength: contextLength)
  }
}

/// Events that one thread adds and another takes.
private final class EventList: Sendable {
  private let events = Guarded<[GenerationEvent]>([])

  func append(_ event: GenerationEvent) { events.withLock { $0.append(event) } }

  func take() -> [GenerationEvent] {
    events.withLock { events in
      defer { events = [] }
      return events
    }
  }
}

extension LanguageModel {
  /// Throws one line that says why an engine with a context of that many tokens could not take `prompt`.
  public func check(prompt: [Int32], contextLength: Int) throws {
    guard !prompt.isEmpty else {
      throw EngineError(.prompt, "the prompt has no tokens: give some text (the model adds none of its own)")
    }
    guard prompt.count <= contextLength else {
      throw EngineError(
        .prompt,
        "the prompt has \(prompt.count) tokens, but the context holds \(contextLength) "
          + "(the model was trained for \(self.contextLength)); shorten it, or raise --context")
    }
    let vocabulary = program.vocabularySize
    if let wrong = prompt.first(where: { $0 < 0 || Int($0) >= vocabulary }) {
      throw EngineError(.prompt, "token id \(wrong) is not in the vocabulary of \(vocabulary)")
    }
  }
}
