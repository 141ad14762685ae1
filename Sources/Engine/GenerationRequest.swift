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
  /// How many of the most probable tokens are told with each token, beside itself; nil tells no probabilities.
  public var logprobs: Int?
  /// Whether each token comes with the logits that it was drawn from, penalties applied.
  public var wantsLogits = false

  /// How the prompt's embedding is made, which comes with the first token; nil makes none.
  public var embedding: Pooling?

  /// Whether logits are read back at all.
  var readsLogits: Bool { logprobs != nil || wantsLogits }

  public init(prompt: [Int32]) {
    self.prompt = prompt
  }

  /// The most that `logprobs` may be.
  public static let mostLogprobs = 100

  /// Throws one line that names the first value out of its range.
  public func validate() throws {
    try sampling.validate()
    if let maxTokens, maxTokens < 0 {
      throw EngineError(.option, "\(maxTokens) tokens cannot be generated: use 0 or more")
    }
    if let logprobs, !(0...Self.mostLogprobs).contains(logprobs) {
      throw EngineError(.option, "\(logprobs) logprobs are not possible: use 0 to \(Self.mostLogprobs)")
    }
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

/// A token and what it adds to the text.
public struct GeneratedToken: Sendable {
  public var id: Int32
  /// Whole characters that are sure to be part of the text; possibly none.
  public var text: String
  /// If the request asked for them.
  public var logprobs: TokenLogprobs?
  /// One for each token of the vocabulary, if the request asked for them.
  public var logits: [Float]?
  /// The embedding of the prompt, with its first token, if the request asked for it.
  public var embedding: [Float]?

  init(id: Int32, text: String) {
    self.id = id
    self.text = text
  }

  /// Text that came without a token: it was held back, since a stop string could have begun with it.
  public init(heldBack text: String) { self.init(id: -1, text: text) }
}

/// What happens to a request, in this order: prompts, tokens, then one of the others ends it.
public enum GenerationEvent: Sendable {
  /// So many tokens of the prompt are queued or known from before. Starts again if the request had to make room.
  case prompt(Int)
  case token(GeneratedToken)
  case finished(GenerationResult)
  /// The device failed.
  case failed(any Error)
}

public struct GenerationResult: Sendable {
  public var text: String
  /// The generated tokens, without one that ended the text.
  public var tokens: [Int32]
  /// One for each token, if asked for.
  public var logprobs: [TokenLogprobs]
  public var promptTokenCount: Int
  /// Tokens of the prompt whose keys and values were there from an earlier request.
  public var sharedTokenCount: Int
  public var finishReason: FinishReason
  /// From the request to the first token, or to the end where there was none.
  public var timeToFirstToken: Double
  /// From the first token to the last.
  public var decodeSeconds: Double

  /// 0 without a token: the prompt may not have been processed.
  public var promptTokensPerSecond: Double {
    timeToFirstToken > 0 && !tokens.isEmpty ? Double(promptTokenCount) / timeToFirstToken : 0
  }
  /// Tokens after the first, over the time they took.
  public var decodeTokensPerSecond: Double {
    decodeSeconds > 0 && tokens.count > 1 ? Double(tokens.count - 1) / decodeSeconds : 0
  }
}
