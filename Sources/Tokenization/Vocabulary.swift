import ModelFiles

/// What a token is for: GGUF's `tokenizer.ggml.token_type`.
enum TokenKind: Int32, Sendable {
  case normal = 1
  case unknown = 2
  /// Has a meaning for the model and no text of its own.
  case control = 3
  /// Added by hand: taken out of the text before anything else.
  case userDefined = 4
  case unused = 5
  /// One byte, for text that no other token covers.
  case byte = 6
}

/// The tokens of a model: kinds, written forms and what each stands for.
final class Vocabulary: Sendable {
  let kinds: [TokenKind]
  /// The bytes of text that each token stands for; for special tokens their name.
  let pieces: ByteStrings

  var count: Int { kinds.count }

  /// - Parameters:
  ///   - texts: The tokens as the file writes them.
  ///   - kinds: One for each text.
  ///   - piece: The bytes that a normal or byte token's text stands for.
  init(texts: [String], kinds: [TokenKind], piece: (String, TokenKind) -> [UInt8]) {
    self.kinds = kinds
    var pieces = ByteStrings()
    pieces.reserveCapacity(texts.count)
    for (text, kind) in zip(texts, kinds) {
      switch kind {
      case .normal, .unused, .byte: pieces.append(piece(text, kind))
      case .unknown, .control, .userDefined: pieces.append(text.utf8)
      }
    }
    self.pieces = pieces
  }

  /// The kind of `token`, or nil when the vocabulary has no such token.
  @inline(__always)
  func kind(_ token: Int32) -> TokenKind? {
    kinds.indices.contains(Int(token)) ? kinds[Int(token)] : nil
  }
}

// MARK: - Reading metadata

/// Typed access to the `tokenizer.ggml.*` keys.
struct TokenizerMetadata {
  let values: [String: MetadataValue]

  /// The texts of all tokens.
  func tokens() throws(TokenizerError) -> [String] {
    let key = "tokenizer.ggml.tokens"
    guard let value = values[key] else {
      throw TokenizerError(
        "\(key) is missing: the file has no vocabulary; use a model file converted with its tokenizer")
    }
    guard let tokens = value.strings else { throw TokenizerError("\(key) is not an array of strings") }
    guard !tokens.isEmpty else { throw TokenizerError("\(key) is empty: the file has no vocabulary") }
    guard tokens.count < Int(Int32.max) else {
      throw TokenizerError("\(key) has \(tokens.count) tokens, more than a token id can tell apart")
    }
    return tokens
  }

  /// The kind of each of `count` tokens, all normal when the file does not say.
  func kinds(count: Int) throws(TokenizerError) -> [TokenKind] {
    let key = "tokenizer.ggml.token_type"
    guard let value = values[key] else { return Array(repeating: .normal, count: count) }
    guard let numbers = value.int32s else { throw TokenizerError("\(key) is not an array of integers") }
    try check(key, numbers.count, count)
    return numbers.map { TokenKind(rawValue: $0) ?? .normal }
  }

  /// The score of each of `count` tokens.
  func scores(count: Int) throws(TokenizerError) -> [Float] {
    let key = "tokenizer.ggml.scores"
    guard let value = values[key] else {
      throw TokenizerError(
        "\(key) is missing, and a SentencePiece vocabulary (tokenizer.ggml.model 'llama') needs it")
    }
    guard let scores = value.floats else { throw TokenizerError("\(key) is not an array of numbers") }
    try check(key, scores.count, count)
    return scores
  }

  /// The merges of a byte-level vocabulary, best first.
  func merges() throws(TokenizerError) -> [String] {
    let key = "tokenizer.ggml.merges"
    guard let value = values[key] else {
      throw TokenizerError(
        "\(key) is missing, and a byte-level vocabulary (tokenizer.ggml.model 'gpt2') needs it")
    }
    guard let merges = value.strings else { throw TokenizerError("\(key) is not an array of strings") }
    return merges
  }

  /// The token that `key` names, or nil when the file does not say or names one that is not in the vocabulary: files
  /// write -1 for none.
  func token(_ key: String, count: Int) -> Int32? {
    guard let id = values["tokenizer.ggml.\(key)"]?.int, (0..<count).contains(id) else { return nil }
    return Int32(id)
  }

  /// The truth value of `key`, or nil when the file does not say.
  func flag(_ key: String) -> Bool? {
    values["tokenizer.ggml.\(key)"]?.bool
  }

  private func check(_ key: String, _ count: Int, _ expected: Int) throws(TokenizerError) {
    guard count == expected else {
      throw TokenizerError(
        "\(key) has \(count) entries for \(expected) tokens: the file is damaged; fetch it again")
    }
  }
}
