/// What sets one family of models apart from another: a row of a table, not a class.
///
/// All of them are decoder-only transformers with root-mean-square norms, rotary positions, grouped-query attention
/// and a gated feed-forward layer. Biases are not listed: a bias is used where the file has one.
package struct Architecture: Sendable, Hashable {
  /// What the token embedding is multiplied by.
  package enum EmbeddingScale: Sendable, Hashable {
    case one
    case squareRootOfWidth
  }

  /// Which layers see a sliding window, when the metadata gives a window and no pattern of its own.
  package enum WindowPattern: Sendable, Hashable {
    /// The key is not part of the architecture and is ignored.
    case never
    case everyLayer
    /// Windowed, but for every `period`-th layer, which sees all.
    case allButEvery(period: Int)
  }

  /// The value of `general.architecture`, and the prefix of the metadata keys.
  package var name: String
  package var ropePairing: Rope.Pairing
  /// Root-mean-square norms of each query and key head, before rope.
  package var hasQueryKeyNorms: Bool
  /// Norms of what attention and feed-forward add to the residual stream, before it is added.
  package var hasPostNorms: Bool
  package var activation: Activation
  package var embeddingScale: EmbeddingScale
  package var windowPattern: WindowPattern
  /// Rope base of windowed layers where the metadata gives none; nil: the base of all other layers.
  /// Where there is one, windowed layers are not subject to rope scaling either.
  package var windowedRopeBase: Float?
  /// The one size of this family (by its layer count) whose attention scale is `1/sqrt(width/heads)` rather than
  /// `1/sqrt(headSize)`: GGUF files have no key for it.
  package var layersWithWidthScale: Int?

  /// Every architecture that can be run.
  package static let all: [Architecture] = [
    // Llama 1 to 3, Mistral, SmolLM, TinyLlama. The rows of their q and k matrices are permuted by the converters
    // so that the two elements of a rope pair are adjacent.
    Architecture(
      name: "llama", ropePairing: .adjacent, hasQueryKeyNorms: false, hasPostNorms: false, activation: .silu,
      embeddingScale: .one, windowPattern: .everyLayer, windowedRopeBase: nil, layersWithWidthScale: nil),
    // q, k and v biases, which the files have.
    Architecture(
      name: "qwen2", ropePairing: .halves, hasQueryKeyNorms: false, hasPostNorms: false, activation: .silu,
      embeddingScale: .one, windowPattern: .never, windowedRopeBase: nil, layersWithWidthScale: nil),
    Architecture(
      name: "qwen3", ropePairing: .halves, hasQueryKeyNorms: true, hasPostNorms: false, activation: .silu,
      embeddingScale: .one, windowPattern: .never, windowedRopeBase: nil, layersWithWidthScale: nil),
    // The converters add the 1 of Gemma's `1 + weight` norms to the weights. 62 layers: the 27B model, whose query
    // scale is 1/sqrt(5376/32) at a head size of 128 ("query_pre_attn_scalar" in the original's configuration).
    Architecture(
      name: "gemma3", ropePairing: .halves, hasQueryKeyNorms: true, hasPostNorms: true, activation: .geluTanh,
      embeddingScale: .squareRootOfWidth, windowPattern: .allButEvery(period: 6), windowedRopeBase: 10000,
      layersWithWidthScale: 62),
  ]

  /// The architecture of that name.
  static func named(_ name: String) throws(ModelDescriptionError) -> Architecture {
    if let architecture = all.first(where: { $0.name == name }) { return architecture }
    let supported = all.map(\.name).joined(separator: ", ")
    throw ModelDescriptionError(
      "architecture \"\(oneLine(name))\" is not supported; supported are \(supported)")
  }
}
