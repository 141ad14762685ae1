/// SentencePiece's byte-pair encoding (Kudo and Richardson 2018): characters merge into the neighbouring piece of the
/// highest score, and what no piece covers is spelled in byte tokens.
///
/// Pieces write a space as U+2581. Here they are turned to spaces once, when the vocabulary is read, and text is taken
/// as it is. A U+2581 of the text itself is therefore no space: it goes to byte tokens and comes back as it was.
final class SentencePieceBPE: Sendable {
  private let vocabulary: Vocabulary
  private let unknown: Int32?
  /// What text may merge into.
  private let index: ByteStringIndex
  /// The token of each byte; -1 where the vocabulary has none.
  private let byteTokens: [Int32]
  /// The merge priority of each token: lower for a higher score.
  private let priorities: [UInt32]
  /// The bytes that come before a space inside some piece. After any other byte, a space starts a new word: no merge
  /// can cross it.
  private let joinsSpace: [Bool]

  init(vocabulary: Vocabulary, scores: [Float], unknown: Int32?) {
    self.vocabulary = vocabulary
    self.unknown = unknown
    priorities = scores.map(Self.priority)
    index = ByteStringIndex(vocabulary.pieces) { token in
      switch vocabulary.kinds[token] {
      case .normal, .unused, .userDefined: true
      case .control, .unknown, .byte: false
      }
    }
    var byteTokens = [Int32](repeating: -1, count: 256)
    var joinsSpace = [Bool](repeating: false, count: 256)
    for token in 0..<vocabulary.count {
      let piece = vocabulary.pieces[token]
      if vocabulary.kinds[token] == .byte {
        if let byte = piece.first, piece.count == 1 && byteTokens[Int(byte)] < 0 {
          byteTokens[Int(byte)] = Int32(token)
        }
      } else {
        for (byte, next) in zip(piece, piece.dropFirst()) where next == UInt8(ascii: " ") {
          joinsSpace[Int(byte)] = true
        }
      }
    }
    self.byteTokens = byteTokens
    self.joinsSpace = joinsSpace
  }

  /// An integer that is smaller the larger the score is.
  private static func priority(_ score: Float) -> UInt32 {
    // The bits of a float order like an integer once negative ones are reversed; adding 0 makes -0 into 0.
    let bits = (score + 0).bitPattern
    return bits >> 31 == 0 ? 0x7FFF_FFFF - bits : bits
  }

  /// The text of a normal piece, or the byte of a byte token's `<0xNN>`.
  static func piece(_ text: String, _ kind: TokenKind) -> [UInt8] {
    if kind == .byte, let byte = byte(text) { return [byte] }
    var result: [UInt8] = []
    for scalar in text.unicodeScalars {
      if scalar == "\u{2581}" {
        result.append(UInt8(ascii: " "))
      } else {
        result.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
      }
    }
    return result
  }

  /// The byte that a text of the form `<0xNN>` names, or nil.
  private static func byte(_ text: String) -> UInt8? {
    guard text.utf8.count == 6, text.hasPrefix("<0x"), text.hasSuffix(">") else { return nil }
    let digits = text.dropFirst(3).dropLast().compactMap(\.hexDigitValue)
    return digits.count == 2 ? UInt8(digits[0] * 16 + digits[1]) : nil
  }

  /// Appends the tokens of `text`, which holds no special tokens, to `tokens`.
  func encode(_ text: UnsafeBufferPointer<UInt8>, into tokens: inout [Int32]) {
    var workspace = MergeWorkspace()
    var start = 0
    for end in 1..<max(text.count, 1) where text[end] == UInt8(ascii: " ") && !joinsSpace[Int(text[end - 1])]
    {
      encode(word: UnsafeBufferPointer(rebasing: text[start..<end]), with: &workspace, into: &tokens)
      start = end
    }
    encode(word: UnsafeBufferPointer(rebasing: text[start...]), with: &workspace, into: &tokens)
  }

  private func encode(
    word: UnsafeBufferPointer<UInt8>, with workspace: inout MergeWorkspace, into tokens: inout [Int32]
  ) {
    workspace.reset()
    var start = 0
    while start < word.count {
      var end = start + 1
      while end < word.count && word[end] & 0xC0 == 0x80 { end += 1 }
      let token = index.find(UnsafeBufferPointer(rebasing: word[start..<end]), in: vocabulary.pieces)
      workspace.append(start: start, length: end - start, token: token ?? -1)
      start = end
    }
    workspace.merge(by: Rule(model: self, word: word)) { symbol in
      if symbol.token >= 0 {
        tokens.append(symbol.token)
        return
      }
      for byte in word[symbol.start..<symbol.start + symbol.length] {
        if byteTokens[Int(byte)] >= 0 {
          tokens.append(byteTokens[Int(byte)])
        } else if let unknown {
          tokens.append(unknown)
          return
        }
      }
    }
  }

  private struct Rule: MergeRule {
    let model: SentencePieceBPE
    let word: UnsafeBufferPointer<UInt8>

    @inline(__always)
    func merge(_ left: MergeSymbol, _ right: MergeSymbol) -> Merge? {
      let text = UnsafeBufferPointer(rebasing: word[left.start..<right.start + right.length])
      guard let token = model.index.find(text, in: model.vocabulary.pieces) else { return nil }
      return Merge(priority: model.priorities[Int(token)], token: token)
    }
  }
}
