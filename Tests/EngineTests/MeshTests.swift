import Foundation
import Kernels
import ModelFiles
import Testing
import Transformer
import VulkanRuntime

@testable import Engine

/// Models shared over several logical devices against one device.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct MeshTests {
  static func model(_ name: String) throws -> LanguageModel {
    try LanguageModel(weightsOf: TestModels.fixture("\(name).gguf", in: "ReferenceTests").path)
  }

  static func engine(
    _ model: LanguageModel, _ mesh: MeshShape, sequences: Int = 1, path: MeshPath? = nil
  ) throws -> Engine {
    try Engine(model: model, options: options(mesh, sequences: sequences, path: path))
  }

  static func options(
    _ mesh: MeshShape, sequences: Int, path: MeshPath? = nil, home: CollectiveTests.Home? = nil
  ) -> EngineOptions {
    var options = EngineOptions()
    options.meshPath = path
    options.meshMemory = home?.memory
    options.meshIsApart = home?.isApart == true
    options.device = TestModels.cpuDriver
    options.tensorParallel = mesh.tensor
    options.pipelineParallel = mesh.pipeline
    options.maxSequences = sequences
    options.contextLength = 64
    options.promptChunk = 16
    options.maxOutputs = 8
    return options
  }

  /// Meshes that the model can be split over.
  static func meshes(_ model: LanguageModel) -> [MeshShape] {
    [(2, 1), (1, 2), (3, 1), (1, 3), (4, 1), (1, 4), (2, 2)].map { MeshShape(tensor: $0.0, pipeline: $0.1) }
      .filter { (try? model.program.shared(over: $0)) != nil }
  }

  @Test(arguments: ["llama", "gemma3", "qwen2", "qwen3", "mistral"])
  func logitsAreThoseOfOneDevice(_ name: String) throws {
    let model = try Self.model(name)
    let meshes = Self.meshes(model)
    // Two heads of 16 elements make one block of 32 weights, which is never cut.
    #expect(meshes.contains(MeshShape(tensor: 2)) || ["gemma3", "mistral"].contains(name))
    #expect(meshes.contains(MeshShape(pipeline: 2)))
    let tokens = (0..<40).map { Int32(($0 * 37 + 5) % model.program.vocabularySize) }
    let alone = try Self.engine(model, MeshShape()).logits(of: tokens, last: 6)
    for mesh in meshes {
      // Two workgroups that wait leave a CPU driver of two threads nothing to run others on.
      let path = mesh.deviceCount == 2 ? [MeshPath.flags, .threads][name.utf8.count % 2] : nil
      let engine = try Self.engine(model, mesh, path: path)
      let shared = try engine.logits(of: tokens, last: 6)
      for (shared, alone) in zip(shared, alone) {
        let error = zip(shared, alone).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
        let norm = alone.reduce(0.0) { $0 + pow(Double($1), 2) }
        #expect(error.squareRoot() < 1e-3 * norm.squareRoot(), "\(name) over \(mesh)")
      }
    }
  }

  /// Wherever devices leave things for one another: texts that run together are those of one device.
  @Test(arguments: [
    (MeshShape(tensor: 2), MeshPath.flags, CollectiveTests.Home.device),
    (MeshShape(tensor: 2), .flags, .own),
    (MeshShape(pipeline: 2), .flags, .own),
    (MeshShape(tensor: 2), .threads, .own),
    (MeshShape(tensor: 2, pipeline: 2), .threads, .own),
    (MeshShape(tensor: 2, pipeline: 2), .threads, .device),
    (MeshShape(tensor: 2), .flags, .cached),
    (MeshShape(pipeline: 2), .flags, .cached),
    (MeshShape(tensor: 2, pipeline: 2), .threads, .cached),
  ])
  func homesMakeNoDifference(_ mesh: MeshShape, _ path: MeshPath, _ home: CollectiveTests.Home) throws {
    let model = try Self.model("llama")
    let alone = try Self.engine(model, MeshShape())
    let engine = try Engine(
      model: model, options: Self.options(mesh, sequences: 3, path: path, home: home))
    #expect(engine.meshPathText?.contains("share \(home.memory.rawValue) memory") == true)
    let requests = (0..<3).map { index in
      var request = GenerationRequest(prompt: (0...4 * index).map { Int32(($0 * 31 + index) % 90 + 1) })
      request.maxTokens = 12
      request.ignoresEndOfText = true
      request.sampling.temperature = 0
      return request
    }
    let outcomes = BatchTests.Outcomes()
    for (index, request) in requests.enumerated() {
      try engine.submit(request, onEvent: outcomes.handler(index))
    }
    while try engine.step() {}
    for (index, request) in requests.enumerated() {
      #expect(try outcomes.result(index)?.tokens == alone.generate(request).tokens, "request \(index)")
    }
    // By counts, a step goes on in another submission only where all-reduces use memory again that may be found as it
    // was.
    guard path == .flags else { return }
    try engine.withBatch { batch in
      let runner = try #require(try batch.runner as? MeshRunner).runners[0]
      #expect((runner.partCount > runner.stepCount) == (home == .cached && mesh.tensor > 1))
    }
  }

  /// Requests that come and go together, some cancelled, on a mesh drawn at random: each as if alone on one device.
  @Test(arguments: 0..<4)
  func requestsAreAsOnOneDevice(_ seed: Int) throws {
    // Every run draws others; what failed is in the message.
    let start = UInt64.random(in: 0...UInt64.max)
    var random = SplitMix64(state: start)
    // Each run has one of either kind.
    let model = try Self.model(["llama", "qwen2", "llama", "qwen3"][seed])
    let meshes = Self.meshes(model).filter { seed < 2 || ($0.tensor > 1) == (seed == 2) }
    let mesh = try #require(meshes.randomElement(using: &random))
    var options = Self.options(mesh, sequences: .random(in: 2...5, using: &random))
    options.promptChunk = .random(in: 3...24, using: &random)
    // Room for two to four of them: some wait, some are put back.
    options.cacheTokens = 64 * .random(in: 2...4, using: &random)
    options.groups = .random(in: 1...mesh.pipeline, using: &random)
    options.meshPath = mesh.deviceCount == 2 ? .flags : nil
    let engine = try Engine(model: model, options: options)
    let alone = try Self.engine(model, MeshShape())
    let what =
      "seed \(start): \(mesh), \(options.maxSequences) sequences, chunks of \(options.promptChunk ?? 0)"
    var beginnings: [[Int32]] = [[]]
    let outcomes = BatchTests.Outcomes()
    var requests: [GenerationRequest] = []
    var ids: [RequestID] = []
    var cancelled: Set<Int> = []
    var hasMore = true
    while requests.count < 12 || hasMore {
      if requests.count < 12, Bool.random(using: &random) {
        var request = BatchTests.request(&random, beginnings: &beginnings, most: 24, tokens: 16)
        // What is drawn at random depends on the last bits of logits; what is best does not.
        request.sampling.temperature = 0
        ids.append(try engine.submit(request, onEvent: outcomes.handler(requests.count)))
        requests.append(request)
      }
      if !ids.isEmpty, Int.random(in: 0..<12, using: &random) == 0 {
        let index = Int.random(in: 0..<ids.count, using: &random)
        if outcomes.result(index) == nil { cancelled.insert(index) }
        engine.cancel(ids[index])
      }
      hasMore = try engine.step()
    }
    for (index, request) in requests.enumerated() {
      let result = try #require(outcomes.result(index))
      let expected = try alone.generate(request)
      if cancelled.contains(index) {
        #expect(
          result.tokens == Array(expected.tokens.prefix(result.tokens.count)), "request \(index), \(what)")
      } else {
        #expect(result.tokens == expected.tokens, "request \(index), \(what)")
      }
    }
  }

  /// Weights that stream on devices of a mesh, from the host or the file: the tokens of one device with all weights.
  @Test(arguments: [
    (MeshShape(tensor: 2), WeightsFrom.file), (MeshShape(pipeline: 2), .host),
    (MeshShape(tensor: 2, pipeline: 2), .file), (MeshShape(tensor: 4), .host),
  ])
  func weightsStreamInMeshes(_ mesh: MeshShape, _ from: WeightsFrom) throws {
    let path = try StreamTests.file(.q8_0, "mesh-\(mesh.tensor)-\(mesh.pipeline)")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let alone = try StreamTests.engine(path, gpu: nil)
    let expected = try alone.generate(StreamTests.request).tokens
    let resident = try Self.streamEngine(path, mesh)
    #expect(resident.streamedBytes == 0)
    // Beside its share a device has norms, block tables and the like.
    for (memory, share) in zip(resident.deviceMemories, resident.memoryShares) {
      #expect(Double(memory.now) > 0.95 * Double(share))
      #expect(Double(memory.now) < 1.05 * Double(share) + 1_048_576, "\(memory.now) bytes of \(share)")
    }
    // What the device with most takes, with the reserve for small data, less half of its weights.
    let shares = try alone.model.program.shared(over: mesh).map { DeviceModel.weightBytes(of: $0) }
    let most = resident.deviceMemories.map(\.peak).max() ?? 0
    let gpu = most + 6 * 1_048_576 - (shares.max() ?? 0) / 2
    let fault = StreamTests.Fault()
    let engine = try Self.streamEngine(
      path, mesh, gpu: gpu, from: from, reading: StreamTests.reading(fault))
    #expect(engine.streamedBytes > 0)
    #expect(try engine.generate(StreamTests.request).tokens == expected)
    #expect(engine.deviceMemories.allSatisfy { $0.peak <= gpu })
    guard from == .file else { return }
    fault.kind.store(.broken, ordering: .relaxed)
    #expect { _ = try engine.generate(StreamTests.request) } throws: { "\($0)".contains("check the disk") }
    fault.kind.store(.own, ordering: .relaxed)
    #expect(try engine.generate(StreamTests.request).tokens == expected)
  }

  static func streamEngine(
    _ path: String, _ mesh: MeshShape, gpu: Int? = nil, from: WeightsFrom = .auto,
    reading: ReadOptions = ReadOptions()
  ) throws -> Engine {
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.tensorParallel = mesh.tensor
    options.pipelineParallel = mesh.pipeline
    options.contextLength = 64
    options.promptChunk = 16
    options.memory.device = gpu
    options.memory.weightsFrom = from
    options.reading = reading
    return try Engine(model: LanguageModel(weightsOf: path), options: options)
  }

  /// Engines behind one queue: each request as on one, and shared out evenly; one that fails holds nobody else up.
  @Test func enginesShareOutRequests() throws {
    let model = try Self.model("llama")
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.dataParallel = 2
    options.maxSequences = 2
    options.contextLength = 64
    let group = try EngineGroup(model: model, options: options)
    let alone = try Self.engine(model, MeshShape())
    let outcomes = BatchTests.Outcomes()
    var random = SplitMix64(state: 11)
    var beginnings: [[Int32]] = [[]]
    var requests: [GenerationRequest] = []
    for index in 0..<10 {
      var request = BatchTests.request(&random, beginnings: &beginnings, most: 24, tokens: 16)
      request.sampling.temperature = 0
      requests.append(request)
      let id = try group.submit(request, onEvent: outcomes.handler(index))
      if index == 9 { group.cancel(id) }
    }
    while try group.step() {}
    for (index, request) in requests.enumerated() {
      let result = try #require(outcomes.result(index))
      let expected = try alone.generate(request).tokens
      #expect(result.tokens == Array(expected.prefix(result.tokens.count)))
      #expect(result.tokens.count == expected.count || index == 9, "request \(index)")
    }
    #expect(group.givenCounts.allSatisfy { $0 >= 2 } && group.givenCounts.reduce(0, +) >= 9)
    #expect(throws: EngineError.self) { try group.submit(GenerationRequest(prompt: []), onEvent: { _ in }) }
  }

  enum Fault: CaseIterable, Sendable {
    /// A call fails once.
    case error
    case outOfMemory
    /// The driver says that the device is gone.
    case lost
    /// The device stands still in mid-step and never goes on; no call fails.
    case killed
  }

  /// A device fails in mid-step, when others wait for it already: the request ends at once. Where the device lives the
  /// next one works; else an engine on those that are left does, where the engine does not do so itself.
  @Test(
    arguments: [
      (MeshShape(tensor: 2), MeshPath.flags, CollectiveTests.Home.host),
      (MeshShape(tensor: 2), .flags, .own),
      (MeshShape(tensor: 2), .flags, .cached),
      (MeshShape(tensor: 2), .threads, .device),
      (MeshShape(pipeline: 2), .flags, .own),
      (MeshShape(pipeline: 2), .threads, .host),
    ], Fault.allCases)
  func aDeviceThatFailsHoldsNobodyUp(
    _ place: (MeshShape, MeshPath, CollectiveTests.Home), _ fault: Fault
  ) throws {
    let model = try Self.model("llama")
    let (mesh, path, home) = place
    var request = GenerationRequest(prompt: [1, 2, 3])
    request.maxTokens = 8
    // Over all cases each device fails.
    let failing = (path == .flags ? 1 : 0) ^ (fault == .outOfMemory || fault == .lost ? 1 : 0)
    var options = Self.options(mesh, sequences: 1, path: path, home: home)
    options.rebuilds = false
    var engine: Engine! = try Engine(model: model, options: options)
    let expected = try engine.generate(request).tokens
    var never: TimelineSemaphore?
    try engine.withBatch { batch in
      guard let runner = try batch.runner as? MeshRunner else { return }
      if fault == .killed { runner.patience = StepPatience(first: .seconds(2), least: .seconds(2)) }
      let semaphore = try? runner.runners[failing].device.makeSemaphore()
      never = semaphore
      var steps = 0
      runner.beforeSubmission = { device in
        if device == failing { steps += 1 }
        guard device == failing, steps == 2 else { return [] }
        switch fault {
        case .error: throw EngineError(.device, "device \(failing) had enough")
        case .outOfMemory:
          throw VulkanError(kind: .outOfDeviceMemory, description: "device \(failing) is full")
        case .lost: throw VulkanError(kind: .deviceLost, description: "device \(failing) was lost")
        case .killed: return semaphore.map { [($0, UInt64(1))] } ?? []
        }
      }
    }
    let start = ContinuousClock.now
    let error = #expect(throws: (any Error).self) { try engine.generate(request) }
    #expect(ContinuousClock.now - start < .seconds(20))
    let text = error.map { "\($0)" } ?? ""
    #expect(text.contains("device \(failing)"), "\(text)")
    try engine.withBatch { (try $0.runner as? MeshRunner)?.beforeSubmission = nil }
    switch fault {
    case .error, .outOfMemory:
      #expect(engine.lostDevices.isEmpty)
      #expect(try engine.generate(request).tokens == expected)
    case .lost, .killed:
      #expect(engine.lostDevices == [failing])
      let start = ContinuousClock.now
      let error = #expect(throws: (any Error).self) { try engine.generate(request) }
      #expect(error.map { "\($0)" }?.contains("lost") == true)
      #expect(ContinuousClock.now - start < .seconds(20))
      // The driver would let go of a device that is really gone.
      try never?.signal(1)
      engine = try Self.engine(model, MeshShape(tensor: mesh.deviceCount - 1))
      #expect(try engine.generate(request).tokens == expected)
    }
  }

  @Test func eachDeviceHasItsShareOfTheMemory() throws {
    let model = try Self.model("llama")
    let mesh = MeshShape(tensor: 2, pipeline: 2)
    let programs = try model.program.shared(over: mesh)
    // Together they hold every matrix once, but for the embedding table where it is the output matrix too.
    let whole = Set(model.program.stages.flatMap(\.matrices)).reduce(0) { $0 + $1.byteCount }
    let shares = programs.map { Set($0.stages.flatMap(\.matrices)).reduce(0) { $0 + $1.byteCount } }
    let tables = model.program.stages.reduce(0) { sum, stage in
      if case .embed(let embed) = stage { sum + embed.table.byteCount } else { sum }
    }
    #expect(shares.reduce(0, +) >= whole && shares.reduce(0, +) <= whole + tables)
  }

  @Test func meshesThatCannotBeAreRefused() throws {
    let model = try Self.model("llama")
    for mesh in [MeshShape(tensor: 60), MeshShape(pipeline: 60), MeshShape(tensor: 0)] {
      #expect(throws: (any Error).self) { try Self.engine(model, mesh) }
    }
    var options = EngineOptions()
    options.devices = ["0", "0", "0"]
    options.tensorParallel = 2
    #expect(throws: EngineError.self) { try Engine(model: model, options: options) }
  }
}
