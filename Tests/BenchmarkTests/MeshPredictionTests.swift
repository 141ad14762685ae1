import Benchmark
import Engine
import ModelFiles
import Testing
import Transformer

/// What the cost model says of meshes when one device and the link are known.
struct MeshPredictionTests {
  private static func prediction(
    _ mesh: MeshShape, devices: [Int], latency: Double = 0, rate: Double = .infinity,
    bandwidth: Double = 1
  ) throws -> MeshPrediction {
    let model = try LanguageModel(
      shape: SyntheticShape(text: "layers=4,width=64,heads=4,kv-heads=2,head-size=16,ff=96,vocabulary=100"),
      weights: .f16, seed: 1)
    return MeshPrediction(
      program: model.program, mesh: mesh, devices: devices,
      device: .measured(steps: [1: 0.010, 4: 0.016], prompt: 0.1, bandwidth: bandwidth),
      link: CollectiveBenchmark.Link(latency: latency, rate: rate), prompt: 100, depth: 100, tokens: 20)
  }

  /// Seconds of four layers' dispatches.
  private static let dispatches = 4 * 15e-6

  @Test func oneDeviceIsWhatWasMeasured() throws {
    let alone = try Self.prediction(MeshShape(), devices: [0])
    for (batch, seconds) in [(1, 0.010), (4, 0.016)] {
      let found = try #require(alone.decode(batch: batch))
      #expect(abs(found / seconds - 1) < 1e-9)
    }
    #expect(abs(try #require(alone.promptSeconds) / 0.1 - 1) < 1e-9)
    // Nobody knows of other batches.
    #expect(alone.decode(batch: 3) == nil)
  }

  @Test func devicesShareTheWork() throws {
    let two = try Self.prediction(MeshShape(tensor: 2), devices: [0, 1])
    let half = (0.010 - Self.dispatches) / 2 + Self.dispatches
    #expect(abs(try #require(two.decode(batch: 1)) / half - 1) < 1e-9)
    // Two logical devices of one are no more than that one.
    let same = try Self.prediction(MeshShape(tensor: 2), devices: [0, 0])
    #expect(abs(try #require(same.decode(batch: 1)) / 0.010 - 1) < 1e-9)
    // Two all-reduces a layer.
    let slow = try Self.prediction(MeshShape(tensor: 2), devices: [0, 1], latency: 1e-4, rate: 1e6)
    let bytes = 4.0 * 64
    let exchanges = 8 * (1e-4 + bytes / 1e6)
    #expect(abs(try #require(slow.decode(batch: 1)) / (half + exchanges) - 1) < 1e-9)
  }

  /// What reading does not explain of a step is not shared, up to half of it.
  @Test func whatIsNotReadingStays() throws {
    for (bandwidth, stays) in [(Double.infinity, 0.005), (40_370_000, 0.0022)] {
      let two = try Self.prediction(MeshShape(tensor: 2), devices: [0, 1], bandwidth: bandwidth)
      let found = try #require(two.decode(batch: 1))
      #expect(abs(found - ((0.010 - stays) / 2 + stays)) < 0.0002, "\(found)")
      let four = try #require(two.decode(batch: 4))
      #expect(abs(four - ((0.016 - stays) / 2 + stays)) < 0.0002, "\(four)")
    }
  }

  @Test func stagesTakeTurns() throws {
    // A text alone goes through both stages, one after the other; four texts are two groups of two: not measured.
    let two = try Self.prediction(MeshShape(pipeline: 2), devices: [0, 1])
    #expect(abs(try #require(two.decode(batch: 1)) / 0.010 - 1) < 1e-9)
    #expect(two.decode(batch: 4) == nil)
    #expect(MeshPrediction.texts(batch: 8, mesh: MeshShape(pipeline: 2)) == 4)
    // Eight are two groups of four, each token of which takes as long as one device's of four.
    #expect(abs(try #require(two.decode(batch: 8)) / 0.016 - 1) < 1e-9)
  }

  @Test func collectivesAreLatencyAndBytes() {
    let link = CollectiveBenchmark.Link(latency: 1e-5, rate: 1e9)
    func seconds(_ collective: Collective) -> Double {
      link.seconds(collective, byteCount: 1_000_000, ranks: 4)
    }
    #expect(abs(seconds(.allReduce) / (1e-5 + 3e-3) - 1) < 1e-9)
    #expect(abs(seconds(.scatteredAllReduce) / (2e-5 + 1.5e-3) - 1) < 1e-9)
    #expect(abs(seconds(.broadcast) / (1e-5 + 1e-3) - 1) < 1e-9)
  }
}
