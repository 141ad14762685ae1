import Foundation
import ModelFiles
import Testing
import VulkanRuntime

@testable import Engine

/// Devices that are full at any moment: every allocation, one after the other, fails once, while a model is loaded and
/// while it runs. That is an error in a line, everything is released, and what comes next works.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct FullDeviceTests {
  enum Kind: CaseIterable {
    /// All on the device, with a cache that is too small for all requests.
    case resident
    case fromHost, fromFile
    /// Two devices that split every layer.
    case mesh
  }

  static func options(_ kind: Kind, _ faults: AllocationFaults) -> EngineOptions {
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.contextLength = 96
    options.promptChunk = 16
    options.maxSequences = 2
    options.expectedPrompt = 20
    options.allocationFaults = faults
    switch kind {
    case .resident: options.cacheTokens = 96
    case .fromHost, .fromFile:
      options.memory.device = 13_000_000
      options.memory.weightsFrom = kind == .fromHost ? .host : .file
    case .mesh:
      options.tensorParallel = 2
      options.meshPath = .threads
      options.meshMemory = .device
      options.meshIsApart = true
    }
    return options
  }

  /// The tokens of two requests that run together; throws when the device fails: those that run end with that, and one
  /// that has not begun goes on.
  static func generate(_ engine: Engine) throws -> [[Int32]] {
    let outcomes = RequestOutcomes()
    for index in 0..<2 {
      var request = GenerationRequest(prompt: (0..<20).map { Int32(($0 * 7 + index * 31) % 90 + 1) })
      request.maxTokens = 40
      request.ignoresEndOfText = true
      request.sampling.repeatPenalty = 1.1
      if index == 0 { request.logprobs = 2 }
      try engine.submit(request) { outcomes.add($0, index) }
    }
    do {
      while try engine.step() {}
    } catch {
      while try engine.step() {}
      #expect(!outcomes.errors.isEmpty && outcomes.ended == 2, "a request did not end")
      throw error
    }
    return outcomes.tokens
  }

  final class RequestOutcomes: Sendable {
    private let all = Guarded<(tokens: [[Int32]], errors: [String], ended: Int)>(([[], []], [], 0))
    var tokens: [[Int32]] { all.withLock { $0.tokens } }
    var errors: [String] { all.withLock { $0.errors } }
    var ended: Int { all.withLock { $0.ended } }

    func add(_ event: GenerationEvent, _ index: Int) {
      all.withLock { all in
        switch event {
        case .token(let token): all.tokens[index].append(token.id)
        case .failed(let error):
          all.errors.append("\(error)")
          all.ended += 1
        case .finished: all.ended += 1
        case .prompt: break
        }
      }
    }
  }

  static func expectClear(_ error: any Error, _ number: Int) {
    let text = "\(error)"
    #expect(text.contains("memory") && !text.contains("\n"), "allocation \(number): \(text)")
  }

  static func expectNothingHeld(_ faults: AllocationFaults, _ what: String) {
    let held = faults.held
    #expect(held.device == 0 && held.host == 0, "\(what) leaves \(held)")
  }

  @Test(arguments: Kind.allCases) func everyAllocationMayFail(kind: Kind) throws {
    let streams = kind == .fromHost || kind == .fromFile
    let path = streams ? try StreamTests.file(.q8_0, "full-\(kind)") : ""
    defer { if streams { try? FileManager.default.removeItem(atPath: path) } }
    let model = streams ? try LanguageModel(weightsOf: path) : try BatchTests.model.get()
    let usual = AllocationFaults()
    let (expected, loading, held) = try {
      let engine = try Engine(model: model, options: Self.options(kind, usual))
      #expect(engine.streamedBytes > 0 || !streams)
      let loading = usual.attempts
      let expected = try Self.generate(engine)
      #expect(expected.allSatisfy { $0.count == 40 })
      if kind == .resident { #expect(engine.returnedPages > 0, "pages never ran short") }
      // What is made when it is first wanted is there now.
      #expect(try Self.generate(engine) == expected)
      return (expected, loading, usual.held)
    }()
    let all = usual.attempts
    Self.expectNothingHeld(usual, "an engine that is gone")
    #expect(all > loading && loading > 10)

    var (failedLoads, failedRequests) = (0, 0)
    // All of a small engine's; of others those that are done once for each layer are passed over.
    for number in stride(from: 0, to: all, by: kind == .resident ? 1 : 5) {
      let faults = AllocationFaults(failing: [number])
      var engine: Engine?
      do {
        engine = try Engine(model: model, options: Self.options(kind, faults))
      } catch {
        failedLoads += 1
        Self.expectClear(error, number)
        Self.expectNothingHeld(faults, "a load without allocation \(number)")
      }
      if number >= loading { #expect(engine != nil) }
      // The fault does not come again.
      let next = try engine ?? Engine(model: model, options: Self.options(kind, faults))
      engine = nil
      for _ in 0..<2 {
        do {
          #expect(try Self.generate(next) == expected, "allocation \(number)")
        } catch {
          failedRequests += 1
          Self.expectClear(error, number)
          #expect(try Self.generate(next) == expected, "after allocation \(number) failed")
        }
      }
      #expect(faults.held.device <= held.device && faults.held.host <= held.host, "allocation \(number)")
    }
    #expect(failedLoads > loading / (kind == .resident ? 2 : 10))
    #expect(failedRequests > 0 || kind != .resident)
  }
}
