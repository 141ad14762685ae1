import Foundation
import ModelFiles
import Synchronization
import Testing
import Transformer

@testable import Engine

/// Models whose weights stream to the device: the same tokens as with all weights on it.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct StreamTests {
  /// A model file of some MB in formats whose rows are odd numbers of bytes.
  static func file(_ type: TensorType, _ name: String) throws -> String {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent(
      "stream-\(name)-\(getpid()).gguf"
    ).path
    let shape = try SyntheticShape(
      text: "layers=6,width=256,heads=4,kv-heads=2,head-size=64,ff=768,vocabulary=4096")
    let description = try ModelDescription.synthetic(shape: shape, weights: type)
    var writer = GGUFWriter()
    for (key, value) in shape.metadata(weights: type) { writer.set(key, value) }
    for tensor in description.tensors { writer.add(tensor) }
    try writer.write(to: path, from: RandomTensorSource(tensors: description.tensors, seed: 3))
    return path
  }

  static let request: GenerationRequest = {
    var request = GenerationRequest(prompt: (0..<40).map { Int32($0 * 37 % 4000 + 1) })
    request.maxTokens = 12
    request.ignoresEndOfText = true
    return request
  }()

  static func engine(
    _ path: String, gpu: Int?, from: WeightsFrom = .auto, host: Int? = nil, prefetch: Int? = nil,
    fault: (@Sendable () throws -> Void)? = nil
  ) throws -> Engine {
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.contextLength = 64
    options.promptChunk = 16
    options.memory.device = gpu
    options.memory.host = host
    options.memory.weightsFrom = from
    options.memory.prefetch = prefetch
    options.readFault = fault
    return try Engine(model: LanguageModel(weightsOf: path), options: options)
  }

  @Test(arguments: [TensorType.q4_1, .q6_k])
  func sameTokensWithinEveryBudget(type: TensorType) throws {
    let path = try Self.file(type, type.name)
    defer { try? FileManager.default.removeItem(atPath: path) }
    let resident = try Self.engine(path, gpu: nil)
    let expected = try resident.generate(Self.request).tokens
    #expect(expected.count == 12 && resident.streamedBytes == 0)
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    let weights = try #require(attributes[.size] as? Int)
    // What all weights on the device take, with the reserve for small data, less a part of the weights.
    let all = resident.deviceMemory.peak + 6 * 1_048_576
    for (part, from, prefetch) in [
      (0.7, WeightsFrom.host, nil), (0.4, .host, 0), (0.7, .file, nil), (0.4, .file, 1),
    ] as [(Double, WeightsFrom, Int?)] {
      let gpu = all - Int(Double(weights) * part)
      let engine = try Self.engine(path, gpu: gpu, from: from, prefetch: prefetch)
      #expect(engine.streamedBytes > 0, "\(gpu) bytes, from \(from)")
      #expect(try engine.generate(Self.request).tokens == expected, "\(gpu) bytes, from \(from)")
      #expect(engine.deviceMemory.peak <= gpu)
    }
  }

  @Test func aBudgetThatIsTooSmallIsAnErrorAtOnce() throws {
    let path = try Self.file(.q8_0, "small")
    defer { try? FileManager.default.removeItem(atPath: path) }
    #expect { _ = try Self.engine(path, gpu: 7_000_000) } throws: { "\($0)".contains("--gpu-memory") }
    #expect { _ = try Self.engine(path, gpu: 13_000_000, from: .host, host: 1_000_000) } throws: {
      "\($0)".contains("--host-memory")
    }
  }

  @Test func aReadThatFailsEndsTheRequestAndNotTheNext() throws {
    struct Fault: Error {}
    let path = try Self.file(.q8_0, "fault")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let expected = try Self.engine(path, gpu: nil).generate(Self.request).tokens
    let fails = Atomic(false)
    let engine = try Self.engine(
      path, gpu: 13_000_000, from: .file,
      fault: { if fails.load(ordering: .relaxed) { throw Fault() } })
    #expect(try engine.generate(Self.request).tokens == expected)
    fails.store(true, ordering: .relaxed)
    #expect(throws: (any Error).self) { _ = try engine.generate(Self.request) }
    fails.store(false, ordering: .relaxed)
    #expect(try engine.generate(Self.request).tokens == expected)
  }

  @Test func aFileThatIsCutWhileInUseEndsTheRequest() throws {
    let path = try Self.file(.q8_0, "cut")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let engine = try Self.engine(path, gpu: 13_000_000, from: .file)
    _ = try engine.generate(Self.request)
    #expect(truncate(path, 4096) == 0)
    #expect { _ = try engine.generate(Self.request) } throws: { "\($0)".contains("changed while") }
  }
}
