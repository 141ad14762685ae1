import Foundation
import ModelFiles
import Reference
import Testing
import Transformer

/// A small random model with the logits that transformers computes for it (Tools/reference/architecture-fixtures.py).
struct ArchitectureFixture: Decodable {
  var tokens: [Int32]
  var logits: [[Double]]

  static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "Fixtures")

  static func load(_ name: String) throws -> (file: GGUFFile, program: Program, expected: ArchitectureFixture)
  {
    let file = try GGUFFile(path: folder.appending(path: "\(name).gguf").path)
    let description = try ModelDescription(metadata: file.metadata, tensors: file.tensors)
    let program = try Program(description, source: file)
    let data = try Data(contentsOf: folder.appending(path: "\(name).json"))
    return (file, program, try JSONDecoder().decode(ArchitectureFixture.self, from: data))
  }
}

/// Norm of the difference over the norm of what is expected.
func relativeError(_ actual: [Double], _ expected: [Double]) -> Double {
  let difference = zip(actual, expected).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
  let size = expected.reduce(0) { $0 + $1 * $1 }
  return (difference / size).squareRoot()
}

@Suite struct ArchitectureTests {
  @Test(arguments: ["llama", "mistral", "qwen2", "qwen3", "gemma3"])
  func logitsEqualTransformers(name: String) throws {
    let (file, program, expected) = try ArchitectureFixture.load(name)
    var model = ReferenceModel(program: program, source: file)
    let logits = try model.run(expected.tokens)
    try #require(logits.count == expected.tokens.count)
    for (position, pair) in zip(logits, expected.logits).enumerated() {
      #expect(relativeError(pair.0, pair.1) < 1e-5, "position \(position)")
    }
  }

  /// The KV cache holds what a run over all tokens computes, past the sliding windows too.
  @Test(arguments: ["mistral", "gemma3"])
  func tokenByTokenEqualsAllAtOnce(name: String) throws {
    let (file, program, expected) = try ArchitectureFixture.load(name)
    var whole = ReferenceModel(program: program, source: file)
    let logits = try whole.run(expected.tokens)
    var stepped = ReferenceModel(program: program, source: file)
    _ = try stepped.run(Array(expected.tokens.prefix(10)))
    for (position, token) in expected.tokens.enumerated().dropFirst(10) {
      let last = try stepped.run([token], lastLogitsOnly: true)
      #expect(last.count == 1 && relativeError(last[0], logits[position]) < 1e-12)
    }
    #expect(stepped.length == expected.tokens.count)
  }

  @Test func tokenOutsideTheVocabularyIsAnError() throws {
    let (file, program, _) = try ArchitectureFixture.load("llama")
    var model = ReferenceModel(program: program, source: file)
    #expect(throws: ReferenceError.self) { try model.run([Int32(program.vocabularySize)]) }
    #expect(throws: ReferenceError.self) { try model.run([-1]) }
    #expect(model.length == 0)
  }
}
