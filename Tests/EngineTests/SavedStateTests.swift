import Foundation
import Testing
import Transformer

@testable import Engine

/// Saved states go from any devices to any others.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct SavedStateTests {
  /// A folder of its own, that goes with it.
  final class Folder {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("states-\(UUID().uuidString)")
    init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(at: url) }
    func path(_ name: String) -> String { url.appendingPathComponent(name).path }
    func bytes(_ name: String) throws -> Data { try Data(contentsOf: url.appendingPathComponent(name)) }
  }

  static func options(_ mesh: MeshShape, cacheType: KVCacheType = .f16) -> EngineOptions {
    var options = MeshTests.options(mesh, sequences: 1)
    options.contextLength = 120
    options.cacheType = cacheType
    return options
  }

  static func request(_ prompt: [Int32], _ count: Int) -> GenerationRequest {
    var request = GenerationRequest(prompt: prompt)
    request.maxTokens = count
    request.ignoresEndOfText = true
    return request
  }

  /// Nothing is known from before.
  static func forget(_ engine: Engine) { engine.withBatch { $0.fail(EngineError(.device, "")) } }

  static let prompt = (0..<70).map { Int32(($0 * 37 + 5) % 90) }

  /// Each mesh saves, each mesh goes on with that, as one device would have. Ranks share the only kv head of
  /// qwen2 and qwen3.
  @Test(arguments: [
    ("llama", "f16", "1x1 2x1 1x2 2x2"),
    ("qwen3", "q8_0", "1x1 2x1 1x2 2x2"),
    ("qwen2", "f16", "1x1 2x1 1x2"),
  ])
  func anyMeshGoesOnWithAnyState(_ name: String, _ cache: String, _ list: String) throws {
    let model = try MeshTests.model(name)
    let folder = try Folder()
    let type = try #require(KVCacheType(rawValue: cache))
    let meshes = list.split(separator: " ")
    let engines = try meshes.map { text in
      let sizes = text.split(separator: "x").compactMap { Int($0) }
      return try Engine(
        model: model, options: Self.options(MeshShape(tensor: sizes[0], pipeline: sizes[1]), cacheType: type))
    }
    let begun = try engines[0].generate(Self.request(Self.prompt, 10)).tokens
    let text = Self.prompt + begun
    let expected = try engines[0].generate(Self.request(text, 12)).tokens
    for (index, engine) in engines.enumerated() {
      #expect(try engine.generate(Self.request(Self.prompt, 10)).tokens == begun)
      try engine.saveState(of: text, to: folder.path("\(index)"))
    }
    for (index, engine) in engines.enumerated() {
      for other in engines.indices {
        Self.forget(engine)
        #expect(try engine.restoreState(from: folder.path("\(other)")) == text)
        // What came in goes out again, byte by byte.
        try engine.saveState(of: text, to: folder.path("again"))
        #expect(try folder.bytes("again") == folder.bytes("\(other)"), "\(meshes[other]) on \(meshes[index])")
        let result = try engine.generate(Self.request(text, 12))
        #expect(result.tokens == expected, "\(meshes[other]) on \(meshes[index])")
        #expect(result.sharedTokenCount == 64)
      }
    }
  }

  /// Weights that stream, and pages of a size of their own: into a mesh and back.
  @Test(arguments: [MeshShape(tensor: 4), MeshShape(tensor: 2, pipeline: 2)])
  func statesDoNotDependOnWhereWeightsAre(_ mesh: MeshShape) throws {
    let path = try StreamTests.file(.q8_0, "state-\(mesh.tensor)")
    let folder = try Folder()
    defer { try? FileManager.default.removeItem(atPath: path) }
    let resident = try StreamTests.engine(path, gpu: nil)
    let streamed = try StreamTests.engine(path, gpu: resident.deviceMemory.peak + 3_000_000, from: .file)
    #expect(streamed.streamedBytes > 0)
    let whole = try MeshTests.streamEngine(path, mesh)
    let most = whole.deviceMemories.map(\.peak).max() ?? 0
    let engine = try MeshTests.streamEngine(path, mesh, gpu: most + 5_000_000, from: .host)
    #expect(engine.streamedBytes > 0)
    let prompt = StreamTests.request.prompt
    let expected = try resident.generate(StreamTests.request).tokens
    try resident.saveState(of: prompt, to: folder.path("state"))
    for next in [engine, streamed, whole] {
      #expect(try next.restoreState(from: folder.path("state")) == prompt)
      let result = try next.generate(StreamTests.request)
      #expect(result.tokens == expected && result.sharedTokenCount == 32)
      try next.saveState(of: prompt, to: folder.path("state"))
    }
  }

  /// A text whose pages went to host memory is saved from there.
  @Test(arguments: [MeshShape(), MeshShape(tensor: 2), MeshShape(pipeline: 2)])
  func pagesInHostMemoryAreSaved(_ mesh: MeshShape) throws {
    let model = try MeshTests.model("llama")
    let folder = try Folder()
    var options = Self.options(mesh)
    options.maxSequences = 3
    options.cacheTokens = 8 * 32
    let engine = try Engine(model: model, options: options)
    let outcomes = BatchTests.Outcomes()
    // The last gives its pages up when the others want their third one, and they take those with their fourth.
    let requests = [
      Self.request(Array(Self.prompt[..<33]), 80), Self.request(Array(Self.prompt[30..<63]), 80),
      Self.request(Array(Self.prompt[5..<67]), 50),
    ]
    for (index, request) in requests.enumerated() {
      try engine.submit(request, onEvent: outcomes.handler(index))
    }
    var text: [Int32]?
    while text == nil, try engine.step() {
      text = engine.withBatch { batch in
        batch.scheduler.waiting.first { sequence in
          guard sequence.kept != nil else { return false }
          try? batch.makeMoves()
          return batch.scheduler.places(of: sequence.tokens).contains {
            if case .host = $0 { true } else { false }
          }
        }?.tokens
      }
    }
    let saved = try #require(text, "no text gave its pages up")
    try engine.saveState(of: saved, to: folder.path("state"))
    // Those that run go on undisturbed.
    while try engine.step() {}
    let alone = try Engine(model: model, options: Self.options(MeshShape()))
    for (index, request) in requests.enumerated() {
      #expect(try outcomes.result(index)?.tokens == alone.generate(request).tokens)
    }
    let expected = try alone.generate(Self.request(saved, 8)).tokens
    Self.forget(alone)
    #expect(try alone.restoreState(from: folder.path("state")) == saved)
    let result = try alone.generate(Self.request(saved, 8))
    #expect(result.tokens == expected && result.sharedTokenCount == saved.count / 32 * 32)
    #expect(result.sharedTokenCount >= 64)
  }

  /// What is no state of this model is one clear error, and changes nothing.
  @Test(arguments: [MeshShape(), MeshShape(tensor: 2, pipeline: 2)])
  func whatIsNoStateIsRefused(_ mesh: MeshShape) throws {
    let model = try MeshTests.model("llama")
    let folder = try Folder()
    let engine = try Engine(model: model, options: Self.options(mesh))
    let text = Self.prompt + (try engine.generate(Self.request(Self.prompt, 10)).tokens)
    let expected = try engine.generate(Self.request(text, 6)).tokens
    try engine.saveState(of: text, to: folder.path("state"))
    let state = try folder.bytes("state")
    func refuses(_ name: String, _ part: String) {
      Self.forget(engine)
      #expect {
        _ = try engine.restoreState(from: folder.path(name))
      } throws: {
        let text = "\($0)"
        return text.contains(folder.path(name)) && text.contains(part) && !text.contains("\n")
      }
      engine.withBatch { batch in
        #expect(batch.scheduler.places(of: text).isEmpty)
        #expect(batch.scheduler.pages.availableCount == batch.scheduler.pages.pageCount)
      }
    }
    func write(_ name: String, _ change: (inout Data) -> Void) throws {
      var data = state
      change(&data)
      try data.write(to: folder.url.appendingPathComponent(name))
    }
    try write("cut") { $0.removeLast(1000) }
    refuses("cut", "its size is not what its header says")
    try write("short") { $0 = $0.prefix(20) }
    refuses("short", "it has only 20 bytes")
    try write("flipped") { $0[$0.count - 500] ^= 1 }
    refuses("flipped", "its checksum is wrong")
    // Four thousand million pages.
    try write("absurd") { data in for place in 32..<36 { data[place] = 0xff } }
    refuses("absurd", "its size is not what its header says")
    try write("foreign") { $0 = Data(repeating: 0x41, count: 4000) }
    refuses("foreign", "is no saved state of this version of vkinfer")
    refuses("missing", "cannot be opened")
    let other = try Engine(
      model: MeshTests.model("qwen3"), options: Self.options(MeshShape(), cacheType: .q8_0))
    _ = try other.generate(Self.request(Self.prompt, 1))
    try other.saveState(of: Self.prompt, to: folder.path("other"))
    refuses("other", "another model")
    let floats = try Engine(model: MeshTests.model("qwen3"), options: Self.options(MeshShape(tensor: 2)))
    #expect {
      _ = try floats.restoreState(from: folder.path("other"))
    } throws: { "\($0)".contains("has keys and values in q8_0") }
    #expect(try engine.restoreState(from: folder.path("state")) == text)
    #expect(try engine.generate(Self.request(text, 6)).tokens == expected)
  }
}
