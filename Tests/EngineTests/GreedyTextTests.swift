import Engine
import Foundation
import Testing

/// Greedy text of real models against llama.cpp's (weights expanded to float32, committed): equal, or different from
/// a step on where the two best logits are closer than the arithmetic's error.
@Suite(.enabled(if: TestModels.absence == nil, "needs a Vulkan device"), .serialized)
struct GreedyTextTests {
  struct Expected: Decodable {
    struct Case: Decodable {
      var prompt: String
      var prompt_tokens: [Int32]
      var tokens: [Int32]
      var best: [[Double]]
    }
    var cases: [Case]
  }

  static let smolLM2 = TestModels.cached("SmolLM2-135M-Instruct.Q4_1.gguf")
  static let gemma3 = TestModels.cached("gemma-3-270m.Q4_K_M.gguf")

  @Test(
    .enabled(
      if: FileManager.default.fileExists(atPath: smolLM2),
      "needs SmolLM2 in the cache (Tools/test fetches it)"))
  func smolLM2EqualsLlamaCpp() throws {
    try compare(model: Self.smolLM2, expectations: "greedy-smollm2.json", count: 32)
  }

  @Test(
    .enabled(
      if: FileManager.default.fileExists(atPath: gemma3),
      "needs Gemma 3 270M in the cache (Tools/test fetches it)"))
  func gemma3EqualsLlamaCpp() throws {
    try compare(model: Self.gemma3, expectations: "greedy-gemma3.json", count: 32)
  }

  /// Logits of the engine differ from the exact ones by less than this: f16 keys and values.
  static let logitError = 0.1

  private func compare(model path: String, expectations: String, count: Int) throws {
    let expected = try JSONDecoder().decode(
      Expected.self, from: Data(contentsOf: TestModels.fixture(expectations, in: "EngineTests")))
    let model = try LanguageModel(path: path)
    var options = EngineOptions()
    options.contextLength = 256
    let engine = try Engine(model: model, options: options)
    for example in expected.cases {
      #expect(try model.tokens(of: example.prompt) == example.prompt_tokens)
      var request = GenerationRequest(prompt: example.prompt_tokens)
      request.maxTokens = count
      request.ignoresEndOfText = true
      let tokens = try engine.generate(request).tokens
      #expect(tokens.count == count)
      guard let step = zip(tokens, example.tokens).enumerated().first(where: { $1.0 != $1.1 })?.offset else {
        continue
      }
      let gap = example.best[step][0] - example.best[step][1]
      #expect(
        gap < Self.logitError, "\(example.prompt): token \(step) differs where the best leads by \(gap)")
    }
  }

  @Test(
    .enabled(
      if: FileManager.default.fileExists(atPath: smolLM2),
      "needs SmolLM2 in the cache (Tools/test fetches it)"))
  func sameSeedSameTextWhateverRanBefore() throws {
    let model = try LanguageModel(path: Self.smolLM2)
    var options = EngineOptions()
    options.contextLength = 256
    let engine = try Engine(model: model, options: options)
    var request = GenerationRequest(prompt: try model.tokens(of: "Once upon a time"))
    request.maxTokens = 24
    request.sampling.temperature = 0.9
    request.sampling.topK = 40
    request.sampling.topP = 0.95
    request.sampling.repeatPenalty = 1.1
    request.sampling.seed = 7
    let first = try engine.generate(request)
    var other = GenerationRequest(
      prompt: try model.tokens(of: "Quite another text, and a longer one, in between"))
    other.maxTokens = 9
    _ = try engine.generate(other)
    #expect(try engine.generate(request).tokens == first.tokens)
    request.sampling.seed = 8
    #expect(try engine.generate(request).tokens != first.tokens)
  }
}
