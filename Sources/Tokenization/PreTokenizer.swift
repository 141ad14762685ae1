/// How byte-level BPE cuts text into words before merging: nothing merges across a cut.
///
/// A list of patterns applied one after another. Each cuts every piece left by the one before into its matches and
/// the gaps between them, and sees nothing outside that piece.
struct PreTokenizer: Sendable {
  /// Whether a word that is a token whole is taken as is, even where merging would end elsewhere.
  let ignoresMerges: Bool
  /// Whether a file that does not say (`add_bos_token`) wants a beginning-of-sequence token.
  let addsBOSByDefault: Bool
  private let stages: [Pattern]

  /// The pre-tokenizer that a GGUF file calls `name` (`tokenizer.ggml.pre`).
  ///
  /// - Throws: `TokenizerError` that names the supported ones when `name` is not among them.
  init(named name: String) throws(TokenizerError) {
    guard let definition = PreTokenizerDefinition.all.first(where: { $0.names.contains(name) }) else {
      let supported = PreTokenizerDefinition.all.flatMap(\.names).sorted().joined(separator: ", ")
      throw TokenizerError(
        "pre-tokenizer '\(name)' (tokenizer.ggml.pre) is not supported; supported: \(supported)")
    }
    ignoresMerges = definition.ignoresMerges
    addsBOSByDefault = definition.addsBOSByDefault
    var stages: [Pattern] = []
    for source in definition.stages { stages.append(try Pattern(source)) }
    self.stages = stages
  }

  /// Hands each word of `text`, which is valid UTF-8, to `body`, in order; together they are all of `text`.
  func forEachWord(in text: UnsafeBufferPointer<UInt8>, _ body: (UnsafeBufferPointer<UInt8>) -> Void) {
    let scratch = Pattern.Scratch()
    split(text, stage: 0, scratch: scratch, body)
  }

  private func split(
    _ piece: UnsafeBufferPointer<UInt8>, stage: Int, scratch: borrowing Pattern.Scratch,
    _ body: (UnsafeBufferPointer<UInt8>) -> Void
  ) {
    guard stage < stages.count else { return body(piece) }
    let pattern = stages[stage]
    var done = 0
    while done < piece.count {
      let match =
        pattern.firstMatch(in: piece, from: done, scratch: scratch) ?? piece.count..<piece.count
      for part in [done..<match.lowerBound, match] where !part.isEmpty {
        split(UnsafeBufferPointer(rebasing: piece[part]), stage: stage + 1, scratch: scratch, body)
      }
      done = match.upperBound
    }
  }
}
