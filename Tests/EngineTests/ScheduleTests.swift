import Foundation
import Kernels
import Testing
import Transformer

@testable import Engine

/// The schedule of a pipeline, on stages that are made to take a known time, which contend for no core.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct ScheduleTests {
  static func engine(_ path: String, stages: Int, _ change: (inout EngineOptions) -> Void) throws -> Engine {
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.pipelineParallel = stages
    options.contextLength = 96
    options.promptChunk = 8
    options.maxSequences = 4
    options.stageDelay = StageDelay(fixed: 0.04)
    change(&options)
    return try Engine(model: LanguageModel(weightsOf: path), options: options)
  }

  /// Some requests together, from fresh prompts.
  static func run(_ engine: Engine, count: Int, prompt: Int, tokens: Int, seed: Int) throws {
    for index in 0..<count {
      var request = GenerationRequest(
        prompt: (0..<prompt).map { Int32(($0 * 31 + index * 977 + seed * 7919) % 4000 + 1) })
      request.maxTokens = tokens
      request.ignoresEndOfText = true
      try engine.submit(request) { if case .failed(let error) = $0 { Issue.record("\(error)") } }
    }
    while try engine.step() {}
  }

  /// What a device waits for the stage before is no time of a step, what it waits for others of its own is.
  @Test func exchangesAreAPartOfSteps() {
    func span(_ start: Double, _ end: Double, part: Int = 0, stop: StepRecording.Stop? = nil)
      -> MeshTimeline.Span
    {
      MeshTimeline.Span(
        device: 0, stop: stop, step: 0, part: part, tokens: 1, outputs: 1, start: start, end: end)
    }
    let timeline = MeshTimeline(
      mesh: MeshShape(tensor: 2), spans: [span(1, 3), span(4, 6, part: 1)],
      stops: [span(1, 2, stop: .idle), span(2.5, 4.5, stop: .exchange)])
    #expect(abs(timeline.exchangeShare - 2.0 / 4) < 1e-12)
    #expect(timeline.steps { $0.step > 0 }.exchangeShare == 0)
  }

  @Test func bubblesAreThoseOfTheory() throws {
    let path = try StreamTests.file(.q8_0, "schedule")
    defer { try? FileManager.default.removeItem(atPath: path) }
    for stages in [2, 4] {
      let engine = try Self.engine(path, stages: stages) { _ in }
      try Self.run(engine, count: 1, prompt: 64, tokens: 1, seed: stages)
      // A prompt of eight chunks.
      let timeline = try engine.timeline {
        try Self.run(engine, count: 1, prompt: 64, tokens: 1, seed: 10 + stages)
      }
      let prompt = try #require(timeline)
      #expect(prompt.stepCount == 8 && prompt.spans.count == 8 * stages)
      let expected = Double(stages - 1) / Double(8 + stages - 1)
      // A machine that is busy wakes threads late: on one that is not, less than 0.02.
      #expect(abs(prompt.bubble - expected) < 0.12, "\(stages) stages: \(prompt.bubble), not \(expected)")
      // No stage computes a step before the stage before has.
      for span in prompt.spans where span.device > 0 {
        let before = try #require(
          prompt.spans.first { $0.device == span.device - 1 && $0.step == span.step })
        #expect(before.end <= span.start + 1e-3)
      }
      // As many texts as stages keep all of them busy.
      try Self.run(engine, count: stages, prompt: 4, tokens: 2, seed: 20 + stages)
      let together = try engine.timeline {
        try Self.run(engine, count: stages, prompt: 4, tokens: 16, seed: 30 + stages)
      }
      let texts = try #require(together).steady
      #expect(texts.bubble < 0.25, "\(stages) stages: \(texts.bubble)")
    }
  }

  @Test func groupsThatTakeTurnsWithoutAFlushAreFaster() throws {
    let path = try StreamTests.file(.q8_0, "turns")
    defer { try? FileManager.default.removeItem(atPath: path) }
    func seconds(_ change: (inout EngineOptions) -> Void) throws -> Double {
      let engine = try Self.engine(path, stages: 4) {
        // What two tokens take is twice what one takes: as on a device that is at its arithmetic.
        $0.stageDelay = StageDelay(fixed: 0.02, perToken: 0.02)
        change(&$0)
      }
      try Self.run(engine, count: 4, prompt: 2, tokens: 2, seed: 1)
      let start = ContinuousClock.now
      try Self.run(engine, count: 4, prompt: 2, tokens: 12, seed: 2)
      return (ContinuousClock.now - start) / .seconds(1)
    }
    let queue = try seconds { _ in }
    // In theory seven to four, and four to one.
    let flushed = try seconds { $0.flushes = true }
    let one = try seconds { $0.groups = 1 }
    #expect(queue < 0.85 * flushed && queue < 0.7 * one, "\(queue), \(flushed), \(one) s")
  }

  @Test func promptsAreCutAsTheyPassSoonest() {
    // Reading weights takes 10 ms, a token 0.1 ms where that is more.
    let times = StageTimes(
      [1, 100, 200, 400, 800].map { .init(tokens: $0, seconds: max(0.01, 0.0001 * Double($0))) })
    #expect(abs(times.seconds(tokens: 300) - 0.03) < 1e-9 && times.seconds(tokens: 1) == 0.01)
    #expect(times.promptChunk(tokens: 50, stages: 4, most: 800) == 50)
    #expect(times.promptChunk(tokens: 800, stages: 1, most: 800) == 800)
    let chunk = times.promptChunk(tokens: 800, stages: 4, most: 800)
    for other in [50, 200, 267, 400, 800] {
      #expect(
        times.promptSeconds(tokens: 800, chunk: chunk, stages: 4)
          <= times.promptSeconds(tokens: 800, chunk: other, stages: 4))
    }
    #expect(chunk == 100)
  }

  @Test func layersAreDividedAsAskedOrAsMemoryAllows() throws {
    let path = try StreamTests.file(.q8_0, "layers")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let model = try LanguageModel(weightsOf: path)
    func layers(_ split: LayerSplit?, stages: Int = 2) throws -> [Int] {
      try model.program.shared(over: MeshShape(pipeline: stages), split: split).map(\.layerCount)
    }
    #expect(try layers(.counts([1, 5])) == [1, 5])
    #expect(throws: MeshError.self) { try layers(.counts([2, 3])) }
    #expect(throws: MeshError.self) { try layers(.counts([6])) }
    let even = try layers(nil)
    let most = 1 << 30
    #expect(try layers(.within([most, most])) == even)
    // A layer is some 0.85 MB: a second device with room for little gets little, the first one what is left.
    let table = 4096 * 256 / 32 * 34
    let layer = (4 * 64 * 256 * 2 + 2 * 2 * 64 * 256 + 3 * 768 * 256) / 32 * 34
    #expect(try layers(.within([most, table + layer])) == [5, 1] && even == [4, 2])
    #expect(try layers(.within([table + layer * 3 / 2, most])) == [1, 5])
    // Where nothing fits, as without limits.
    #expect(try layers(.within([0, 0])) == even)
    let engine = try Self.engine(path, stages: 2) {
      $0.stageLayers = [1, 5]
      $0.stageDelay = nil
    }
    #expect(engine.placementTexts[0].contains("layers 0 to 0,"))
    let alone = try StreamTests.engine(path, gpu: nil)
    #expect(
      try engine.generate(StreamTests.request).tokens == alone.generate(StreamTests.request).tokens)
  }
}
