import Foundation
import ModelFiles
import Testing
import enum Transformer.MeshPath
import struct Transformer.MeshShape
import VulkanRuntime

@testable import Engine

/// Keys and values in host memory, brought to the device layer by layer: the same tokens, and the same probabilities to
/// the last bit, as with all of them on the device.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct CacheOffloadTests {
  static func options(_ offload: KVOffload, type: KVCacheType = .f16) -> EngineOptions {
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.contextLength = 160
    options.promptChunk = 24
    options.maxSequences = 4
    options.cacheType = type
    options.memory.kvOffload = offload
    return options
  }

  /// What requests that arrive while others run come to: tokens and probabilities of each.
  static func generate(
    _ engine: Engine, seed: UInt64, count: Int, vocabulary: Int32 = 4000, tokens: ClosedRange<Int> = 1...40
  ) throws -> [[TokenLogprobs]] {
    var random = SplitMix64(state: seed)
    var beginnings: [[Int32]] = [[]]
    let results = Guarded<[Int: GenerationResult]>([:])
    var submitted = 0
    var hasMore = true
    while submitted < count || hasMore {
      while submitted < count, Int.random(in: 0..<3, using: &random) > 0 {
        var prompt = Array(
          beginnings.randomElement(using: &random)!.prefix(
            .random(in: 0...(tokens.upperBound > 40 ? 20 : 90), using: &random)))
        for _ in 0..<Int.random(in: 1...30, using: &random) {
          prompt.append(.random(in: 1..<vocabulary, using: &random))
        }
        beginnings.append(prompt)
        var request = GenerationRequest(prompt: prompt)
        request.maxTokens = .random(in: tokens, using: &random)
        request.ignoresEndOfText = true
        request.logprobs = 2
        let index = submitted
        try engine.submit(request) { event in
          switch event {
          case .finished(let result): results.withLock { $0[index] = result }
          case .failed(let error): Issue.record("request \(index): \(error)")
          case .prompt, .token: break
          }
        }
        submitted += 1
      }
      hasMore = try engine.step()
    }
    return try (0..<count).map { index in
      let result = try #require(results.withLock { $0[index] })
      #expect(result.logprobs.count == result.tokens.count)
      return result.logprobs
    }
  }

  static func expectEqual(_ left: [[TokenLogprobs]], _ right: [[TokenLogprobs]], _ what: String) {
    for (index, (left, right)) in zip(left, right).enumerated() {
      #expect(left.map(\.chosen.token) == right.map(\.chosen.token), "\(what), request \(index)")
      #expect(left.map(\.chosen.logprob) == right.map(\.chosen.logprob), "\(what), request \(index)")
    }
  }

  @Test(arguments: [KVCacheType.f16, .q8_0]) func requestsGiveTheSameWithinEveryBudget(type: KVCacheType)
    throws
  {
    let path = try StreamTests.file(.q8_0, "offload-\(type.rawValue)")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let model = try LanguageModel(weightsOf: path)
    let resident = try Engine(model: model, options: Self.options(.off, type: type))
    let expected = try Self.generate(resident, seed: 5, count: 12)
    #expect(resident.cacheStreaming == nil)
    // Six layers of four contexts.
    let layer = resident.cacheTokens * 2 * 2 * type.byteCount(64)
    let all = resident.deviceMemory.peak + 6 * 1_048_576
    for (offload, gpu, from, hostLayers) in [
      (.on, nil, .auto, 6),
      // Room for the ring and two layers more.
      (.auto, all - layer, .host, 4),
      (.auto, all - 3 * layer, .host, 6),
      // Two layers of ring, and weights that stream too.
      (.on, 12_000_000, .host, 6), (.on, 12_000_000, .file, 6),
    ] as [(KVOffload, Int?, WeightsFrom, Int)] {
      var options = Self.options(offload, type: type)
      options.memory.device = gpu
      options.memory.weightsFrom = from
      // A budget alone would make less of the cache.
      options.cacheTokens = resident.cacheTokens
      let engine = try Engine(model: model, options: options)
      let what = "\(offload), \(gpu ?? 0) bytes from \(from): \(engine.placementText ?? "all on the device")"
      let before = try #require(engine.cacheStreaming, "\(what)")
      #expect(engine.cacheTokens == resident.cacheTokens, "\(what)")
      #expect(before.hostLayers == hostLayers, "\(what)")
      #expect((engine.streamedBytes > 0) == (gpu == 12_000_000), "\(what)")
      Self.expectEqual(try Self.generate(engine, seed: 5, count: 12), expected, what)
      let after = try #require(engine.cacheStreaming)
      #expect(after.inBytes > before.inBytes && after.outBytes > before.outBytes && after.linkRate > 0)
      #expect(engine.deviceMemory.peak <= gpu ?? Int.max, "\(what)")
    }
  }

  static let meshes: [(MeshShape, Int?, MeshPath)] = [
    (MeshShape(tensor: 2), nil, .threads), (MeshShape(pipeline: 2), nil, .threads),
    (MeshShape(tensor: 2, pipeline: 2), nil, .threads), (MeshShape(tensor: 2), 9_000_000, .threads),
    (MeshShape(pipeline: 2), 9_000_000, .threads), (MeshShape(tensor: 2), nil, .flags),
    (MeshShape(pipeline: 2), nil, .flags), (MeshShape(tensor: 2), 9_000_000, .flags),
  ]

  /// Each device of a mesh brings what it has of keys and values, with weights that stream or without.
  @Test(arguments: meshes)
  func meshesBringTheirOwn(_ mesh: MeshShape, _ gpu: Int?, _ path: MeshPath) throws {
    let file = try StreamTests.file(.q8_0, "offload-mesh")
    defer { try? FileManager.default.removeItem(atPath: file) }
    let model = try LanguageModel(weightsOf: file)
    func engine(_ offload: KVOffload) throws -> Engine {
      var options = Self.options(offload)
      options.tensorParallel = mesh.tensor
      options.pipelineParallel = mesh.pipeline
      options.meshPath = path
      if path == .flags {
        // As GPUs of their own are: every count in a place of its own, stages in chains.
        options.meshMemory = .host
        options.meshIsApart = true
      }
      options.cacheTokens = 640
      if offload == .on { options.memory.device = gpu }
      return try Engine(model: model, options: options)
    }
    let resident = try engine(.off)
    #expect(resident.cacheStreaming == nil)
    let engine = try engine(.on)
    let what = engine.placementText ?? "all on the devices"
    let before = try #require(engine.cacheStreaming, "\(what)")
    #expect(
      before.hostLayers == (mesh.pipeline == 1 ? 6 : 4) && engine.cacheTokens == resident.cacheTokens,
      "\(what)")
    #expect((engine.streamedBytes > 0) == (gpu != nil), "\(what)")
    Self.expectEqual(
      try Self.generate(engine, seed: 9, count: 8), try Self.generate(resident, seed: 9, count: 8), what)
    let after = try #require(engine.cacheStreaming)
    #expect(after.inBytes > before.inBytes && after.outBytes > before.outBytes)
  }

  /// Layers with a window of five tokens bring the last pages alone.
  @Test func windowsAreAllThatIsBrought() throws {
    let model = try LanguageModel(
      weightsOf: TestModels.fixture("gemma3.gguf", in: "ReferenceTests").path)
    #expect(model.program.attentionWindows.contains(5))
    let resident = try Engine(model: model, options: Self.options(.off))
    let offloaded = try Engine(model: model, options: Self.options(.on))
    let expected = try Self.generate(resident, seed: 9, count: 8, vocabulary: 90)
    Self.expectEqual(
      try Self.generate(offloaded, seed: 9, count: 8, vocabulary: 90), expected, "windows")
  }

  @Test func whoWaitsHasItsPagesKept() throws {
    let path = try StreamTests.file(.q4_1, "offload-preempt")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let model = try LanguageModel(weightsOf: path)
    func engine(_ offload: KVOffload) throws -> Engine {
      var options = Self.options(offload)
      options.cacheTokens = 7 * 32
      return try Engine(model: model, options: options)
    }
    let (resident, offloaded) = (try engine(.off), try engine(.on))
    for seed in 1...3 as ClosedRange<UInt64> {
      let expected = try Self.generate(resident, seed: seed, count: 6, tokens: 70...100)
      Self.expectEqual(
        try Self.generate(offloaded, seed: seed, count: 6, tokens: 70...100), expected, "seed \(seed)")
    }
    #expect(offloaded.returnedPages > 0 && offloaded.returnedPages == resident.returnedPages)
  }

  @Test func savedStatesPassFromOneToTheOther() throws {
    let path = try StreamTests.file(.q4_0, "offload-state")
    let state = path + ".state"
    defer {
      try? FileManager.default.removeItem(atPath: path)
      try? FileManager.default.removeItem(atPath: state)
    }
    let model = try LanguageModel(weightsOf: path)
    func request(_ count: Int) -> GenerationRequest {
      var request = GenerationRequest(prompt: (0..<count).map { Int32($0 * 37 % 4000 + 1) })
      request.maxTokens = 12
      request.ignoresEndOfText = true
      return request
    }
    let expected = try Engine(model: model, options: Self.options(.off)).generate(request(100)).tokens
    for (from, to) in [(KVOffload.on, KVOffload.off), (.off, .on), (.on, .on)] {
      let first = try Engine(model: model, options: Self.options(from))
      _ = try first.generate(request(100))
      try first.saveState(of: request(100).prompt, to: state)
      let second = try Engine(model: model, options: Self.options(to))
      #expect(try second.restoreState(from: state) == request(100).prompt)
      let result = try second.generate(request(100))
      #expect(result.tokens == expected && result.sharedTokenCount == 96, "from \(from) to \(to)")
    }
  }

  @Test func aFailureLeavesTheNextRequestAsItWas() throws {
    let path = try StreamTests.file(.q8_0, "offload-fault")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let fault = StreamTests.Fault()
    var options = Self.options(.on)
    options.memory.device = 12_000_000
    options.memory.weightsFrom = .file
    options.reading = StreamTests.reading(fault)
    let engine = try Engine(model: LanguageModel(weightsOf: path), options: options)
    #expect(engine.streamedBytes > 0 && engine.cacheStreaming != nil)
    let expected = try engine.generate(StreamTests.request).tokens
    fault.kind.store(.broken, ordering: .relaxed)
    #expect { _ = try engine.generate(StreamTests.request) } throws: { "\($0)".contains("check the disk") }
    fault.kind.store(.own, ordering: .relaxed)
    #expect(try engine.generate(StreamTests.request).tokens == expected)
    for steps in 0..<5 {
      var left = steps
      let result = try engine.generate(
        StreamTests.request,
        shouldStop: {
          left -= 1
          return left < 0
        })
      #expect(result.finishReason == .cancelled && expected.starts(with: result.tokens))
      #expect(try engine.generate(StreamTests.request).tokens == expected)
    }
  }

  @Test func whatIsNotPossibleIsSaidAtOnce() throws {
    let path = try StreamTests.file(.q8_0, "offload-small")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let model = try LanguageModel(weightsOf: path)
    var options = Self.options(.on)
    options.memory.host = 300_000
    #expect { _ = try Engine(model: model, options: options) } throws: { "\($0)".contains("--host-memory") }
  }
}
