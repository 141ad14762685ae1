import Transformer

/// What a mesh of equal devices gives for a model, by a model of time: bytes over bandwidth, operations over arithmetic,
/// and the latency of collectives.
package struct MeshCost: Sendable {
  /// Figures of a device and of the link between devices.
  package struct Hardware: Sendable {
    /// Bytes of memory, and bytes a second that kernels reach of it.
    package var memory: Double
    package var bandwidth: Double
    /// Operations a second that products of many tokens reach.
    package var operations: Double
    /// Bytes a second between two devices, and seconds of an all-reduce of next to nothing.
    package var link: Double
    package var latency: Double
    /// Seconds of a layer that do not depend on its size: its dispatches and barriers.
    package var layerOverhead: Double
    /// Devices of a node, and bytes a second and seconds of a message between two nodes; without, all are in one.
    package var node: Int?
    package var network = 0.0
    package var networkLatency = 0.0

    package init(
      memory: Double, bandwidth: Double, operations: Double, link: Double, latency: Double,
      layerOverhead: Double
    ) {
      self.memory = memory
      self.bandwidth = bandwidth
      self.operations = operations
      self.link = link
      self.latency = latency
      self.layerOverhead = layerOverhead
    }
  }

  /// Sizes of a dense model; bytes are those of its weights as stored.
  package struct Model: Sendable {
    package var layers: Double
    package var width: Double
    package var keyValueBytesPerToken: Double
    package var weights: Double
    package var weightBytes: Double

    package init(
      layers: Double, width: Double, keyValueBytesPerToken: Double, weights: Double, weightBytes: Double
    ) {
      self.layers = layers
      self.width = width
      self.keyValueBytesPerToken = keyValueBytesPerToken
      self.weights = weights
      self.weightBytes = weightBytes
    }
  }

  package let hardware: Hardware
  package let model: Model
  package let mesh: MeshShape

  package init(hardware: Hardware, model: Model, mesh: MeshShape) {
    self.hardware = hardware
    self.model = model
    self.mesh = mesh
  }

  private var tensor: Double { Double(mesh.tensor) }
  private var pipeline: Double { Double(mesh.pipeline) }

  /// Seconds of an all-reduce of `bytes` by all ranks: each reads what the others have. Where ranks are on several nodes,
  /// first within each node, then across nodes, each rank with those that have the same place there.
  package func allReduce(_ bytes: Double) -> Double {
    guard mesh.tensor > 1 else { return 0 }
    let node = hardware.node ?? mesh.tensor
    let within = Double(min(mesh.tensor, node))
    let nodes = (tensor / within).rounded(.up)
    let near = within > 1 ? hardware.latency + (within - 1) * bytes / hardware.link : 0
    return nodes > 1 ? near + hardware.networkLatency + (nodes - 1) * bytes / within / hardware.network : near
  }

  /// Seconds for which a stage computes `tokens` tokens that have `context` tokens before them each.
  package func stage(tokens: Double, context: Double) -> Double {
    let share = tensor * pipeline
    let bytes = (model.weightBytes + tokens * context * model.keyValueBytesPerToken) / share
    let operations = 2 * model.weights * tokens / share
    let layers = model.layers / pipeline
    return max(bytes / hardware.bandwidth, operations / hardware.operations)
      + layers * (hardware.layerOverhead + 2 * allReduce(4 * model.width * tokens))
  }

  /// Seconds that a stage's outputs take to the next.
  private func transfer(tokens: Double) -> Double {
    guard mesh.pipeline > 1 else { return 0 }
    let bytes = 4 * model.width * tokens
    let near = hardware.latency + bytes / hardware.link
    guard let node = hardware.node, mesh.deviceCount > node else { return near }
    // As many boundaries of stages as there are of nodes, at most all.
    let far = hardware.networkLatency + bytes / hardware.network
    let share = min(1, Double(mesh.deviceCount / node - 1) / (pipeline - 1))
    return (1 - share) * near + share * far
  }

  /// Seconds between two tokens of each of `batch` sequences, in as many micro-batches as there are stages.
  package func decode(batch: Double, context: Double) -> Double {
    let groups = min(pipeline, batch)
    let tokens = batch / groups
    // With fewer sequences than stages, stages wait for the token to come round.
    return pipeline * (stage(tokens: tokens, context: context) + transfer(tokens: tokens))
  }

  /// Seconds of a prompt in `chunks` micro-batches, with the bubble at both ends.
  package func prompt(tokens: Double, chunks: Double) -> Double {
    let chunk = tokens / chunks
    return (chunks + pipeline - 1) * (stage(tokens: chunk, context: 0) + transfer(tokens: chunk))
  }

  /// The same in as many micro-batches as make it the shortest.
  package func prompt(tokens: Double) -> Double {
    guard mesh.pipeline > 1 else { return prompt(tokens: tokens, chunks: 1) }
    return (1...16 * mesh.pipeline).map { prompt(tokens: tokens, chunks: Double($0)) }.min() ?? 0
  }

  /// The part of the time for which stages idle, when `chunks` micro-batches pass a pipeline once.
  package static func bubble(stages: Int, chunks: Int) -> Double {
    Double(stages - 1) / Double(chunks + stages - 1)
  }

  /// Whether weights and the cache of `batch` sequences fit.
  package func fits(batch: Double, context: Double) -> Bool {
    (model.weightBytes + batch * context * model.keyValueBytesPerToken) / (tensor * pipeline) < 0.9
      * hardware.memory
  }
}
