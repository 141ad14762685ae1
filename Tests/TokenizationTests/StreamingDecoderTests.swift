import ModelFiles
import Testing
import Tokenization

@Suite("Streaming decoder")
struct StreamingDecoderTests {
  @Test("A character comes out with its last byte, not before")
  func wholeCharacters() throws {
    let tokenizer = try Tokenizer(metadata: byteLevelMetadata(pre: "gpt-2"))
    var decoder = StreamingDecoder(tokenizer)
    let pieces = Array("aé€😀".utf8).map { decoder.append(Int32($0)) }
    #expect(pieces == ["a", "", "é", "", "", "€", "", "", "", "😀"])
    #expect(decoder.finish().isEmpty)
  }

  @Test("Bytes that can no longer become a character are given up as soon as that is known")
  func invalidBytes() throws {
    let tokenizer = try Tokenizer(metadata: byteLevelMetadata(pre: "gpt-2"))
    var decoder = StreamingDecoder(tokenizer)
    #expect(decoder.append(0xFF) == "\u{FFFD}")
    #expect(decoder.append(0xC3).isEmpty)
    #expect(decoder.append(0x61) == "\u{FFFD}a")
    #expect(decoder.append(0xE0).isEmpty)
    #expect(decoder.append(0x80) == "\u{FFFD}\u{FFFD}")
    #expect(decoder.append(0xF0).isEmpty)
    #expect(decoder.append(0x9F).isEmpty)
    #expect(decoder.finish() == "\u{FFFD}")
    #expect(decoder.finish().isEmpty)
  }

  @Test("The pieces joined are what decoding all at once gives, for any tokens")
  func sameAsDecode() throws {
    let tokenizers = [
      try Tokenizer(metadata: byteLevelMetadata(pre: "gpt-2", merges: [[0xC3, 0xA9], [0x9F, 0x98]])),
      try Tokenizer(metadata: smallSentencePiece(["▁", "a", "▁a", "é"], addsSpacePrefix: true)),
    ]
    var generator = SeededGenerator(state: 5)
    for tokenizer in tokenizers {
      for _ in 0..<500 {
        // Half of the ids are bytes from the upper half, where all that can go wrong lies.
        let tokens = (0..<12).map { _ in
          Bool.random(using: &generator)
            ? Int32.random(in: 0..<Int32(tokenizer.vocabularySize), using: &generator)
            : Int32.random(in: 128..<260, using: &generator)
        }
        var decoder = StreamingDecoder(tokenizer)
        let joined = tokens.map { decoder.append($0) }.joined() + decoder.finish()
        #expect(joined.unicodeScalars.elementsEqual(tokenizer.decode(tokens, special: false).unicodeScalars))
      }
    }
  }

  @Test("Control tokens are hidden unless asked for, and do not break a character apart")
  func controlTokens() throws {
    let tokenizer = try Tokenizer(metadata: byteLevelMetadata(pre: "gpt-2", special: [("<end>", 3)]))
    var hidden = StreamingDecoder(tokenizer)
    #expect([0xC3, 256, 0xA9].map { hidden.append($0) }.joined() == "é")
    var shown = StreamingDecoder(tokenizer, special: true)
    #expect(shown.append(256) == "<end>")
  }

  @Test("SentencePiece's leading space is dropped at the start of a text, and kept in the middle of one")
  func leadingSpace() throws {
    let tokenizer = try Tokenizer(metadata: smallSentencePiece(["▁", "a", "▁a"], addsSpacePrefix: true))
    var atStart = StreamingDecoder(tokenizer)
    #expect(atStart.append(262) + atStart.append(262) == "a a")
    var inText = StreamingDecoder(tokenizer, following: 261)
    #expect(inText.append(262) == " a")
    var afterControl = StreamingDecoder(tokenizer, following: 1)
    #expect(afterControl.append(262) == "a")
  }

  @Test("An id outside the vocabulary is no text")
  func unknownID() throws {
    let tokenizer = try Tokenizer(metadata: byteLevelMetadata(pre: "gpt-2"))
    var decoder = StreamingDecoder(tokenizer)
    #expect(decoder.append(-1).isEmpty && decoder.append(256).isEmpty && decoder.append(.max).isEmpty)
  }
}
