/// Turns tokens to text as they come, never giving out half a character.
///
/// The pieces it returns, joined, are what `Tokenizer.decode` makes of all the tokens.
package struct StreamingDecoder: Sendable {
  private var reader: PieceReader
  /// The start of a character whose end has not come: at most 3 bytes between calls.
  private var pending: [UInt8] = []

  /// - Parameters:
  ///   - special: Whether control tokens appear by name.
  ///   - previous: The token before the first, such as a prompt's last; nil at the start of a text. It decides whether
  ///     a SentencePiece model's leading space belongs to the text.
  package init(_ tokenizer: Tokenizer, special: Bool = false, following previous: Int32? = nil) {
    reader = PieceReader(tokenizer: tokenizer, special: special, following: previous)
  }

  /// The characters that `token` completes; possibly none.
  package mutating func append(_ token: Int32) -> String {
    reader.append(token, to: &pending)
    let complete = pending.count - Self.incompleteSuffix(pending)
    defer { pending.removeFirst(complete) }
    return String(decoding: pending[..<complete], as: UTF8.self)
  }

  /// What is left when no more tokens come: a character that was never completed, as U+FFFD.
  package mutating func finish() -> String {
    defer { pending.removeAll() }
    return String(decoding: pending, as: UTF8.self)
  }

  /// How many bytes at the end of `bytes` begin a character that further bytes could complete.
  private static func incompleteSuffix(_ bytes: [UInt8]) -> Int {
    for length in 1...3 where length <= bytes.count {
      let lead = bytes[bytes.count - length]
      if lead & 0xC0 == 0x80 { continue }
      let second = length > 1 ? bytes[bytes.count - length + 1] : nil
      return length < characterLength(lead, second) ? length : 0
    }
    return 0
  }

  /// The length of the UTF-8 character that begins with `lead` and `second`, 1 when none does (Unicode table 3-7).
  private static func characterLength(_ lead: UInt8, _ second: UInt8?) -> Int {
    let (length, allowed): (Int, ClosedRange<UInt8>) =
      switch lead {
      case 0xC2...0xDF: (2, 0x80...0xBF)
      case 0xE0: (3, 0xA0...0xBF)
      case 0xED: (3, 0x80...0x9F)
      case 0xE1...0xEF: (3, 0x80...0xBF)
      case 0xF0: (4, 0x90...0xBF)
      case 0xF1...0xF3: (4, 0x80...0xBF)
      case 0xF4: (4, 0x80...0x8F)
      default: (1, 0x80...0xBF)
      }
    guard let second else { return length }
    return allowed.contains(second) ? length : 1
  }
}

/// Joins the bytes of tokens, taking away the space that encoding put before text.
struct PieceReader: Sendable {
  private let tokenizer: Tokenizer
  private let special: Bool
  /// Whether the next token's text is text to which encoding would have given a space.
  private var isAfterBreak: Bool

  init(tokenizer: Tokenizer, special: Bool, following previous: Int32?) {
    self.tokenizer = tokenizer
    self.special = special
    isAfterBreak = previous.map { Self.isSpecial($0, tokenizer) } ?? true
  }

  private static func isSpecial(_ token: Int32, _ tokenizer: Tokenizer) -> Bool {
    switch tokenizer.vocabulary.kind(token) {
    case .control, .unknown, .userDefined: true
    case .normal, .unused, .byte, nil: false
    }
  }

  mutating func append(_ token: Int32, to bytes: inout [UInt8]) {
    let isSpecial = Self.isSpecial(token, tokenizer)
    let piece = tokenizer.bytes(of: token, special: special)
    let isPrefixed =
      tokenizer.addsSpacePrefix && isAfterBreak && !isSpecial && piece.first == UInt8(ascii: " ")
    bytes.append(contentsOf: piece.dropFirst(isPrefixed ? 1 : 0))
    isAfterBreak = isSpecial
  }
}
