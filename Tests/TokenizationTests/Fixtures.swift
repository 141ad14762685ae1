import Foundation
import ModelFiles
import Tokenization

/// What Tools/reference/tokenizer-fixtures.py made.
enum Fixtures {
  private static func read<Value: Decodable>(_ name: String, as type: Value.Type) throws -> Value {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "Fixtures")
    return try JSONDecoder().decode(type, from: Data(contentsOf: folder.appending(path: name)))
  }

  /// The texts that every expectation is about.
  static func texts() throws -> [String] {
    try read("texts.json", as: [String: [String]].self)["texts", default: []]
  }

  /// The merges of the byte-level vocabulary, as pairs of ids.
  static func byteLevelMerges() throws -> [[Int]] {
    try read("byte-level.json", as: [String: [[Int]?]].self)["merges", default: []].compactMap(\.self)
  }

  /// The ids of each text by pre-tokenizer, or nil for one where the two are meant to differ.
  static func byteLevelIDs(_ preTokenizer: String) throws -> [[Int]?] {
    try read("byte-level.json", as: [String: [[Int]?]].self)[preTokenizer, default: []]
  }

  struct SentencePiece: Decodable {
    var tokens: [String]
    var scores: [Float]
    var kinds: [Int32]
    /// The ids of each text, or nil for one where the two are meant to differ.
    var ids: [[Int32]?]
  }

  static func sentencePiece() throws -> [String: SentencePiece] {
    try read("sentencepiece.json", as: [String: SentencePiece].self)
  }

  struct Model: Decodable {
    var ids: [[Int32]?]
    var prompts: [String]
    /// The ids of each prompt with the names of control tokens as text, and as tokens.
    var plainIDs: [[Int32]]
    var specialIDs: [[Int32]]
  }

  static func model(_ name: String) throws -> Model {
    try read(name, as: Model.self)
  }

  /// Where a downloaded model lies, or nil when it does not.
  static func cachedModel(_ name: String) -> String? {
    let environment = ProcessInfo.processInfo.environment
    let cache =
      environment["XDG_CACHE_HOME"].flatMap { $0.isEmpty ? nil : $0 } ?? NSHomeDirectory() + "/.cache"
    let path = "\(cache)/vkinfer/models/\(name)"
    return FileManager.default.fileExists(atPath: path) ? path : nil
  }
}

/// The characters by which byte-level vocabularies write bytes, found by another way than the library's.
let byteLevelAlphabet: [String] = {
  var others: UInt32 = 0x100
  return (0..<256).map { byte in
    let isPrintable = (0x21...0x7E).contains(byte) || (0xA1...0xFF).contains(byte) && byte != 0xAD
    if isPrintable { return String(UnicodeScalar(UInt8(byte))) }
    defer { others += 1 }
    return String(UnicodeScalar(others)!)
  }
}()

/// Metadata of a byte-level vocabulary: all 256 bytes, then what `merges` (pairs of ids) make, then `special` tokens
/// with their kinds.
func byteLevelMetadata(
  pre: String, merges: [[Int]] = [], special: [(String, Int32)] = []
) -> [String: MetadataValue] {
  var tokens = byteLevelAlphabet
  var known = Set(tokens)
  var texts: [String] = []
  for pair in merges {
    texts.append(tokens[pair[0]] + " " + tokens[pair[1]])
    let merged = tokens[pair[0]] + tokens[pair[1]]
    if known.insert(merged).inserted { tokens.append(merged) }
  }
  let kinds = [Int32](repeating: 1, count: tokens.count) + special.map(\.1)
  return [
    "tokenizer.ggml.model": .string("gpt2"), "tokenizer.ggml.pre": .string(pre),
    "tokenizer.ggml.tokens": .stringArray(tokens + special.map(\.0)),
    "tokenizer.ggml.token_type": .int32Array(kinds),
    "tokenizer.ggml.merges": .stringArray(texts),
  ]
}

/// Metadata of a SentencePiece vocabulary.
func sentencePieceMetadata(
  tokens: [String], scores: [Float], kinds: [Int32], addsSpacePrefix: Bool
) -> [String: MetadataValue] {
  [
    "tokenizer.ggml.model": .string("llama"), "tokenizer.ggml.tokens": .stringArray(tokens),
    "tokenizer.ggml.scores": .float32Array(scores), "tokenizer.ggml.token_type": .int32Array(kinds),
    "tokenizer.ggml.add_space_prefix": .bool(addsSpacePrefix),
  ]
}

/// A small SentencePiece vocabulary: unknown, begin, end, a user-defined token, the 256 bytes, then `pieces`, the
/// first the best.
func smallSentencePiece(_ pieces: [String], addsSpacePrefix: Bool) -> [String: MetadataValue] {
  let bytes = (0..<256).map { "<0x" + (($0 < 16 ? "0" : "") + String($0, radix: 16, uppercase: true)) + ">" }
  let tokens = ["<unk>", "<s>", "</s>", "<user>"] + bytes + pieces
  let kinds: [Int32] =
    [2, 3, 3, 4] + Array(repeating: 6, count: 256) + Array(repeating: 1, count: pieces.count)
  let scores = Array(repeating: Float(0), count: 260) + pieces.indices.map { -Float($0) }
  return sentencePieceMetadata(tokens: tokens, scores: scores, kinds: kinds, addsSpacePrefix: addsSpacePrefix)
}

/// The same numbers in every run.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    let mixed = (state ^ (state >> 29)) &* 0xbf58_476d_1ce4_e5b9
    return mixed ^ (mixed >> 32)
  }

  /// A text of up to 40 characters from all of Unicode, more of them short ones.
  mutating func text() -> String {
    var text = String.UnicodeScalarView()
    for _ in 0..<Int.random(in: 0...40, using: &self) {
      let limit: UInt32 = [0x80, 0x800, 0x3000, 0x1_0000, 0x11_0000].randomElement(using: &self)!
      if let scalar = UnicodeScalar(UInt32.random(in: 0..<limit, using: &self)) { text.append(scalar) }
    }
    return String(text)
  }
}
