/// Byte-level byte-pair encoding (GPT-2, Radford et al. 2019): every byte is a token, and pairs merge in the order in
/// which training found them.
final class ByteLevelBPE: Sendable {
  private let vocabulary: Vocabulary
  private let preTokenizer: PreTokenizer
  /// The token of each byte; -1 where the vocabulary has none.
  private let byteTokens: [Int32]
  /// From a pair of tokens (left in the high half) to its place in the list of merges.
  private let ranks: IntegerTable
  /// The token that each merge makes.
  private let mergedTokens: [Int32]
  /// Words that are tokens whole; only for pre-tokenizers that take them as they are.
  private let words: ByteStringIndex?

  /// - Parameters:
  ///   - texts: The tokens as the file writes them, in the alphabet of `ByteLevelAlphabet`.
  ///   - merges: Pairs of token texts with a space between, best first. Those that name what is not in the vocabulary
  ///     are passed over.
  init(vocabulary: Vocabulary, texts: [String], merges: [String], preTokenizer: PreTokenizer) {
    self.vocabulary = vocabulary
    self.preTokenizer = preTokenizer

    var written = ByteStrings()
    written.reserveCapacity(texts.count)
    for text in texts { written.append(text.utf8) }
    let index = ByteStringIndex(written) { token in
      switch vocabulary.kinds[token] {
      case .normal, .unused, .userDefined, .byte: true
      case .control, .unknown: false
      }
    }
    func find(_ text: some Sequence<UInt8>) -> Int32? {
      ContiguousArray(text).withUnsafeBufferPointer { index.find($0, in: written) }
    }

    byteTokens = ByteLevelAlphabet.scalars.map { find(String($0).utf8) ?? -1 }

    var ranks = IntegerTable(capacity: merges.count)
    var mergedTokens: [Int32] = []
    mergedTokens.reserveCapacity(merges.count)
    for merge in merges {
      // A space may be a token's own first character, never its last.
      let text = merge.utf8
      guard let space = text.dropFirst().firstIndex(of: UInt8(ascii: " ")) else { continue }
      let (left, right) = (text[..<space], text[text.index(after: space)...])
      guard let leftToken = find(left), let rightToken = find(right), let merged = find(Array(left) + right)
      else {
        continue
      }
      ranks.insertIfAbsent(Self.pair(leftToken, rightToken), Int32(mergedTokens.count))
      mergedTokens.append(merged)
    }
    self.ranks = ranks
    self.mergedTokens = mergedTokens
    words =
      preTokenizer.ignoresMerges
      ? ByteStringIndex(vocabulary.pieces) { vocabulary.kinds[$0] == .normal } : nil
  }

  @inline(__always)
  private static func pair(_ left: Int32, _ right: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
  }

  /// Appends the tokens of `text`, which holds no special tokens, to `tokens`.
  ///
  /// A byte that the vocabulary has no token for is left out: there, the file's unknown token is as a rule one that
  /// ends the text.
  func encode(_ text: UnsafeBufferPointer<UInt8>, into tokens: inout [Int32]) {
    var workspace = MergeWorkspace()
    let rule = Rule(model: self)
    preTokenizer.forEachWord(in: text) { word in
      if let words, let token = words.find(word, in: vocabulary.pieces) {
        tokens.append(token)
        return
      }
      workspace.reset()
      for (offset, byte) in word.enumerated() {
        workspace.append(start: offset, length: 1, token: byteTokens[Int(byte)])
      }
      workspace.merge(by: rule) { symbol in
        if symbol.token >= 0 { tokens.append(symbol.token) }
      }
    }
  }

  private struct Rule: MergeRule {
    let model: ByteLevelBPE

    @inline(__always)
    func merge(_ left: MergeSymbol, _ right: MergeSymbol) -> Merge? {
      // No merge names the token -1 of a byte without one.
      guard let rank = model.ranks[ByteLevelBPE.pair(left.token, right.token)] else { return nil }
      return Merge(priority: UInt32(rank), token: model.mergedTokens[Int(rank)])
    }
  }
}
