import Foundation
import Kernels
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
    reading: ReadOptions = ReadOptions()
  ) throws -> Engine {
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.contextLength = 64
    options.promptChunk = 16
    options.memory.device = gpu
    options.memory.host = host
    options.memory.weightsFrom = from
    options.memory.prefetch = prefetch
    options.reading = reading
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
      // What the host has pinned is what all of the file takes, and what reading needs.
      #expect(engine.peakPinnedMemory > 0 && engine.peakPinnedMemory < weights + (16 << 20))
    }
  }

  @Test func hostAndFileShareWhatTheHostHasNoRoomFor() throws {
    let path = try Self.file(.q8_0, "budget")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let expected = try Self.engine(path, gpu: nil).generate(Self.request).tokens
    let least = try Self.engine(path, gpu: 13_000_000, from: .file).peakPinnedMemory
    for host in [least + 2_500_000, least + 3_500_000, least + 20_000_000] {
      let engine = try Self.engine(path, gpu: 13_000_000, host: host)
      #expect(try engine.generate(Self.request).tokens == expected)
      #expect(engine.peakPinnedMemory <= host && engine.deviceMemory.peak <= 13_000_000)
      let figures = try #require(engine.streaming.first)
      #expect(figures.hostBytes + figures.fileBytes == engine.streamedBytes)
      #expect(figures.copiedBytes >= engine.streamedBytes && figures.linkRate > 0 && figures.stepSeconds > 0)
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

  /// What a read gives instead of its own result, while `value` is not 0.
  static func reading(_ value: Fault) -> ReadOptions {
    var options = ReadOptions()
    options.fault = { value.kind.load(ordering: .relaxed).result($0) }
    return options
  }

  final class Fault: Sendable {
    enum Kind: Int, AtomicRepresentable {
      case own, broken, short, cut

      func result(_ result: Int) -> Int? {
        switch self {
        case .own: nil
        case .broken: -Int(EIO)
        case .short: min(result, 5000)
        case .cut: 0
        }
      }
    }

    let kind = Atomic(Kind.own)
  }

  @Test func readsThatFailEndTheRequestAndNotTheNext() throws {
    let path = try Self.file(.q8_0, "fault")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let expected = try Self.engine(path, gpu: nil).generate(Self.request).tokens
    let fault = Fault()
    let engine = try Self.engine(path, gpu: 13_000_000, from: .file, reading: Self.reading(fault))
    #expect(try engine.generate(Self.request).tokens == expected)
    let memory = engine.deviceMemory.now
    for (kind, message) in [
      (.broken, "check the disk"), (.own, nil), (.cut, "cut short"), (.short, nil), (.own, nil),
    ] as [(Fault.Kind, String?)] {
      fault.kind.store(kind, ordering: .relaxed)
      if let message {
        #expect { _ = try engine.generate(Self.request) } throws: {
          "\($0)".contains(message) && !"\($0)".contains("\n")
        }
      } else {
        // Short reads are gone on with.
        #expect(try engine.generate(Self.request).tokens == expected, "\(kind)")
      }
      #expect(engine.deviceMemory.now == memory)
    }
  }

  @Test func copiesRunFurtherAheadWhereTheDeviceWaitsForThem() throws {
    let path = try Self.file(.q8_0, "depth")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let isSlow = Atomic(false)
    var reading = ReadOptions()
    reading.fault = { result in
      if isSlow.load(ordering: .relaxed) { usleep(3000) }
      return nil
    }
    let engine = try Self.engine(path, gpu: 13_000_000, from: .file, reading: reading)
    func depth() throws -> PrefetchDepth { try #require(engine.streaming.first).prefetch }
    let expected = try engine.generate(Self.request).tokens
    isSlow.store(true, ordering: .relaxed)
    for _ in 0..<4 { #expect(try engine.generate(Self.request).tokens == expected) }
    #expect(try depth().depth == depth().most && !depth().isFixed)
    let fixed = try Self.engine(path, gpu: 13_000_000, from: .file, prefetch: 1, reading: reading)
    #expect(try fixed.generate(Self.request).tokens == expected)
    #expect(try #require(fixed.streaming.first).prefetch.depth == 1)
  }

  @Test func allWaysOfReadingGiveTheSameTokens() throws {
    let path = try Self.file(.q5_1, "ways")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let expected = try Self.engine(path, gpu: nil).generate(Self.request).tokens
    for (usesRing, usesDirect) in [(true, true), (true, false), (false, true), (false, false)] {
      var reading = ReadOptions()
      reading.usesRing = usesRing
      reading.usesDirect = usesDirect
      let engine = try Self.engine(path, gpu: 11_000_000, from: .file, reading: reading)
      #expect(try engine.generate(Self.request).tokens == expected, "\(usesRing), \(usesDirect)")
    }
  }

  @Test func aFileThatIsCutWhileInUseEndsTheRequest() throws {
    let path = try Self.file(.q8_0, "cut")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let engine = try Self.engine(path, gpu: 13_000_000, from: .file)
    let expected = try engine.generate(Self.request).tokens
    // A file that takes the name of the one in use is no harm.
    let other = path + ".other"
    #expect(rename(path, other) == 0)
    defer { unlink(other) }
    FileManager.default.createFile(atPath: path, contents: Data("other".utf8))
    #expect(try engine.generate(Self.request).tokens == expected)
    #expect(truncate(other, 4096) == 0)
    #expect { _ = try engine.generate(Self.request) } throws: { "\($0)".contains("changed while") }
  }

  @Test func cancellingAtAnyTimeLeavesTheNextRequestAsItWas() throws {
    let path = try Self.file(.q4_0, "cancel")
    defer { try? FileManager.default.removeItem(atPath: path) }
    let engine = try Self.engine(path, gpu: 11_000_000, from: .file)
    let expected = try engine.generate(Self.request).tokens
    for steps in 0..<6 {
      var left = steps
      let result = try engine.generate(
        Self.request,
        shouldStop: {
          left -= 1; return left < 0
        })
      #expect(result.finishReason == .cancelled && expected.starts(with: result.tokens))
      #expect(try engine.generate(Self.request).tokens == expected)
    }
  }
}
