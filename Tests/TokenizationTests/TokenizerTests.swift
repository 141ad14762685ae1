import ModelFiles
import Testing
import Tokenization

@Suite("Tokenizer")
struct TokenizerTests {
  @Test("Special tokens are taken out of the text, the longest first, control ones only on request")
  func specialTokens() throws {
    let tokenizer = try Tokenizer(
      metadata: byteLevelMetadata(pre: "gpt-2", special: [("<a>", 3), ("<a><b>", 3), ("  ", 4), ("    ", 4)]))
    func encode(_ text: String, _ parseSpecial: Bool) -> [Int32] {
      tokenizer.encode(text, addSpecial: false, parseSpecial: parseSpecial)
    }
    let x = Int32(UInt8(ascii: "x"))
    #expect(encode("x<a>x", true) == [x, 256, x])
    #expect(encode("<a><b><a", true) == [257, 60, 97])
    #expect(encode("<a>", false) == [60, 97, 62])
    #expect(encode("x    x", false) == [x, 259, x])
    #expect(encode("x     x", false) == [x, 259, 32, x])
    #expect(tokenizer.decode([x, 256, 258, x], special: false) == "x  x")
    #expect(tokenizer.decode([x, 256, 258, x], special: true) == "x<a>  x")
    #expect(tokenizer.bytes(of: 256, special: false).isEmpty)
  }

  @Test("Begin and end tokens go where the file says, and nowhere else")
  func sequenceEnds() throws {
    var metadata = byteLevelMetadata(pre: "gpt-2", special: [("<s>", 3), ("</s>", 3)])
    metadata["tokenizer.ggml.bos_token_id"] = .uint32(256)
    metadata["tokenizer.ggml.eos_token_id"] = .uint32(257)
    let bare = try Tokenizer(metadata: metadata)
    #expect(!bare.addsBOS && bare.encode("x", addSpecial: true, parseSpecial: false) == [120])
    metadata["tokenizer.ggml.add_bos_token"] = .bool(true)
    metadata["tokenizer.ggml.add_eos_token"] = .bool(true)
    let both = try Tokenizer(metadata: metadata)
    #expect(both.encode("x", addSpecial: true, parseSpecial: false) == [256, 120, 257])
    #expect(both.encode("x", addSpecial: false, parseSpecial: false) == [120])
    #expect(both.bos == 256 && both.eos == 257 && both.endOfGeneration == [257])
    metadata["tokenizer.ggml.add_bos_token"] = nil
    metadata["tokenizer.ggml.pre"] = .string("llama-bpe")
    #expect(try Tokenizer(metadata: metadata).addsBOS)
  }

  @Test("Ends of turn end a generation, also where the file calls them text")
  func endOfGeneration() throws {
    var metadata = byteLevelMetadata(
      pre: "qwen2", special: [("<|im_end|>", 1), ("<|eot|>", 3), ("<|eos|>", 3)])
    metadata["tokenizer.ggml.eos_token_id"] = .uint32(258)
    metadata["tokenizer.ggml.eot_token_id"] = .int32(257)
    let tokenizer = try Tokenizer(metadata: metadata)
    #expect(tokenizer.endOfGeneration == [256, 257, 258])
    #expect(tokenizer.encode("<|im_end|>", addSpecial: false, parseSpecial: true) == [256])
    #expect(tokenizer.decode([256], special: false).isEmpty)
  }

  @Test("Llama 3 takes a word that is a token whole, whatever the merges say; Qwen 2 does not")
  func ignoredMerges() throws {
    // "abc" is a token, but merging "bc" first leaves "a" and "bc" apart.
    let merges = [[98, 99], [97, 98], [257, 99]]
    let llama = try Tokenizer(metadata: byteLevelMetadata(pre: "llama-bpe", merges: merges))
    let qwen = try Tokenizer(metadata: byteLevelMetadata(pre: "qwen2", merges: merges))
    #expect(llama.encode("abc", addSpecial: false, parseSpecial: false) == [258])
    #expect(qwen.encode("abc", addSpecial: false, parseSpecial: false) == [97, 256])
  }

  @Test("Of equal pairs the leftmost merges first")
  func leftmost() throws {
    let tokenizer = try Tokenizer(metadata: byteLevelMetadata(pre: "gpt-2", merges: [[97, 97]]))
    #expect(tokenizer.encode("aaaaa", addSpecial: false, parseSpecial: false) == [256, 256, 97])
  }

  @Test("SentencePiece puts a space before text, also after a special token, and decoding takes it away")
  func spacePrefix() throws {
    let tokenizer = try Tokenizer(
      metadata: smallSentencePiece(["▁", "a", "b", "▁a", "▁▁"], addsSpacePrefix: true))
    func encode(_ text: String) -> [Int32] { tokenizer.encode(text, addSpecial: true, parseSpecial: true) }
    #expect(encode("a") == [1, 263])
    #expect(encode(" a") == [1, 260, 263])
    #expect(encode("a<user>a") == [1, 263, 3, 263])
    #expect(encode("") == [1])
    for text in ["a", " a", "  a", "", " ", "a b", "a<user>a", "a<user> a", "<user>", "▁a", " ▁", "é"] {
      #expect(tokenizer.decode(encode(text), special: false) == text)
    }
    #expect(tokenizer.decode(encode("<s>a</s>b"), special: true) == "<s><s>a</s>b")
  }

  @Test("SentencePiece spells what no piece covers in bytes, and without byte tokens as unknown")
  func byteFallback() throws {
    let covered = try Tokenizer(metadata: smallSentencePiece(["a"], addsSpacePrefix: false))
    #expect(covered.encode("aé", addSpecial: false, parseSpecial: false) == [260, 4 + 0xC3, 4 + 0xA9])
    let bare = try Tokenizer(
      metadata: sentencePieceMetadata(
        tokens: ["<unk>", "<s>", "</s>", "a"], scores: [0, 0, 0, -1], kinds: [2, 3, 3, 1],
        addsSpacePrefix: false))
    #expect(bare.encode("aé", addSpecial: false, parseSpecial: false) == [3, 0])
  }

  @Test("A control token's name in outside text never becomes the token, nor through merging")
  func noInjection() throws {
    let tokenizer = try Tokenizer(
      metadata: smallSentencePiece(["<", "s", ">", "<s", "s>"], addsSpacePrefix: false))
    #expect(!tokenizer.encode("<s>", addSpecial: false, parseSpecial: false).contains(1))
  }

  @Test("Decoding gives back any Unicode text")
  func roundTrip() throws {
    let merges = try Fixtures.byteLevelMerges()
    let tokenizers = [
      try Tokenizer(metadata: byteLevelMetadata(pre: "qwen2", merges: merges)),
      try Tokenizer(metadata: byteLevelMetadata(pre: "deepseek-llm", merges: merges)),
      try Tokenizer(metadata: smallSentencePiece(["▁", "a", "▁▁", "é"], addsSpacePrefix: true)),
      try Tokenizer(metadata: smallSentencePiece(["▁", "a", "▁▁", "é"], addsSpacePrefix: false)),
    ]
    var generator = SeededGenerator(state: 1)
    for _ in 0..<500 {
      let text = generator.text()
      for tokenizer in tokenizers {
        let tokens = tokenizer.encode(text, addSpecial: true, parseSpecial: false)
        #expect(Array(tokenizer.decode(tokens, special: false).utf8) == Array(text.utf8))
      }
    }
  }

  @Test(
    "A very long word, or run of spaces, takes no longer than its share", .timeLimit(.minutes(1)),
    arguments: [
      "llama-bpe", "gpt-2", "smollm", "falcon", "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken",
    ])
  func longWords(pre: String) throws {
    let merges = [[97, 97], [256, 256], [257, 257], [32, 32], [259, 259]]
    let tokenizer = try Tokenizer(metadata: byteLevelMetadata(pre: pre, merges: merges))
    let count = 50_000
    for text in [
      String(repeating: "a", count: count), String(repeating: " ", count: count) + "a",
      String(repeating: "\n", count: count) + " a", String(repeating: "!", count: count),
      String(repeating: "的", count: count), String(repeating: "'", count: count) + "x",
    ] {
      let tokens = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
      #expect(tokenizer.decode(tokens, special: false) == text)
    }
  }

  @Test("Spaces at the end of a line are found past any run of spaces within it")
  func spacesAtEnd() throws {
    // The one merge joins the last byte of the emoji to a space, so it happens only where there is no cut between.
    let tokenizer = try Tokenizer(metadata: byteLevelMetadata(pre: "deepseek-llm", merges: [[0x80, 0x20]]))
    let text = String(repeating: " ", count: 100_000) + "😀  "
    let tokens = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
    #expect(tokens.map(Int.init) == text.utf8.map(Int.init))
  }

  @Test("A very long SentencePiece word takes no longer than its share", .timeLimit(.minutes(1)))
  func longSentencePieceWord() throws {
    let tokenizer = try Tokenizer(
      metadata: smallSentencePiece(["▁", "a", "aa", "aaaa", "▁▁"], addsSpacePrefix: false))
    for character in ["a", " ", "é"] {
      let text = String(repeating: character, count: 100_000)
      let tokens = tokenizer.encode(text, addSpecial: false, parseSpecial: false)
      #expect(tokenizer.decode(tokens, special: false) == text)
    }
  }
}
