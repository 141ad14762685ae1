import ModelFiles

#if canImport(Glibc)
  import Glibc
#endif

/// A model's architecture, hyperparameters and tensors, read from its metadata and checked; no weights.
package struct ModelDescription: Sendable, Hashable {
  package var architecture: Architecture
  /// What the file calls the model, when it does.
  package var name: String?
  /// Positions that the model was trained for.
  package var contextLength: Int
  /// Elements of the residual stream.
  package var width: Int
  package var layerCount: Int
  package var heads: HeadLayout
  /// Elements of the feed-forward hidden state.
  package var feedForwardWidth: Int
  /// Rows of the embedding table.
  package var vocabularySize: Int
  /// Added to the mean square in every norm.
  package var normEpsilon: Float
  /// Multiplies q.k.
  package var attentionScale: Float
  package var attentionSoftcap: Float?
  package var logitsSoftcap: Float?
  /// Positions that a windowed layer sees, its own among them; nil when no layer is windowed.
  package var window: Int?
  /// For each layer, whether it is windowed.
  package var windowedLayers: [Bool]
  /// Rope of layers that see everything, without the factors of `rope_freqs.weight`.
  package var rope: Rope
  /// Rope of windowed layers.
  package var windowedRope: Rope
  /// Every tensor, in the source's order.
  package var tensors: [TensorInfo]
  private var tensorIndex: [String: Int]

  /// Reads a model's metadata, as GGUF files hold it, and checks it.
  ///
  /// Sizes: width, feed-forward width and `heads * headSize` must be multiples of 32 and the head size a multiple of
  /// 16 up to 256. Shapes of tensors are checked when a `Program` is built from the description.
  ///
  /// - Throws: the first key or tensor that is missing, wrong or not supported.
  package init(
    metadata: [String: MetadataValue], tensors: [TensorInfo]
  ) throws(ModelDescriptionError) {
    guard let architectureName = metadata["general.architecture"]?.string else {
      throw ModelDescriptionError(
        "metadata general.architecture is missing or not a string: this is not a language model's file")
    }
    architecture = try Architecture.named(architectureName)
    let reader = MetadataReader(metadata: metadata, prefix: architecture.name)
    name = metadata["general.name"]?.string

    if let experts = try reader.integer("expert_count", in: 0...Int.max), experts > 0 {
      throw ModelDescriptionError(
        "the model is a mixture of \(experts) experts, which is not supported; use a dense model")
    }
    contextLength = try reader.requiredInteger("context_length", in: 1...Int(Int32.max))
    layerCount = try reader.requiredInteger("block_count", in: 1...1 << 16)
    width = try reader.requiredInteger("embedding_length", in: 1...1 << 24)
    feedForwardWidth = try reader.requiredInteger("feed_forward_length", in: 1...1 << 24)
    guard width.isMultiple(of: 32) else {
      throw reader.wrong("embedding_length", "is \(width), not a multiple of 32")
    }
    guard feedForwardWidth.isMultiple(of: 32) else {
      throw reader.wrong("feed_forward_length", "is \(feedForwardWidth), not a multiple of 32")
    }
    heads = try Self.heads(reader, width: width)
    normEpsilon = try reader.requiredNumber("attention.layer_norm_rms_epsilon", in: 0...1)
    attentionSoftcap = try reader.number("attn_logit_softcapping", in: 0...Float.greatestFiniteMagnitude)
    logitsSoftcap = try reader.number("final_logit_softcapping", in: 0...Float.greatestFiniteMagnitude)
    // Zero is how some writers say "none".
    if attentionSoftcap == 0 { attentionSoftcap = nil }
    if logitsSoftcap == 0 { logitsSoftcap = nil }

    let scaledSize =
      layerCount == architecture.layersWithWidthScale ? width / heads.headCount : heads.headSize
    let givenScale = try reader.number("attention.scale", in: 0...Float.greatestFiniteMagnitude)
    attentionScale =
      if let givenScale, givenScale > 0 { givenScale } else { Float(1 / Double(scaledSize).squareRoot()) }

    (window, windowedLayers) = try Self.windows(reader, architecture, layerCount: layerCount)
    rope = try Self.rope(reader, architecture, headSize: heads.headSize, contextLength: contextLength)
    windowedRope = rope
    if let base = architecture.windowedRopeBase {
      windowedRope = Rope(
        pairing: architecture.ropePairing, rotatedSize: rope.rotatedSize,
        base: try reader.number("rope.freq_base_swa", in: Self.ropeBases) ?? base)
    }

    self.tensors = tensors
    tensorIndex = [:]
    tensorIndex.reserveCapacity(tensors.count)
    for (index, tensor) in tensors.enumerated() {
      tensorIndex[tensor.name] = index
    }
    guard let table = tensorIndex["token_embd.weight"].map({ tensors[$0] }) else {
      throw ModelDescriptionError("tensor token_embd.weight is missing: the file holds no weights to run")
    }
    vocabularySize = table.rows
    guard vocabularySize <= Int(Int32.max) else {
      throw ModelDescriptionError(
        "tensor token_embd.weight has \(vocabularySize) rows, more than a token id can name")
    }
  }

  /// The tensor of that name, or nil.
  package func tensor(_ name: String) -> TensorInfo? {
    tensorIndex[name].map { tensors[$0] }
  }

  // MARK: - Groups of hyperparameters

  private static let ropeBases: ClosedRange<Float> = 1...1e18

  private static func heads(
    _ reader: MetadataReader, width: Int
  ) throws(ModelDescriptionError) -> HeadLayout {
    let headCount = try reader.requiredInteger("attention.head_count", in: 1...1 << 16)
    let kvHeadCount = try reader.integer("attention.head_count_kv", in: 1...1 << 16) ?? headCount
    guard headCount.isMultiple(of: kvHeadCount) else {
      throw reader.wrong(
        "attention.head_count_kv", "is \(kvHeadCount), which does not divide \(headCount) heads")
    }
    let keyLength = try reader.integer("attention.key_length", in: 1...256)
    if keyLength == nil, !width.isMultiple(of: headCount) {
      throw reader.wrong("attention.head_count", "is \(headCount), which does not divide the width \(width)")
    }
    let headSize = keyLength ?? width / headCount
    guard headSize <= 256, headSize.isMultiple(of: 16) else {
      throw ModelDescriptionError(
        "the model's head size is \(headSize): supported are multiples of 16 up to 256")
    }
    let valueLength = try reader.integer("attention.value_length", in: 1...1 << 16) ?? headSize
    guard valueLength == headSize else {
      throw reader.wrong(
        "attention.value_length",
        "is \(valueLength) where keys have \(headSize): unequal sizes are not supported")
    }
    guard (headCount * headSize).isMultiple(of: 32) else {
      throw ModelDescriptionError(
        "the model has \(headCount) heads of \(headSize) elements: their product must be a multiple of 32")
    }
    return HeadLayout(headCount: headCount, kvHeadCount: kvHeadCount, headSize: headSize)
  }

  private static func windows(
    _ reader: MetadataReader, _ architecture: Architecture, layerCount: Int
  ) throws(ModelDescriptionError) -> (window: Int?, layers: [Bool]) {
    let none = (window: Int?.none, layers: [Bool](repeating: false, count: layerCount))
    guard architecture.windowPattern != .never,
      let window = try reader.integer("attention.sliding_window", in: 0...Int(Int32.max)), window > 0
    else { return none }

    let patternKey = "attention.sliding_window_pattern"
    if let flags = reader.flags(patternKey) {
      guard flags.count == layerCount else {
        throw reader.wrong(patternKey, "has \(flags.count) entries for \(layerCount) layers")
      }
      return flags.contains(true) ? (window, flags) : none
    }
    var period: Int?
    if case .allButEvery(let usual) = architecture.windowPattern { period = usual }
    period = try reader.integer(patternKey, in: 0...Int(UInt32.max)) ?? period
    guard let period, period > 0 else {
      return (window, [Bool](repeating: true, count: layerCount))
    }
    let layers = (0..<layerCount).map { $0 % period < period - 1 }
    return layers.contains(true) ? (window, layers) : none
  }

  private static func rope(
    _ reader: MetadataReader, _ architecture: Architecture, headSize: Int, contextLength: Int
  ) throws(ModelDescriptionError) -> Rope {
    let rotatedSize = try reader.integer("rope.dimension_count", in: 2...headSize) ?? headSize
    guard rotatedSize.isMultiple(of: 2) else {
      throw reader.wrong("rope.dimension_count", "is \(rotatedSize), an odd number")
    }
    var rope = Rope(
      pairing: architecture.ropePairing, rotatedSize: rotatedSize,
      base: try reader.number("rope.freq_base", in: ropeBases) ?? 10000)

    // `rope.scale_linear` is the key of the format's first files. Zero is how some writers say "none".
    let factors: ClosedRange<Float> = 0...1e6
    var factor = try reader.number("rope.scaling.factor", in: factors)
    if factor == nil { factor = try reader.number("rope.scale_linear", in: factors) }
    if let given = factor, given < 1e-6 { factor = nil }
    switch try reader.string("rope.scaling.type") ?? "linear" {
    case "none":
      break
    case "linear":
      if let factor { rope.positionScale = 1 / factor }
    case "yarn":
      guard let factor else { throw reader.missing("rope.scaling.factor") }
      try applyYaRN(reader, to: &rope, factor: Double(factor), contextLength: contextLength)
    case let type:
      throw reader.wrong("rope.scaling.type", "is \"\(oneLine(type))\"; supported are none, linear and yarn")
    }
    return rope
  }

  /// YaRN (Peng et al. 2023, arXiv:2309.00071): pairs that turn often keep their frequency, pairs that turn less than
  /// about once in the original context are slowed by `factor`, with a linear ramp over the pairs between.
  private static func applyYaRN(
    _ reader: MetadataReader, to rope: inout Rope, factor: Double, contextLength: Int
  ) throws(ModelDescriptionError) {
    let turns: ClosedRange<Float> = 1e-6...1e6
    let fast = Double(try reader.number("rope.scaling.yarn_beta_fast", in: turns) ?? 32)
    let slow = Double(try reader.number("rope.scaling.yarn_beta_slow", in: turns) ?? 1)
    let original =
      try reader.integer("rope.scaling.original_context_length", in: 1...Int(Int32.max)) ?? contextLength
    guard rope.base > 1 else { throw reader.wrong("rope.freq_base", "is 1, with which yarn has no meaning") }

    let size = Double(rope.rotatedSize)
    func pair(turning count: Double) -> Double {
      size * log(Double(original) / (count * 2 * .pi)) / (2 * log(Double(rope.base)))
    }
    let first = max(pair(turning: fast).rounded(.down), 0)
    let last = min(pair(turning: slow).rounded(.up), size - 1)
    rope.frequencyFactors = (0..<rope.rotatedSize / 2).map { index in
      let slowed = min(max((Double(index) - first) / max(last - first, 0.001), 0), 1)
      return Float(1 / (slowed / factor + (1 - slowed)))
    }
    let usualMagnitude = Float(factor > 1 ? 0.1 * log(factor) + 1 : 1)
    let magnitude = try reader.number("rope.scaling.yarn_attn_factor", in: 1e-6...1e6) ?? usualMagnitude
    rope.magnitude = magnitude * (try reader.number("rope.scaling.attn_factor", in: 1e-6...1e6) ?? 1)
  }
}
