import Reference
import Synchronization
import Testing
import Transformer

@testable import Engine

/// Embeddings on a device against the reference's states of the same tokens.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct EmbeddingTests {
  static func engine(
    _ model: LanguageModel, chunk: Int = 16, mesh: MeshShape = MeshShape(), sequences: Int = 1,
    cacheTokens: Int? = nil
  ) throws -> Engine {
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.tensorParallel = mesh.tensor
    options.pipelineParallel = mesh.pipeline
    options.contextLength = 80
    options.promptChunk = chunk
    options.maxSequences = sequences
    options.cacheTokens = cacheTokens
    return try Engine(model: model, options: options)
  }

  static func tokens(_ count: Int, seed: Int, of model: LanguageModel) -> [Int32] {
    (0..<count).map { Int32(($0 * 37 + 11 * seed + 5) % model.vocabularySize) }
  }

  static func expected(_ tokens: [Int32], _ pooling: Pooling, of model: LanguageModel) throws -> [Float] {
    var reference = ReferenceModel(program: model.program, source: model.source)
    let states = try reference.states(tokens)
    switch pooling {
    case .last: return states[states.count - 1].map { Float($0) }
    case .mean:
      return (0..<model.width).map { index in
        Float(states.reduce(0) { $0 + $1[index] } / Double(states.count))
      }
    }
  }

  /// Embeddings of texts that are computed together, beside a text that is generated.
  static func embeddings(
    of texts: [[Int32]], _ pooling: Pooling, on engine: Engine, generating: Int = 0
  ) throws -> [[Float]?] {
    let found = Mutex<[[Float]?]>(texts.map { _ in nil })
    for number in 0..<generating {
      var request = GenerationRequest(prompt: tokens(20, seed: 90 + number, of: engine.model))
      request.maxTokens = 40
      request.ignoresEndOfText = true
      try engine.submit(request) { _ in }
    }
    for (index, text) in texts.enumerated() {
      var request = GenerationRequest(prompt: text)
      request.maxTokens = 1
      request.ignoresEndOfText = true
      request.embedding = pooling
      try engine.submit(request) { event in
        if case .token(let token) = event { found.withLock { $0[index] = token.embedding } }
      }
    }
    while try engine.step() {}
    return found.withLock { $0 }
  }

  @Test(arguments: ["llama", "qwen2", "gemma3"], [1, 7, 64])
  func equalsReference(architecture: String, chunk: Int) throws {
    let model = try MeshTests.model(architecture)
    let engine = try Self.engine(model, chunk: chunk)
    let text = Self.tokens(45, seed: 1, of: model)
    for pooling in [Pooling.last, .mean, .last] {
      let found = try #require(Self.embeddings(of: [text], pooling, on: engine)[0])
      let wanted = try Self.expected(text, pooling, of: model)
      // Keys and values in f16 are most of the difference.
      #expect(ArchitectureTests.relativeError(found, wanted) < 1e-3, "\(pooling)")
    }
  }

  @Test(arguments: [MeshShape(tensor: 2), MeshShape(pipeline: 2)])
  func onAMesh(_ mesh: MeshShape) throws {
    let model = try MeshTests.model("llama")
    let engine = try Self.engine(model, mesh: mesh)
    let text = Self.tokens(45, seed: 2, of: model)
    for pooling in [Pooling.last, .mean] {
      let found = try #require(Self.embeddings(of: [text], pooling, on: engine)[0])
      #expect(ArchitectureTests.relativeError(found, try Self.expected(text, pooling, of: model)) < 1e-3)
    }
  }

  /// Texts that begin alike, in a cache that has no room for all: some give up their pages and start again.
  @Test(arguments: [Pooling.last, .mean])
  func amongOthers(_ pooling: Pooling) throws {
    let model = try MeshTests.model("llama")
    let engine = try Self.engine(model, sequences: 4, cacheTokens: 160)
    let start = Self.tokens(40, seed: 3, of: model)
    let texts = (0..<6).map { start + Self.tokens(5 + 5 * $0, seed: 4 + $0, of: model) }
    let found = try Self.embeddings(of: texts, pooling, on: engine, generating: 3)
    for (text, found) in zip(texts, found) {
      let found = try #require(found)
      #expect(ArchitectureTests.relativeError(found, try Self.expected(text, pooling, of: model)) < 1e-3)
    }
    #expect(engine.withBatch { $0.scheduler.preemptionCount } > 0)
  }
}
