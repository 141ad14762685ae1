import CShaderInterface
import Kernels
import Tokenization

/// A text to continue.
public struct GenerationRequest: Sendable {
  public var prompt: [Int32]
  /// Most tokens to generate; nil goes on to the end of the context.
  public var maxTokens: Int?
  public var sampling = SamplingParameters()
  /// Generation ends before any of these; they are not part of the text.
  public var stopStrings: [String] = []
  /// Whether tokens that end a text are ordinary ones.
  public var ignoresEndOfText = false

  public init(prompt: [Int32]) {
    self.prompt = prompt
  }
}

/// Why a generation ended.
public enum FinishReason: String, Sendable {
  /// The model ended it, or a stop string came.
  case stop
  /// As many tokens as asked for, or as fit.
  case length
  /// The caller ended it.
  case cancelled
}

public struct GenerationResult: Sendable {
  public var text: String
  /// The generated tokens, without one that ended the text.
  public var tokens: [Int32]
  public var promptTokenCount: Int
  public var finishReason: FinishReason
  /// From the request to the first token.
  public var timeToFirstToken: Double
  /// From the first token to the last.
  public var decodeSeconds: Double

  public var promptTokensPerSecond: Double {
    timeToFirstToken > 0 ? Double(promptTokenCount) / timeToFirstToken : 0
  }
  /// Tokens after the first, over the time they took.
  public var decodeTokensPerSecond: Double {
    decodeSeconds > 0 && tokens.count > 1 ? Double(tokens.count - 1) / decodeSeconds : 0
  }
}

extension Engine {
  /// Continues a prompt, and hands over text as it comes.
  ///
  /// The sampled token stays on the device and feeds the next step; steps are queued ahead and their tokens read
  /// behind, so the device never waits for the host.
  ///
  /// - Parameters:
  ///   - onPrompt: called with the number of prompt tokens processed so far.
  ///   - onText: called with each piece of text; false ends the generation.
  public func generate(
    _ request: GenerationRequest, onPrompt: (Int) -> Void = { _ in }, shouldStop: () -> Bool = { false },
    onText: (String) -> Void = { _ in }
  ) throws -> GenerationResult {
    let prompt = request.prompt
    try check(prompt)
    try request.sampling.validate()
    if let most = request.maxTokens, most < 0 {
      throw EngineError(.option, "\(most) tokens cannot be generated: use 0 or more")
    }
    let room = contextLength - prompt.count
    let wanted = min(request.maxTokens ?? room, room)
    let clock = ContinuousClock()
    let start = clock.now

    var held: [UInt32] = []
    defer {
      try? runner.drain()
      pages.release(&held)
    }
    guard pages.grow(&held, tokens: prompt.count + wanted) else {
      throw EngineError(.device, "the KV cache has no room for \(prompt.count + wanted) tokens")
    }
    try runner.setPages(held, sequence: 0, from: 0)
    if request.sampling.hasPenalties { try runner.setPromptTokens(prompt, sequence: 0) }

    var output = TextOutput(tokenizer: model.tokenizer, stopStrings: request.stopStrings)
    var tokens: [Int32] = []
    var reason = FinishReason.length
    var firstTokenTime: ContinuousClock.Instant?
    var lastTokenTime = start

    // The prompt, chunk by chunk; the last chunk draws the first token.
    var inFlight: [ModelRunner.Ticket] = []
    var position = 0
    while position < prompt.count {
      let end = min(position + promptChunk, prompt.count)
      let rows = (position..<end).map { index in
        StepRow(
          token: UInt32(bitPattern: prompt[index]), position: UInt32(index), sequence: 0, output_row: 0)
      }
      let isLast = end == prompt.count
      let ticket = try runner.submit(
        rows: rows, outputs: isLast ? [rows.count - 1] : [],
        samples: isLast ? [request.sampling.device(sequence: 0, position: end)] : [], output: .sample)
      if isLast { inFlight.append(ticket) }
      position = end
      onPrompt(position)
      if shouldStop() { reason = .cancelled }
      if reason == .cancelled { break }
    }

    var queued = inFlight.count
    while reason != .cancelled, wanted > 0 {
      // Keep the device busy: one step runs while the next waits behind it.
      while queued < wanted, inFlight.count < ModelRunner.depth - 1 {
        let at = prompt.count + queued - 1
        let row = StepRow(token: TOKEN_FROM_DEVICE, position: UInt32(at), sequence: 0, output_row: 0)
        inFlight.append(
          try runner.submit(
            rows: [row], outputs: [0], samples: [request.sampling.device(sequence: 0, position: at + 1)],
            output: .sample))
        queued += 1
      }
      guard !inFlight.isEmpty else { break }
      let token = Int32(bitPattern: try runner.results(inFlight.removeFirst())[0])
      lastTokenTime = clock.now
      if firstTokenTime == nil { firstTokenTime = lastTokenTime }
      if !request.ignoresEndOfText, model.tokenizer?.endOfGeneration.contains(token) == true {
        reason = .stop
        break
      }
      tokens.append(token)
      let (text, stopped) = output.append(token)
      if !text.isEmpty { onText(text) }
      if stopped {
        reason = .stop
        break
      }
      if tokens.count >= wanted { break }
      if shouldStop() { reason = .cancelled }
    }
    let rest = output.finish()
    if !rest.isEmpty { onText(rest) }
    let first = firstTokenTime ?? clock.now
    return GenerationResult(
      text: output.text, tokens: tokens, promptTokenCount: prompt.count, finishReason: reason,
      timeToFirstToken: (first - start).seconds, decodeSeconds: (lastTokenTime - first).seconds)
  }

  func check(_ prompt: [Int32]) throws {
    try model.check(prompt: prompt, contextLength: contextLength)
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

extension Duration {
  var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}

/// Text as it is shown: whole characters, and nothing of a stop string.
struct TextOutput {
  private(set) var text = ""
  private var decoder: StreamingDecoder?
  private let stopStrings: [[UInt8]]
  /// Decoded, but perhaps the start of a stop string.
  private var held: [UInt8] = []
  private var stopped = false

  init(tokenizer: Tokenizer?, stopStrings: [String]) {
    decoder = tokenizer.map { StreamingDecoder($0) }
    self.stopStrings = stopStrings.filter { !$0.isEmpty }.map { Array($0.utf8) }
  }

  /// The text that a token adds, and whether a stop string ended the text.
  mutating func append(_ token: Int32) -> (text: String, stopped: Bool) {
    held += Array((decoder?.append(token) ?? "").utf8)
    if let (start, _) = firstStop() {
      stopped = true
      let shown = String(decoding: held[..<start], as: UTF8.self)
      held = []
      text += shown
      return (shown, true)
    }
    // Keep back the longest tail that a stop string starts with.
    var keep = 0
    for stop in stopStrings {
      for length in stride(from: min(stop.count - 1, held.count), to: keep, by: -1)
      where held.suffix(length).elementsEqual(stop.prefix(length)) {
        keep = length
        break
      }
    }
    let shown = String(decoding: held.dropLast(keep), as: UTF8.self)
    held = Array(held.suffix(keep))
    text += shown
    return (shown, false)
  }

  /// What was held back, when no more tokens come.
  mutating func finish() -> String {
    guard !stopped else { return "" }
    let rest = String(decoding: held, as: UTF8.self) + (decoder?.finish() ?? "")
    held = []
    text += rest
    return rest
  }

  /// Where the first stop string starts and ends.
  private func firstStop() -> (start: Int, end: Int)? {
    var found: (start: Int, end: Int)?
    for stop in stopStrings where stop.count <= held.count {
      for start in 0...(held.count - stop.count)
      where held[start..<start + stop.count].elementsEqual(stop) {
        if found == nil || start < found!.start { found = (start, start + stop.count) }
        break
      }
    }
    return found
  }
}
