import Engine
import Foundation
import Kernels
import Testing

/// Logits of a small random model of each architecture, on the device, against those of transformers (committed).
@Suite(.enabled(if: TestModels.absence == nil, "needs a Vulkan device"), .serialized)
struct ArchitectureTests {
  struct Expected: Decodable {
    var tokens: [Int32]
    var logits: [[Float]]
  }

  static func relativeError(_ values: [Float], _ expected: [Float]) -> Double {
    var error = 0.0
    var norm = 0.0
    for (value, wanted) in zip(values, expected) {
      error += Double(value - wanted) * Double(value - wanted)
      norm += Double(wanted) * Double(wanted)
    }
    return (error / norm).squareRoot()
  }

  @Test(arguments: ["llama", "mistral", "qwen2", "qwen3", "gemma3"], [1, 3, 64])
  func logitsEqualTransformers(architecture: String, promptChunk: Int) throws {
    try check(architecture: architecture, promptChunk: promptChunk)
  }

  /// Computed plainly: code that shares little with the usual steps comes to the same logits.
  @Test(
    arguments: ["llama", "mistral", "qwen2", "qwen3", "gemma3"],
    [
      StepMethod(fuses: false), StepMethod(linear: .naive), StepMethod(fuses: false, linear: .naive),
    ])
  func plainStepsEqualTransformers(architecture: String, method: StepMethod) throws {
    try check(architecture: architecture, promptChunk: 3, method: method)
  }

  /// Prompts in tiles in registers, which CPU drivers take only if asked for. Gemma has every norm there is.
  @Test(arguments: ["llama", "gemma3"])
  func tilesEqualTransformers(architecture: String) throws {
    try check(architecture: architecture, promptChunk: 64, method: StepMethod(gemm: .tiles))
  }

  private func check(architecture: String, promptChunk: Int, method: StepMethod = StepMethod()) throws {
    let file = TestModels.fixture("\(architecture).json", in: "ReferenceTests")
    let expected = try JSONDecoder().decode(Expected.self, from: Data(contentsOf: file))
    let model = try LanguageModel(
      weightsOf: TestModels.fixture("\(architecture).gguf", in: "ReferenceTests").path)
    var options = EngineOptions()
    options.contextLength = expected.tokens.count
    options.maxOutputs = 64
    options.promptChunk = promptChunk
    options.method = method
    let engine = try Engine(model: model, options: options)
    let logits = try engine.logits(of: expected.tokens, last: expected.tokens.count)
    #expect(logits.count == expected.logits.count)
    #expect(zip(logits, expected.logits).allSatisfy { $0.count == $1.count })
    // Keys and values in f16 are most of the difference.
    let error = Self.relativeError(logits.flatMap(\.self), expected.logits.flatMap(\.self))
    #expect(error < 1e-3)
  }
}
