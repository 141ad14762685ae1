import Foundation
import Synchronization
import Testing
import Transformer
import VulkanRuntime

@testable import Engine

/// Devices of a mesh that are lost: the engine goes on with those that are left.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct RebuildTests {
  /// How requests ended.
  final class Ends: Sendable {
    let results = Mutex<[Int: Result<[Int32], any Error>]>([:])

    func handler(_ index: Int) -> @Sendable (GenerationEvent) -> Void {
      { event in
        let end: Result<[Int32], any Error>
        switch event {
        case .prompt, .token: return
        case .finished(let result): end = .success(result.tokens)
        case .failed(let error): end = .failure(error)
        }
        self.results.withLock {
          #expect($0[index] == nil, "request \(index) ended twice")
          $0[index] = end
        }
      }
    }

    /// The requests that failed, and why.
    var failures: [Int: String] {
      results.withLock { results in
        results.compactMapValues { if case .failure(let error) = $0 { "\(error)" } else { nil } }
      }
    }

    func tokens(_ index: Int) -> [Int32]? { results.withLock { try? $0[index]?.get() } }
  }

  static func request(_ index: Int, tokens: Int = 8) -> GenerationRequest {
    var request = GenerationRequest(prompt: [1, 2, Int32(3 + index)])
    request.maxTokens = tokens
    request.ignoresEndOfText = true
    return request
  }

  /// Lets a device be lost before a step to come.
  ///
  /// - Returns: for one that hangs, what lets it go on.
  @discardableResult
  static func lose(_ device: Int, of engine: Engine, step: Int, hangs: Bool) throws -> TimelineSemaphore? {
    guard hangs else {
      try engine.loseDevice(device, atStep: step)
      return nil
    }
    return try engine.withBatch { batch in
      let runner = try #require(batch.runner as? MeshRunner)
      runner.patience.least = .seconds(3)
      let never = try runner.runners[device].device.makeSemaphore()
      var count = 0
      runner.beforeSubmission = { submitted in
        guard submitted == device else { return [] }
        count += 1
        return count == step ? [(never, UInt64(1))] : []
      }
      return never
    }
  }

  /// Steps until nothing is left to do.
  ///
  /// - Returns: how many steps failed.
  static func run(_ engine: Engine) -> Int {
    var failures = 0
    while failures < 10 {
      do { if try !engine.step() { break } } catch { failures += 1 }
    }
    return failures
  }

  /// A device of a mesh, and what is left of it.
  struct Case: Sendable, CustomTestStringConvertible {
    var mesh: MeshShape
    var device: Int
    var hangs: Bool
    var left: Int
    var testDescription: String {
      "\(mesh.tensor) x \(mesh.pipeline), device \(device)\(hangs ? " hangs" : "")"
    }
  }

  @Test(arguments: [
    Case(mesh: MeshShape(tensor: 2), device: 0, hangs: false, left: 1),
    Case(mesh: MeshShape(pipeline: 2), device: 1, hangs: true, left: 1),
    Case(mesh: MeshShape(tensor: 2, pipeline: 2), device: 3, hangs: false, left: 2),
    Case(mesh: MeshShape(tensor: 2, pipeline: 2), device: 0, hangs: true, left: 2),
  ])
  func whatWaitsGoesOnWithTheOthers(_ test: Case) throws {
    let model = try MeshTests.model("llama")
    let folder = try SavedStateTests.Folder()
    let alone = try MeshTests.engine(model, MeshShape())
    let expected = try (0..<5).map { try alone.generate(Self.request($0)).tokens }
    let engine = try Engine(model: model, options: MeshTests.options(test.mesh, sequences: 2))
    // Now it is known how long steps take.
    for _ in 0..<3 { #expect(try engine.generate(Self.request(0)).tokens == expected[0]) }
    let text = (0..<40).map { Int32($0 * 37 % 90) }
    _ = try engine.generate(GenerationRequest(prompt: text))
    try engine.saveState(of: text, to: folder.path("state"))
    let never = try Self.lose(test.device, of: engine, step: 3, hangs: test.hangs)
    let ends = Ends()
    for index in 0..<5 { try engine.submit(Self.request(index), onEvent: ends.handler(index)) }
    var time: Duration?
    let start = ContinuousClock.now
    while time == nil {
      do { _ = try engine.step() } catch { time = ContinuousClock.now - start }
    }
    // Those that ran know of it at once, before anything is loaded anew.
    #expect(Set(ends.failures.keys) == [0, 1])
    #expect(ends.failures.values.allSatisfy { $0.contains("device \(test.device)") }, "\(ends.failures)")
    #expect(try #require(time) < .seconds(30))
    #expect(engine.lossText == nil)
    #expect(Self.run(engine) == 0)
    for index in 2..<5 { #expect(ends.tokens(index) == expected[index], "request \(index)") }
    #expect(engine.lostDevices == [test.device])
    #expect(engine.deviceMemories.count == test.left)
    let loss = try #require(engine.lossText)
    #expect(loss.contains("device \(test.device)") && loss.contains("the model runs on"), "\(loss)")
    #expect(try engine.generate(Self.request(1)).tokens == expected[1])
    #expect(try engine.restoreState(from: folder.path("state")) == text)
    #expect(try engine.generate(GenerationRequest(prompt: text)).sharedTokenCount == 32)
    try never?.signal(1)
  }

  /// One after the other, until one is left.
  @Test func devicesAreLostOneByOne() throws {
    let model = try MeshTests.model("llama")
    let engine = try Engine(
      model: model, options: MeshTests.options(MeshShape(tensor: 2, pipeline: 2), sequences: 1))
    let expected = try engine.generate(Self.request(0)).tokens
    for (device, lost) in [(2, [2]), (1, [1, 2])] {
      try Self.lose(device, of: engine, step: 2, hangs: false)
      #expect(throws: (any Error).self) { try engine.generate(Self.request(0)) }
      #expect(try engine.generate(Self.request(0)).tokens == expected)
      #expect(engine.lostDevices == lost)
    }
    #expect(engine.deviceMemories.count == 1)
  }

  /// Devices that have no room for the model: one clear error, to whoever asks.
  @Test func whereNothingFitsThatIsAnError() throws {
    let path = try StreamTests.file(.q8_0, "rebuild")
    let folder = try SavedStateTests.Folder()
    defer { try? FileManager.default.removeItem(atPath: path) }
    let resident = try MeshTests.streamEngine(path, MeshShape(tensor: 2))
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.tensorParallel = 2
    options.contextLength = 64
    options.promptChunk = 16
    options.memory.device = (resident.deviceMemories.map(\.peak).max() ?? 0) + 6_400_000
    options.memory.host = 1
    options.memory.weightsFrom = .host
    var engine: Engine! = try Engine(model: LanguageModel(weightsOf: path), options: options)
    #expect(engine.streamedBytes == 0)
    try Self.lose(1, of: engine, step: 2, hangs: false)
    let ends = Ends()
    for index in 0..<3 { try engine.submit(Self.request(index), onEvent: ends.handler(index)) }
    #expect(Self.run(engine) == 10)
    #expect(ends.failures.count == 3)
    #expect(ends.failures[0]?.contains("device 1") == true, "\(ends.failures)")
    for index in 1..<3 {
      let text = try #require(ends.failures[index])
      #expect(
        text.contains("the model does not run on the 1 that are left") && !text.contains("\n"), "\(text)")
    }
    #expect { _ = try engine.generate(Self.request(0)) } throws: { "\($0)".contains("does not run on") }
    #expect(throws: (any Error).self) { try engine.saveState(of: [1], to: folder.path("state")) }
    #expect(engine.lostDevices == [1] && engine.deviceMemories.isEmpty)
    engine = nil
  }

  /// The steps before say how long a device may stand still; an engine with one that hangs can be let go.
  @Test(arguments: [(MeshPath.threads, CollectiveTests.Home.host), (.flags, .host), (.flags, .own)])
  func aHangIsFoundSoon(_ path: MeshPath, _ home: CollectiveTests.Home) throws {
    let model = try MeshTests.model("llama")
    var options = MeshTests.options(MeshShape(tensor: 2), sequences: 1, path: path, home: home)
    options.rebuilds = false
    var engine: Engine! = try Engine(model: model, options: options)
    for _ in 0..<3 { _ = try engine.generate(Self.request(0)) }
    let never = try Self.lose(1, of: engine, step: 2, hangs: true)
    let start = ContinuousClock.now
    #expect { _ = try engine.generate(Self.request(0)) } throws: { "\($0)".contains("does not go on") }
    let found = ContinuousClock.now - start
    // Three seconds, and what the machine's other work makes of it; 60 without what is known of steps.
    #expect(found > .seconds(3) && found < .seconds(30))
    engine = nil
    #expect(ContinuousClock.now - start < .seconds(50))
    try never?.signal(1)
  }

  /// An engine of a group loses a device: the others take what waits, and it takes part again.
  @Test func anEngineOfAGroupComesBack() throws {
    let model = try MeshTests.model("llama")
    var options = MeshTests.options(MeshShape(tensor: 2), sequences: 1)
    options.dataParallel = 2
    let group = try EngineGroup(model: model, options: options)
    let alone = try MeshTests.engine(model, MeshShape())
    try Self.lose(1, of: group.engines[0], step: 3, hangs: false)
    let ends = Ends()
    for index in 0..<8 { try group.submit(Self.request(index), onEvent: ends.handler(index)) }
    while try group.step() {}
    #expect(ends.failures.count == 1, "\(ends.failures)")
    for index in 0..<8 where ends.failures[index] == nil {
      #expect(try ends.tokens(index) == alone.generate(Self.request(index)).tokens)
    }
    let start = ContinuousClock.now
    while group.engines[0].lossText?.contains("the model runs on") != true {
      guard ContinuousClock.now - start < .seconds(60) else { break }
      usleep(10_000)
    }
    #expect(group.engines[0].lostDevices == [1])
    let given = group.givenCounts
    for index in 8..<16 { try group.submit(Self.request(index), onEvent: ends.handler(index)) }
    while try group.step() {}
    #expect(ends.failures.count == 1)
    for index in 8..<16 { #expect(try ends.tokens(index) == alone.generate(Self.request(index)).tokens) }
    #expect(zip(group.givenCounts, given).allSatisfy { $0 > $1 }, "\(group.givenCounts) after \(given)")
  }

  @Test func patienceFollowsTheStepsBefore() {
    var patience = StepPatience(first: .seconds(10), least: .seconds(1))
    let text = StepPatience.Size(tokens: 1, lastPosition: 100)
    let prompt = StepPatience.Size(tokens: 2048, lastPosition: 2047)
    #expect(text == StepPatience.Size(tokens: 1, lastPosition: 120))
    #expect(text != StepPatience.Size(tokens: 1, lastPosition: 200) && text != prompt)
    #expect(patience.limit([StepPatience.Size]()) == .seconds(1))
    #expect(patience.limit([text]) == .seconds(10))
    patience.note(text, seconds: 5)
    #expect(patience.limit([text]) == .seconds(10))
    patience.note(text, seconds: 0.01)
    // The first one compiled its kernels, perhaps.
    #expect(patience.limit([text]) == .seconds(1))
    for _ in 0..<3 { patience.note(prompt, seconds: 0.5) }
    #expect(patience.limit([prompt]) == .seconds(4))
    #expect(patience.limit([text, prompt]) == .seconds(4))
    // One that was held up does not count.
    patience.note(prompt, seconds: 100)
    #expect(patience.limit([prompt]) == .seconds(4))
    #expect(patience.limit([text, StepPatience.Size(tokens: 64, lastPosition: 63)]) == .seconds(10))
    for _ in 0..<9 { patience.note(prompt, seconds: 2) }
    #expect(patience.limit([prompt]) == .seconds(16))
  }

  @Test func theMeshThatIsMostAlikeComesFirst() {
    func shapes(_ mesh: MeshShape, _ devices: Int) -> [String] {
      mesh.successors(devices: devices).map { "\($0.tensor)x\($0.pipeline)" }
    }
    #expect(shapes(MeshShape(tensor: 2), 1) == ["1x1"])
    #expect(shapes(MeshShape(tensor: 2, pipeline: 2), 3) == ["2x1", "1x2", "3x1", "1x3", "1x1"])
    #expect(shapes(MeshShape(pipeline: 4), 3) == ["1x3", "1x2", "1x1", "2x1", "3x1"])
    #expect(shapes(MeshShape(tensor: 2, pipeline: 4), 7).prefix(2) == ["2x3", "1x4"])
    #expect(shapes(MeshShape(tensor: 2), 0).isEmpty)
  }
}
