import CShaderInterface
import Kernels

/// The requests that are generated together: what the scheduler decides, the runner runs; results become
/// text and events. The engine lets one thread at a time in.
final class Batch: @unchecked Sendable {
  /// What runs the steps; nil when no device can any more, and why.
  private(set) var deployment: Deployment?
  private var absence: (any Error)?
  let model: LanguageModel
  var scheduler: Scheduler
  /// Whether the devices must be made ready before they can go on.
  private var needsRecovery = false
  /// Devices of the deployment that will not work again.
  private(set) var lost: Set<Int> = []
  private let pacesPrompts: Bool
  /// Whether all groups of texts end a token before the next one begins: for measurements.
  private let flushes: Bool
  private var requests: [UInt64: ActiveRequest] = [:]
  /// Steps whose results are not read, oldest first.
  private var inFlight: [StepInFlight] = []
  /// When the results of the last step came.
  private var lastDone = ContinuousClock.now

  private struct StepInFlight {
    var ticket: StepTicket
    var draws: [Draw]
    var states: [StateRead]
    var texts: Int
    var promptTokens: Int
    var submitted: ContinuousClock.Instant
  }

  /// A token that a step draws.
  private struct Draw {
    var id: UInt64
    var epoch: Int
    /// Which of the step's logits that are read back; nil for none.
    var logits: Int?
  }

  /// States of tokens of a sequence: which of the step's that are read back.
  private struct StateRead {
    var id: UInt64
    var epoch: Int
    var entries: Range<Int>
  }

  init(
    deployment: Deployment, model: LanguageModel, pacesPrompts: Bool, flushes: Bool = false
  ) {
    self.flushes = flushes
    self.pacesPrompts = pacesPrompts
    self.deployment = deployment
    self.model = model
    scheduler = deployment.makeScheduler()
  }

  /// - Throws: why there is none.
  var runner: any StepRunner {
    get throws {
      if let deployment { return deployment.runner }
      throw absence ?? EngineError(.device, "no device runs the model")
    }
  }

  var isIdle: Bool { requests.isEmpty }

  /// Takes in a request that was checked.
  func add(_ request: ActiveRequest, id: UInt64, contextLength: Int) {
    let prompt = request.request.prompt
    // The context may have become shorter since.
    do { try model.check(prompt: prompt, contextLength: contextLength) } catch {
      return request.onEvent(.failed(error))
    }
    let room = contextLength - prompt.count
    let wanted = min(request.request.maxTokens ?? room, room)
    var request = request
    request.limit = wanted
    requests[id] = request
    guard wanted > 0 else {
      finish(id, .length)
      return
    }
    // Of tokens whose keys and values are known the states are not.
    scheduler.add(
      id: id, prompt: prompt, limit: prompt.count + wanted, sharesPages: request.request.embedding != .mean)
  }

  /// Ends a request, if it has not ended by itself.
  func cancel(_ id: UInt64) {
    finish(id, .cancelled)
  }

  /// Queues steps until the device has one to do behind the one that runs, then reads the results of the oldest.
  ///
  /// - Returns: whether there is more to do.
  func step() throws -> Bool {
    let runner = try runner
    let most = flushes ? min(scheduler.limits.groups, runner.depth) : runner.depth - 1
    if !flushes || inFlight.isEmpty {
      while inFlight.count < most, let parts = scheduler.nextStep() { try submit(parts) }
    }
    try readOldest()
    return !inFlight.isEmpty || !scheduler.isIdle
  }

  /// The device failed: requests that have begun end. What the cache holds is unknown, and the devices must be made ready
  /// before the next step.
  ///
  /// - Returns: requests that have not begun, in their order, to be added again.
  @discardableResult
  func fail(_ error: any Error) -> [(id: UInt64, request: ActiveRequest)] {
    needsRecovery = true
    inFlight = []
    var waiting: [(id: UInt64, request: ActiveRequest)] = []
    for id in scheduler.waiting.map(\.id) {
      guard let request = requests[id], !request.hasBegun else { continue }
      waiting.append((id, request))
      requests[id] = nil
    }
    let failed = requests.values
    requests = [:]
    forget()
    for request in failed { request.onEvent(.failed(error)) }
    return waiting
  }

  private func forget() {
    if let deployment { scheduler = deployment.makeScheduler() }
  }

  /// Makes the devices ready to go on after a failure.
  ///
  /// - Returns: those that never will; where there are any, the others cannot go on without them.
  func recover() throws -> Set<Int> {
    let runner = try runner
    guard needsRecovery, lost.isEmpty else { return lost }
    lost = try runner.recover()
    if lost.isEmpty { needsRecovery = false }
    return lost
  }

  /// Something else than a step went wrong.
  func noteFailure() {
    guard isIdle, let deployment, deployment.runner.hasFailed else { return }
    fail(EngineError(.device, "the devices failed"))
  }

  /// Lets go of the devices; nothing runs the model then.
  func release(_ error: any Error) {
    deployment = nil
    absence = error
  }

  /// Goes on with other devices.
  func install(_ deployment: Deployment) {
    self.deployment = deployment
    absence = nil
    needsRecovery = false
    lost = []
    lastDone = ContinuousClock.now
    forget()
  }

  /// Lends the runner, with pages for so many tokens in sequence 0, while there are no requests.
  func lend<Result>(tokens: Int, _ body: (any StepRunner) throws -> Result) throws -> Result {
    guard isIdle else {
      throw EngineError(.option, "requests are under way: wait until they have ended, or cancel them")
    }
    while !inFlight.isEmpty { try readOldest() }
    let runner = try runner
    var held: [UInt32] = []
    defer {
      try? runner.drain()
      scheduler.pages.release(&held)
    }
    guard scheduler.pages.grow(&held, tokens: tokens) else {
      throw EngineError(.device, "the KV cache has no room for \(tokens) tokens")
    }
    do {
      try runner.setPages(held, sequence: 0, from: 0)
      return try body(runner)
    } catch {
      needsRecovery = true
      throw error
    }
  }

  /// Queues moves of pages that no step has come to take.
  func makeMoves() throws { try runner.movePages(scheduler.takeMoves()) }

  // MARK: - Steps

  private func submit(_ parts: [ScheduledPart]) throws {
    let runner = try runner
    var rows: [StepRow] = []
    var outputs: [Int] = []
    var samples: [SampleParameters] = []
    var draws: [Draw] = []
    var logitsOutputs: [Int] = []
    var states: [StateRead] = []
    var stateRows: [Int] = []
    try makeMoves()
    try runner.copyPages(parts.compactMap(\.copy))
    for part in parts {
      guard let request = requests[part.id]?.request else { continue }
      if part.isStart { requests[part.id]?.start(at: part.position) }
      if part.isStart, request.sampling.hasPenalties {
        try runner.setTokenCounts(
          prompt: request.prompt, generated: requests[part.id]?.tokens ?? [], sequence: part.slot)
      }
      if part.firstNewPage < part.pages.count {
        try runner.setPages(part.pages, sequence: part.slot, from: part.firstNewPage)
      }
      for index in 0..<part.count {
        let token =
          part.tokens.isEmpty
          ? TOKEN_FROM_DEVICE : UInt32(bitPattern: part.tokens[part.tokens.startIndex + index])
        rows.append(
          StepRow(
            token: token, position: UInt32(part.position + index), sequence: UInt32(part.slot), output_row: 0)
        )
      }
      let end = part.position + part.count
      if let pooling = request.embedding, part.position < request.prompt.count {
        let first = stateRows.count
        if pooling == .mean {
          stateRows += rows.count - part.count..<rows.count
        } else if part.drawsToken {
          stateRows.append(rows.count - 1)
        }
        states.append(StateRead(id: part.id, epoch: part.epoch, entries: first..<stateRows.count))
      }
      if part.drawsToken {
        var draw = Draw(id: part.id, epoch: part.epoch)
        if request.readsLogits {
          draw.logits = logitsOutputs.count
          logitsOutputs.append(outputs.count)
        }
        draws.append(draw)
        outputs.append(rows.count - 1)
        samples.append(request.sampling.device(sequence: part.slot, position: end))
      }
      if part.position < request.prompt.count {
        requests[part.id]?.onEvent(.prompt(min(end, request.prompt.count)))
      }
    }
    let ticket = try runner.submit(
      rows: rows, outputs: outputs, samples: samples, output: .sample, logitsOf: logitsOutputs,
      statesOf: stateRows)
    let texts = parts.count { $0.count == 1 && $0.drawsToken }
    inFlight.append(
      StepInFlight(
        ticket: ticket, draws: draws, states: states, texts: texts, promptTokens: rows.count - texts,
        submitted: ContinuousClock.now))
  }

  private func readOldest() throws {
    guard !inFlight.isEmpty else { return }
    let runner = try runner
    let step = inFlight.removeFirst()
    let tokens = try runner.results(step.ticket)
    // The device starts a step when the one before is done.
    let now = ContinuousClock.now
    if pacesPrompts {
      scheduler.pace.note(
        texts: step.texts, promptTokens: step.promptTokens,
        seconds: (now - max(lastDone, step.submitted)) / .seconds(1))
    }
    lastDone = now
    for read in step.states where scheduler.isRunning(id: read.id, epoch: read.epoch) {
      requests[read.id]?.takeStates(read.entries.map { runner.state(step.ticket, $0) })
    }
    for (draw, token) in zip(step.draws, tokens) {
      let token = Int32(bitPattern: token)
      // A step too far: the sequence has ended, or will be computed again.
      guard scheduler.accept(token, id: draw.id, epoch: draw.epoch) else { continue }
      let logits = draw.logits.map { runner.logits(step.ticket, $0) }
      take(token, logits: logits, id: draw.id)
    }
    scheduler.finishStep()
  }

  /// A token has come for a request.
  private func take(_ token: Int32, logits: [Float]?, id: UInt64) {
    guard var request = requests[id] else { return }
    // Out of the dictionary, so that its arrays are not copied.
    requests[id] = nil
    let ends = model.tokenizer?.endOfGeneration.contains(token) == true
    let reason = request.take(token, logits: logits, isEnd: ends)
    requests[id] = request
    if let reason { finish(id, reason) }
  }

  private func finish(_ id: UInt64, _ reason: FinishReason) {
    guard var request = requests.removeValue(forKey: id) else { return }
    scheduler.remove(id: id)
    request.finish(reason)
  }
}

/// A request under way: its text so far.
struct ActiveRequest: Sendable {
  let request: GenerationRequest
  let onEvent: @Sendable (GenerationEvent) -> Void
  private(set) var tokens: [Int32] = []
  private var output: TextOutput
  private var logprobs: [TokenLogprobs] = []
  private let start = ContinuousClock.now
  private var firstTokenTime: ContinuousClock.Instant?
  private var lastTokenTime: ContinuousClock.Instant?
  /// Tokens to generate at most.
  fileprivate(set) var limit = 0
  private var sharedTokens: Int?
  private var states: PooledStates?

  /// - Throws: one line if the model gives no embedding, and one is wanted.
  init(
    _ request: GenerationRequest, model: LanguageModel,
    onEvent: @escaping @Sendable (GenerationEvent) -> Void
  ) throws {
    self.request = request
    self.onEvent = onEvent
    output = TextOutput(tokenizer: model.tokenizer, stopStrings: request.stopStrings)
    states = try request.embedding.map { PooledStates($0, norm: try OutputNorm(model)) }
  }

  /// Whether some of it is, or was, computed.
  var hasBegun: Bool { sharedTokens != nil }

  /// So many of its tokens were known from before when it started, or started again.
  mutating func start(at position: Int) {
    sharedTokens = sharedTokens ?? min(position, request.prompt.count)
    states?.reset()
  }

  /// States of tokens of the prompt have come, in order.
  mutating func takeStates(_ new: [[Float]]) { states?.add(new) }

  /// Adds a token to the text.
  ///
  /// - Parameter isEnd: whether the token ends texts.
  /// - Returns: why the text ends with it; nil if it goes on.
  mutating func take(_ token: Int32, logits: [Float]?, isEnd: Bool) -> FinishReason? {
    let now = ContinuousClock.now
    firstTokenTime = firstTokenTime ?? now
    lastTokenTime = now
    if isEnd, !request.ignoresEndOfText { return .stop }
    tokens.append(token)
    let (text, stopped) = output.append(token)
    var generated = GeneratedToken(id: token, text: text)
    if let logits, let count = request.logprobs {
      let probabilities = TokenLogprobs(logits, chosen: token, top: count)
      generated.logprobs = probabilities
      logprobs.append(probabilities)
    }
    if request.wantsLogits { generated.logits = logits }
    if let states, tokens.count == 1 { generated.embedding = states.embedding }
    onEvent(.token(generated))
    if stopped { return .stop }
    return tokens.count >= limit ? .length : nil
  }

  mutating func finish(_ reason: FinishReason) {
    _ = output.finish()
    let now = ContinuousClock.now
    let first = firstTokenTime ?? now
    onEvent(
      .finished(
        GenerationResult(
          text: output.text, tokens: tokens, logprobs: logprobs, promptTokenCount: request.prompt.count,
          sharedTokenCount: sharedTokens ?? 0,
          finishReason: reason, timeToFirstToken: (first - start) / .seconds(1),
          decodeSeconds: ((lastTokenTime ?? first) - first) / .seconds(1))))
  }
}
