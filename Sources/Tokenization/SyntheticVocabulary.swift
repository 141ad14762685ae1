import ModelFiles

/// The least of a tokenizer that a model of random weights needs: a token for each byte, and numbered ones.
package enum SyntheticVocabulary {
  /// The metadata of a byte-level vocabulary of that many tokens; fewer than 257 lack some bytes.
  package static func metadata(count: Int) -> [(String, MetadataValue)] {
    let bytes = ByteLevelAlphabet.scalars.map { String($0) }
    // In the alphabet, this is a space.
    let numbered = bytes.count < count ? (bytes.count..<count).map { "\u{120}\($0)" } : []
    var kinds = [Int32](repeating: 1, count: count)
    var texts = Array((bytes + numbered).prefix(count))
    texts[count - 1] = "<|end|>"
    kinds[count - 1] = 3
    return [
      ("tokenizer.ggml.model", .string("gpt2")),
      ("tokenizer.ggml.pre", .string("gpt-2")),
      ("tokenizer.ggml.tokens", .stringArray(texts)),
      ("tokenizer.ggml.token_type", .int32Array(kinds)),
      ("tokenizer.ggml.merges", .stringArray([])),
      ("tokenizer.ggml.eos_token_id", .uint32(UInt32(count - 1))),
    ]
  }
}
