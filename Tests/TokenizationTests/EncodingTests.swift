import ModelFiles
import Testing
import Tokenization

@Suite("Encoding against other tokenizers")
struct EncodingTests {
  @Test(
    "Each pre-tokenizer cuts as the published definition does",
    arguments: [
      "llama-bpe", "qwen2", "gpt-2", "smollm", "falcon", "default", "deepseek-llm", "deepseek-coder",
      "deepseek-v3",
      "tekken",
    ])
  func preTokenizer(name: String) throws {
    let merges = try Fixtures.byteLevelMerges()
    let expected = try Fixtures.byteLevelIDs(name)
    let texts = try Fixtures.texts()
    try #require(expected.count == texts.count)
    let tokenizer = try Tokenizer(metadata: byteLevelMetadata(pre: name, merges: merges))
    for (text, ids) in zip(texts, expected) {
      let encoded = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
      if let ids { #expect(encoded.map(Int.init) == ids, "\(text.debugDescription)") }
      #expect(Array(tokenizer.decode(encoded, special: false).utf8) == Array(text.utf8))
    }
  }

  @Test(
    "A name that GGUF files use for a pre-tokenizer cuts like the one it stands for",
    arguments: [
      ("llama3", "llama-bpe"), ("llama-v3", "llama-bpe"), ("smaug-bpe", "llama-bpe"), ("dbrx", "llama-bpe"),
      ("deepseek-r1-qwen", "qwen2"), ("mpt", "gpt-2"), ("phi-2", "gpt-2"), ("olmo", "gpt-2"),
      ("starcoder", "smollm"), ("refact", "smollm"), ("command-r", "smollm"),
    ])
  func alias(name: String, original: String) throws {
    let merges = try Fixtures.byteLevelMerges()
    let expected = try Fixtures.byteLevelIDs(original)
    let texts = try Fixtures.texts()
    try #require(expected.count == texts.count)
    let tokenizer = try Tokenizer(metadata: byteLevelMetadata(pre: name, merges: merges))
    for (text, ids) in zip(texts, expected) {
      let encoded = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
      #expect(encoded.map(Int.init) == ids, "\(text.debugDescription)")
    }
  }

  @Test("SentencePiece merges as the sentencepiece package does", arguments: ["prefixed", "unprefixed"])
  func sentencePiece(name: String) throws {
    let fixture = try #require(try Fixtures.sentencePiece()[name])
    let texts = try Fixtures.texts()
    try #require(fixture.ids.count == texts.count)
    let tokenizer = try Tokenizer(
      metadata: sentencePieceMetadata(
        tokens: fixture.tokens, scores: fixture.scores, kinds: fixture.kinds,
        addsSpacePrefix: name == "prefixed"))
    for (text, ids) in zip(texts, fixture.ids) {
      let encoded = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
      if let ids { #expect(encoded == ids, "\(text.debugDescription)") }
      #expect(Array(tokenizer.decode(encoded, special: false).utf8) == Array(text.utf8))
    }
  }

  @Test(
    "SmolLM2's own vocabulary gives the ids that other engines give",
    .enabled(
      if: Fixtures.cachedModel("SmolLM2-135M-Instruct.Q4_1.gguf") != nil,
      "needs SmolLM2-135M-Instruct.Q4_1.gguf in the model cache"))
  func smolLM2() throws {
    try expectModel("SmolLM2-135M-Instruct.Q4_1.gguf", fixture: "smollm2.json", addsBOS: false)
  }

  @Test(
    "Gemma 3's own vocabulary gives the ids that other engines give",
    .enabled(
      if: Fixtures.cachedModel("gemma-3-270m.Q4_K_M.gguf") != nil,
      "needs gemma-3-270m.Q4_K_M.gguf in the model cache"))
  func gemma3() throws {
    try expectModel("gemma-3-270m.Q4_K_M.gguf", fixture: "gemma3.json", addsBOS: true)
  }

  private func expectModel(_ file: String, fixture: String, addsBOS: Bool) throws {
    let path = try #require(Fixtures.cachedModel(file))
    let tokenizer = try Tokenizer(metadata: try GGUFFile(path: path).metadata)
    #expect(tokenizer.addsBOS == addsBOS)
    let fixture = try Fixtures.model(fixture)
    let texts = try Fixtures.texts()
    try #require(fixture.ids.count == texts.count)
    for (text, ids) in zip(texts, fixture.ids) {
      let encoded = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
      if let ids { #expect(encoded == ids, "\(text.debugDescription)") }
      #expect(Array(tokenizer.decode(encoded, special: true).utf8) == Array(text.utf8))
    }
    for (index, prompt) in fixture.prompts.enumerated() {
      let plain = tokenizer.encode(prompt, addSpecial: false, parseSpecial: false)
      #expect(plain == fixture.plainIDs[index], "\(prompt.debugDescription)")
      let special = tokenizer.encode(prompt, addSpecial: false, parseSpecial: true)
      #expect(special == fixture.specialIDs[index], "\(prompt.debugDescription)")
      #expect(tokenizer.decode(special, special: true) == prompt)
    }
    // SmolLM2 has no tokens for some control characters and for the first bytes of unassigned planes.
    let covered = Set(
      (0..<Int32(tokenizer.vocabularySize)).compactMap { token -> UInt8? in
        let bytes = tokenizer.bytes(of: token, special: false)
        return bytes.count == 1 ? bytes[0] : nil
      })
    var generator = SeededGenerator(state: 3)
    for _ in 0..<300 {
      let text = generator.text()
      guard covered.isSuperset(of: text.utf8) else { continue }
      let encoded = tokenizer.encode(text, addSpecial: true, parseSpecial: false)
      #expect(Array(tokenizer.decode(encoded, special: false).utf8) == Array(text.utf8))
    }
  }
}
