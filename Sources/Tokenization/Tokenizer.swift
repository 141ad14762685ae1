import ModelFiles

/// Turns text to the token ids of a model and back, as the metadata of its GGUF file describes.
///
/// Decoding gives back the text that was encoded, byte for byte, wherever the vocabulary covers it: byte-level
/// vocabularies and SentencePiece ones with byte tokens cover everything. Copies share one vocabulary.
package struct Tokenizer: Sendable {
  private enum Model: Sendable {
    case byteLevel(ByteLevelBPE)
    case sentencePiece(SentencePieceBPE)
  }

  private let model: Model
  private let specials: Shared<SpecialTokens>
  let vocabulary: Vocabulary
  /// Whether a space goes before text at the start and after a special token, and is taken away again.
  let addsSpacePrefix: Bool

  /// What GGUF calls the vocabulary's kind: "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE).
  package let modelName: String
  /// How text is cut before merging (`tokenizer.ggml.pre`); nil for SentencePiece, which does not.
  package let preTokenizerName: String?

  /// The token that begins a sequence.
  package let bos: Int32?
  /// The token that ends a sequence.
  package let eos: Int32?
  /// The token for text that no other covers.
  package let unknown: Int32?
  /// The token that fills unused places of a batch.
  package let padding: Int32?
  /// Tokens that end a generation: end of sequence, of turn, of message.
  package let endOfGeneration: Set<Int32>
  /// Whether the model expects `bos` first.
  package let addsBOS: Bool
  /// Whether the model expects `eos` last.
  package let addsEOS: Bool
  /// The Jinja template that writes a conversation as a prompt.
  package let chatTemplate: String?

  /// How many tokens there are; ids are 0 to one less.
  package var vocabularySize: Int { vocabulary.count }

  /// Reads the `tokenizer.*` keys of a GGUF file.
  ///
  /// - Throws: `TokenizerError` when the model or pre-tokenizer is not supported, or the vocabulary is missing or
  ///   contradicts itself.
  package init(metadata: [String: MetadataValue]) throws(TokenizerError) {
    let metadata = TokenizerMetadata(values: metadata)
    let modelKey = "tokenizer.ggml.model"
    guard let modelName = metadata.values[modelKey]?.string else {
      throw TokenizerError(
        "\(modelKey) is missing: the file has no tokenizer; use one converted with its tokenizer")
    }
    let isSentencePiece = modelName == "llama"
    guard isSentencePiece || modelName == "gpt2" else {
      throw TokenizerError(
        "tokenizer model '\(modelName)' (\(modelKey)) is not supported; supported: gpt2 (byte-level BPE), "
          + "llama (SentencePiece BPE)")
    }
    self.modelName = modelName

    let texts = try metadata.tokens()
    let count = texts.count
    func token(_ key: String, sentencePieceDefault: Int32) -> Int32? {
      if metadata.values["tokenizer.ggml.\(key)"] != nil { return metadata.token(key, count: count) }
      return isSentencePiece && sentencePieceDefault < count ? sentencePieceDefault : nil
    }
    let bos = token("bos_token_id", sentencePieceDefault: 1)
    let eos = token("eos_token_id", sentencePieceDefault: 2)
    let unknown = token("unknown_token_id", sentencePieceDefault: 0)
    (self.bos, self.eos, self.unknown) = (bos, eos, unknown)
    padding = metadata.token("padding_token_id", count: count)

    var endOfGeneration = Set([eos].compactMap(\.self))
    for key in ["eot_token_id", "eom_token_id"] {
      if let token = metadata.token(key, count: count) { endOfGeneration.insert(token) }
    }
    var kinds = try metadata.kinds(count: count)
    for (token, text) in texts.enumerated() where Self.endsOfTurn.contains(text) {
      endOfGeneration.insert(Int32(token))
      kinds[token] = .control  // Some files call them normal text.
    }
    self.endOfGeneration = endOfGeneration

    if isSentencePiece {
      let scores = try metadata.scores(count: count)
      vocabulary = Vocabulary(texts: texts, kinds: kinds, piece: SentencePieceBPE.piece)
      model = .sentencePiece(SentencePieceBPE(vocabulary: vocabulary, scores: scores, unknown: unknown))
      addsSpacePrefix = metadata.flag("add_space_prefix") ?? true
      addsBOS = metadata.flag("add_bos_token") ?? true
      preTokenizerName = nil
    } else {
      let name = metadata.values["tokenizer.ggml.pre"]?.string ?? "default"
      let preTokenizer = try PreTokenizer(named: name)
      let merges = try metadata.merges()
      vocabulary = Vocabulary(texts: texts, kinds: kinds) { text, _ in ByteLevelAlphabet.decode(text) }
      model = .byteLevel(
        ByteLevelBPE(
          vocabulary: vocabulary, texts: texts, merges: merges, preTokenizer: preTokenizer))
      addsSpacePrefix = false
      addsBOS = metadata.flag("add_bos_token") ?? preTokenizer.addsBOSByDefault
      preTokenizerName = name
    }
    addsEOS = metadata.flag("add_eos_token") ?? false
    chatTemplate = metadata.values["tokenizer.chat_template"]?.string
    specials = Shared(try SpecialTokens(vocabulary))
  }

  /// Names by which models end a turn, whether or not the file lists them as its `eot_token_id`.
  private static let endsOfTurn: Set<String> = [
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>",
    "<|end_of_turn|>", "<EOT>", "<|EOT|>", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
  ]

  /// The tokens of `text`.
  ///
  /// - Parameters:
  ///   - addSpecial: Puts `bos` first and `eos` last where the model expects them.
  ///   - parseSpecial: Reads the name of a control token, such as `<|im_start|>`, as that token. Without it such a
  ///     name is text like any other, which is what text from outside needs.
  package func encode(_ text: String, addSpecial: Bool, parseSpecial: Bool) -> [Int32] {
    var tokens: [Int32] = []
    if addSpecial && addsBOS, let bos { tokens.append(bos) }
    var text = text
    text.withUTF8 { bytes in
      var done = 0
      while done < bytes.count {
        let special = specials.value.first(in: bytes, from: done, parsesControl: parseSpecial)
        let end = special?.range.lowerBound ?? bytes.count
        if done < end { encode(UnsafeBufferPointer(rebasing: bytes[done..<end]), into: &tokens) }
        if let special { tokens.append(special.token) }
        done = special?.range.upperBound ?? end
      }
    }
    if addSpecial && addsEOS, let eos { tokens.append(eos) }
    return tokens
  }

  /// Appends the tokens of text between special tokens.
  private func encode(_ text: UnsafeBufferPointer<UInt8>, into tokens: inout [Int32]) {
    switch model {
    case .byteLevel(let model):
      model.encode(text, into: &tokens)
    case .sentencePiece(let model) where addsSpacePrefix:
      let prefixed = [UInt8(ascii: " ")] + text
      prefixed.withUnsafeBufferPointer { model.encode($0, into: &tokens) }
    case .sentencePiece(let model):
      model.encode(text, into: &tokens)
    }
  }

  /// The bytes of text that `token` stands for, which need not be whole characters.
  ///
  /// Empty for a token that is not in the vocabulary, and for control and unknown tokens unless `special`, which
  /// gives their names.
  package func bytes(of token: Int32, special: Bool) -> [UInt8] {
    switch vocabulary.kind(token) {
    case nil: []
    case .control, .unknown: special ? Array(vocabulary.pieces[Int(token)]) : []
    case .normal, .userDefined, .unused, .byte: Array(vocabulary.pieces[Int(token)])
    }
  }

  /// The text of `tokens`, from the start of a text; bytes that are no UTF-8 become U+FFFD.
  ///
  /// - Parameter special: Whether control tokens appear by name.
  package func decode(_ tokens: [Int32], special: Bool) -> String {
    var reader = PieceReader(tokenizer: self, special: special, following: nil)
    var bytes: [UInt8] = []
    for token in tokens { reader.append(token, to: &bytes) }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// One value held by many copies.
final class Shared<Value: Sendable>: Sendable {
  let value: Value

  init(_ value: Value) {
    self.value = value
  }
}
