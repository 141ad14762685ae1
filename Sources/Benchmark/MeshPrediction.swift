import Engine
import Kernels
import Placement
import Transformer

/// What the cost model says of a mesh, set by what one of its devices does with the model, and by the link between them.
package struct MeshPrediction {
  /// What one device does.
  package enum Device: Sendable {
    /// Seconds of a step with so many texts, a token each, and of the prompt, by itself; bytes a second that a kernel
    /// which only reads reaches.
    case measured(steps: [Int: Double], prompt: Double, bandwidth: Double)
    /// Bytes a second that its kernels read: all that is known where it has no room for the model.
    case bandwidth(Double)
  }

  private let model: MeshCost.Model
  private let mesh: MeshShape
  private let device: Device
  /// What passes between devices, and how fast.
  package let link: CollectiveBenchmark.Link
  private let prompt: Double
  /// Tokens of a text in the cache, on the average.
  private let context: Double
  /// Devices of the mesh that are the same physical one.
  private let sharers: Double

  /// Seconds of a layer's dispatches on one device, as far as they do not depend on its size: the least that is reckoned
  /// with.
  private static let layerOverhead = 15e-6

  /// - Parameters:
  ///   - program: of the whole model.
  ///   - devices: the number of the physical device of each in the mesh.
  ///   - prompt: tokens of a prompt alone.
  ///   - depth, tokens: before each text, and of it.
  package init(
    program: Program, mesh: MeshShape, devices: [Int], device: Device, link: CollectiveBenchmark.Link,
    prompt: Int, depth: Int, tokens: Int
  ) {
    // The embedding table is looked up, not read; where it is the output matrix, too, it is there as such.
    let matrices = Set(
      program.stages.flatMap { stage in
        if case .embed = stage { [TensorSlice]() } else { stage.matrices }
      })
    model = MeshCost.Model(
      layers: Double(program.layerCount), width: Double(program.width),
      keyValueBytesPerToken: Double(
        KVCache.pageBytes(heads: program.heads) * program.layerCount / KVCache.pageTokens),
      weights: matrices.reduce(0) { $0 + Double($1.rows.count) * Double($1.columns.count) },
      weightBytes: matrices.reduce(0) { $0 + Double($1.byteCount) })
    self.mesh = mesh
    self.device = device
    self.link = link
    self.prompt = Double(prompt)
    context = Double(depth) + Double(tokens) / 2
    let counts = Dictionary(devices.map { ($0, 1) }, uniquingKeysWith: +)
    sharers = Double(counts.values.max() ?? 1)
  }

  /// Texts that a step has where `batch` of them take turns in as many groups as there are stages.
  package static func texts(batch: Int, mesh: MeshShape) -> Int { max(1, batch / mesh.pipeline) }

  /// Seconds between two tokens of each of so many texts; nil where one device was not measured with as many in a step.
  package func decode(batch: Int) -> Double? {
    let texts = Self.texts(batch: batch, mesh: mesh)
    var overhead = Self.layerOverhead
    var bandwidth: Double
    switch device {
    case .bandwidth(let value): bandwidth = value
    case .measured(let steps, _, let read):
      guard let seconds = steps[texts], let least = steps.min(by: { $0.key < $1.key }) else { return nil }
      // What reading does not explain of a step of few texts is there on each of several devices, too. Of small models
      // it would be more than all.
      overhead = max(overhead, (least.value - bytes(texts: least.key) / read) / model.layers)
      overhead = min(overhead, least.value / 2 / model.layers, seconds / 2 / model.layers)
      bandwidth = bytes(texts: texts) / (seconds - model.layers * overhead)
    }
    // Stages without a text idle.
    bandwidth /= max(1, sharers * Double(min(batch, mesh.pipeline)) / Double(mesh.pipeline))
    return cost(bandwidth: bandwidth, operations: .infinity, overhead: overhead)
      .decode(batch: Double(batch), context: context)
  }

  /// Seconds of the prompt; nil where one device was not measured.
  package var promptSeconds: Double? {
    guard case .measured(_, let seconds, _) = device else { return nil }
    let overhead = min(Self.layerOverhead, seconds / 2 / model.layers)
    let operations = 2 * model.weights * prompt / (seconds - model.layers * overhead)
    return cost(bandwidth: .infinity, operations: operations / sharers, overhead: overhead).prompt(
      tokens: prompt)
  }

  /// What a step with so many texts reads.
  private func bytes(texts: Int) -> Double {
    model.weightBytes + Double(texts) * context * model.keyValueBytesPerToken
  }

  private func cost(bandwidth: Double, operations: Double, overhead: Double) -> MeshCost {
    MeshCost(
      hardware: MeshCost.Hardware(
        memory: .infinity, bandwidth: bandwidth, operations: operations, link: link.rate,
        latency: link.latency, layerOverhead: overhead), model: model, mesh: mesh)
  }
}
