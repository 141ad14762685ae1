import ModelFiles

/// The hyperparameters of a well-known model, to be filled with random weights: speed depends on nothing else.
package struct SyntheticShape: Sendable, Hashable {
  package var name: String
  package var layerCount: Int
  package var width: Int
  package var heads: HeadLayout
  package var feedForwardWidth: Int
  package var vocabularySize: Int
  /// Whether the embedding table is the output matrix too.
  package var tiesEmbeddings: Bool
  package var contextLength: Int

  /// Every shape, smallest first.
  package static let all: [SyntheticShape] = [
    SyntheticShape(
      name: "smollm2-135m", layerCount: 30, width: 576,
      heads: HeadLayout(headCount: 9, kvHeadCount: 3, headSize: 64), feedForwardWidth: 1536,
      vocabularySize: 49152, tiesEmbeddings: true, contextLength: 8192),
    SyntheticShape(
      name: "llama-3.2-1b", layerCount: 16, width: 2048,
      heads: HeadLayout(headCount: 32, kvHeadCount: 8, headSize: 64), feedForwardWidth: 8192,
      vocabularySize: 128256, tiesEmbeddings: true, contextLength: 131072),
    SyntheticShape(
      name: "llama-3.1-8b", layerCount: 32, width: 4096,
      heads: HeadLayout(headCount: 32, kvHeadCount: 8, headSize: 128), feedForwardWidth: 14336,
      vocabularySize: 128256, tiesEmbeddings: false, contextLength: 131072),
    SyntheticShape(
      name: "llama-3.1-70b", layerCount: 80, width: 8192,
      heads: HeadLayout(headCount: 64, kvHeadCount: 8, headSize: 128), feedForwardWidth: 28672,
      vocabularySize: 128256, tiesEmbeddings: false, contextLength: 131072),
  ]

  /// Well-known models whose stages are not there yet: why, and a llama that reads about as many weights for a token
  /// (gated feed-forward stages have three matrices where others have two).
  package static let unsupported: [String: (reason: String, numbers: String)] = [
    "qwen3-30b-a3b": (
      "it has 128 experts in each layer, of which 8 run",
      "layers=48,width=2048,heads=32,kv-heads=4,head-size=128,ff=6144,vocabulary=151936"
    ),
    "gpt-2-1.5b": (
      "it has layer norms, learned positions and feed-forward stages without a gate",
      "layers=48,width=1600,heads=25,kv-heads=25,head-size=64,ff=4352,vocabulary=50257,tied"
    ),
    "gpt-j-6b": (
      "it has layer norms, and attention beside a feed-forward stage without a gate",
      "layers=28,width=4096,heads=16,kv-heads=16,head-size=256,ff=11008,vocabulary=50400"
    ),
    "gpt-neox-20b": (
      "it has layer norms, and attention beside a feed-forward stage without a gate",
      "layers=44,width=6144,heads=64,kv-heads=64,head-size=96,ff=16384,vocabulary=50432"
    ),
  ]

  /// The shape of that name.
  package static func named(_ name: String) throws(ModelDescriptionError) -> SyntheticShape {
    if let shape = all.first(where: { $0.name == name }) { return shape }
    if let shape = unsupported[name.replacing(" ", with: "-")] {
      throw ModelDescriptionError(
        "shape \"\(oneLine(name))\" is of an architecture that is not supported yet: \(shape.reason); a llama of as many "
          + "weights a token is --shape \(shape.numbers)")
    }
    let known = all.map(\.name).joined(separator: ", ")
    throw ModelDescriptionError("shape \"\(oneLine(name))\" is not known; known are \(known)")
  }
}

extension ModelDescription {
  /// A llama model of `shape` whose tensors exist only as a list.
  ///
  /// - Parameter weights: the format of the matrices. As in the usual mixes the output matrix (the embedding table,
  ///   where they are one) is finer than 4-bit ones: q6_k in q4_k and q4_0 models, q8_0 in q4_1 models.
  package static func synthetic(
    shape: SyntheticShape, weights: TensorType
  ) throws(ModelDescriptionError) -> ModelDescription {
    let output: TensorType =
      switch weights {
      case .q4_k, .q4_0: .q6_k
      case .q4_1: .q8_0
      default: weights
      }
    let width = shape.width
    let queryWidth = shape.heads.headCount * shape.heads.headSize
    let kvWidth = shape.heads.kvHeadCount * shape.heads.headSize

    var tensors: [TensorInfo] = []
    func add(_ name: String, _ sizes: [Int], _ type: TensorType) throws(ModelDescriptionError) {
      guard let tensor = TensorInfo(name: name, shape: sizes, type: type) else {
        throw ModelDescriptionError(
          "shape \(shape.name) has rows of \(sizes[0]) weights, no multiple of the \(type.blockSize) of a \(type.name)"
            + " block\(type == weights ? "" : ", which \(weights.name) models have"): choose another format, as q4_1 or q8_0"
        )
      }
      tensors.append(tensor)
    }
    try add("token_embd.weight", [width, shape.vocabularySize], shape.tiesEmbeddings ? output : weights)
    for layer in 0..<shape.layerCount {
      let block = "blk.\(layer)."
      try add(block + "attn_norm.weight", [width], .f32)
      try add(block + "attn_q.weight", [width, queryWidth], weights)
      try add(block + "attn_k.weight", [width, kvWidth], weights)
      try add(block + "attn_v.weight", [width, kvWidth], weights)
      try add(block + "attn_output.weight", [queryWidth, width], weights)
      try add(block + "ffn_norm.weight", [width], .f32)
      try add(block + "ffn_gate.weight", [width, shape.feedForwardWidth], weights)
      try add(block + "ffn_up.weight", [width, shape.feedForwardWidth], weights)
      try add(block + "ffn_down.weight", [shape.feedForwardWidth, width], weights)
    }
    try add("output_norm.weight", [width], .f32)
    if !shape.tiesEmbeddings { try add("output.weight", [width, shape.vocabularySize], output) }

    return try ModelDescription(
      metadata: Dictionary(uniqueKeysWithValues: shape.metadata(weights: weights)), tensors: tensors)
  }
}

extension SyntheticShape {
  /// The metadata of a llama model of this shape, without a tokenizer.
  package func metadata(weights: TensorType) -> [(String, MetadataValue)] {
    func integer(_ value: Int) -> MetadataValue { .uint64(UInt64(value)) }
    return [
      ("general.architecture", .string("llama")),
      ("general.name", .string("\(name), random \(weights.name) weights")),
      ("llama.context_length", integer(contextLength)),
      ("llama.block_count", integer(layerCount)),
      ("llama.embedding_length", integer(width)),
      ("llama.feed_forward_length", integer(feedForwardWidth)),
      ("llama.attention.head_count", integer(heads.headCount)),
      ("llama.attention.head_count_kv", integer(heads.kvHeadCount)),
      ("llama.attention.key_length", integer(heads.headSize)),
      ("llama.attention.value_length", integer(heads.headSize)),
      ("llama.attention.layer_norm_rms_epsilon", .float32(1e-5)),
      ("llama.rope.freq_base", .float32(500000)),
    ]
  }
}
