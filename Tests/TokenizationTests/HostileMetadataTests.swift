import ModelFiles
import Testing
import Tokenization

@Suite("Hostile tokenizer metadata")
struct HostileMetadataTests {
  /// The message of the error that `metadata` gives.
  private func message(_ metadata: [String: MetadataValue]) -> String? {
    do throws(TokenizerError) {
      _ = try Tokenizer(metadata: metadata)
      return nil
    } catch {
      return error.description
    }
  }

  @Test("What is missing or of another type is named", arguments: ["model", "tokens", "merges"])
  func missing(key: String) throws {
    var metadata = byteLevelMetadata(pre: "gpt-2")
    metadata["tokenizer.ggml.\(key)"] = nil
    #expect(try #require(message(metadata)).contains("tokenizer.ggml.\(key) is missing"))
    metadata["tokenizer.ggml.\(key)"] = .uint32Array([1, 2])
    #expect(try #require(message(metadata)).contains("tokenizer.ggml.\(key)"))
  }

  @Test("A model or pre-tokenizer that is not supported is named, with those that are")
  func unsupported() throws {
    var metadata = byteLevelMetadata(pre: "gpt-5000")
    let pre = try #require(message(metadata))
    #expect(pre.contains("'gpt-5000'") && pre.contains("llama-bpe") && pre.contains("deepseek-coder"))
    metadata["tokenizer.ggml.model"] = .string("bert")
    let model = try #require(message(metadata))
    #expect(model.contains("'bert'") && model.contains("gpt2") && model.contains("llama"))
    #expect(!pre.contains("\n") && !model.contains("\n"))
  }

  @Test("Arrays of the wrong length are an error")
  func lengths() throws {
    var metadata = smallSentencePiece(["a", "b"], addsSpacePrefix: true)
    metadata["tokenizer.ggml.scores"] = .float32Array([1, 2, 3])
    #expect(try #require(message(metadata)).contains("tokenizer.ggml.scores has 3 entries for 262 tokens"))
    metadata["tokenizer.ggml.scores"] = nil
    #expect(try #require(message(metadata)).contains("tokenizer.ggml.scores is missing"))
    metadata = byteLevelMetadata(pre: "gpt-2")
    metadata["tokenizer.ggml.token_type"] = .int32Array([1])
    #expect(
      try #require(message(metadata)).contains("tokenizer.ggml.token_type has 1 entries for 256 tokens"))
    metadata["tokenizer.ggml.tokens"] = .stringArray([])
    #expect(try #require(message(metadata)).contains("tokenizer.ggml.tokens is empty"))
  }

  @Test("Merges that make no sense are passed over")
  func merges() throws {
    var metadata = byteLevelMetadata(pre: "gpt-2", merges: [[97, 98]])
    metadata["tokenizer.ggml.merges"] = .stringArray([
      "", " ", "  ", "a", "a ", " a", "a  b", "no such", "a b c", "x y", "a b", "a b", "\u{FFFD} \u{FFFD}",
    ])
    let tokenizer = try Tokenizer(metadata: metadata)
    #expect(tokenizer.encode("abxy", addSpecial: false, parseSpecial: false) == [256, 120, 121])
  }

  @Test("Duplicated, empty and outlandish tokens do no harm; the first of equals is used")
  func tokens() throws {
    var metadata = byteLevelMetadata(
      pre: "llama-bpe",
      special: [("a", 1), ("", 3), ("", 4), ("<x>", 3), ("<x>", 3), ("\u{FFFD}é語", 1), ("", 1)])
    let tokenizer = try Tokenizer(metadata: metadata)
    #expect(tokenizer.encode("a<x>", addSpecial: false, parseSpecial: true) == [97, 259])
    // "é" is the alphabet's letter for a byte; the others stand for themselves.
    #expect(tokenizer.bytes(of: 261, special: false) == Array("\u{FFFD}".utf8) + [0xE9] + Array("語".utf8))
    metadata["tokenizer.ggml.token_type"] = .int32Array([Int32](repeating: 99, count: 263))
    #expect(try Tokenizer(metadata: metadata).encode("a", addSpecial: false, parseSpecial: true) == [97])
  }

  @Test("Special tokens longer than those of any model are refused before they are indexed")
  func longSpecialTokens() throws {
    let long = String(repeating: "a", count: 60 << 20)
    let clock = ContinuousClock()
    let start = clock.now
    let one = try #require(message(byteLevelMetadata(pre: "gpt-2", special: [(long, 3)])))
    #expect(one.contains("special tokens of 62914560 bytes together"))
    let many = (0..<5000).map { ("\($0)" + long.prefix(1000), Int32(4)) }
    #expect(
      try #require(message(byteLevelMetadata(pre: "gpt-2", special: many))).contains("special tokens"))
    #expect(clock.now - start < .seconds(5))
  }

  @Test("Ids outside the vocabulary are no ids")
  func ids() throws {
    for value in [MetadataValue.uint32(.max), .int32(-1), .uint64(.max), .string("2"), .uint32(256)] {
      var metadata = byteLevelMetadata(pre: "gpt-2")
      for key in ["bos_token_id", "eos_token_id", "eot_token_id", "padding_token_id", "unknown_token_id"] {
        metadata["tokenizer.ggml.\(key)"] = value
      }
      metadata["tokenizer.ggml.add_bos_token"] = .bool(true)
      let tokenizer = try Tokenizer(metadata: metadata)
      #expect(
        tokenizer.bos == nil && tokenizer.eos == nil && tokenizer.unknown == nil && tokenizer.padding == nil)
      #expect(tokenizer.endOfGeneration.isEmpty)
      #expect(tokenizer.encode("a", addSpecial: true, parseSpecial: true) == [97])
    }
  }

  @Test("A byte-level vocabulary without some bytes drops them")
  func missingBytes() throws {
    let metadata: [String: MetadataValue] = [
      "tokenizer.ggml.model": .string("gpt2"), "tokenizer.ggml.tokens": .stringArray(["a", "?"]),
      "tokenizer.ggml.merges": .stringArray([]),
    ]
    #expect(
      try Tokenizer(metadata: metadata).encode("aba", addSpecial: false, parseSpecial: false) == [0, 0])
    let withUnknown = metadata.merging(["tokenizer.ggml.unknown_token_id": .uint32(1)]) { $1 }
    #expect(
      try Tokenizer(metadata: withUnknown).encode("aba", addSpecial: false, parseSpecial: false) == [0, 0])
  }

  @Test("Scores that are no numbers still order")
  func scores() throws {
    var metadata = smallSentencePiece(["a", "b", "ab", "bb"], addsSpacePrefix: false)
    metadata["tokenizer.ggml.scores"] = .float32Array(
      [Float](repeating: 0, count: 260) + [.nan, -.infinity, -0.0, .infinity])
    let tokenizer = try Tokenizer(metadata: metadata)
    #expect(tokenizer.encode("abb", addSpecial: false, parseSpecial: false) == [260, 263])
  }

  @Test("Byte tokens that name no byte are text")
  func byteTokens() throws {
    let tokens = ["<unk>", "<s>", "</s>", "<0xZZ>", "<0x4>", "é", "<0x+1>", "a"]
    let tokenizer = try Tokenizer(
      metadata: sentencePieceMetadata(
        tokens: tokens, scores: .init(repeating: 0, count: 8), kinds: [2, 3, 3, 6, 6, 6, 6, 1],
        addsSpacePrefix: false))
    #expect(tokenizer.encode("a", addSpecial: false, parseSpecial: false) == [7])
    #expect(tokenizer.decode([3, 6], special: false) == "<0xZZ><0x+1>")
  }
}
