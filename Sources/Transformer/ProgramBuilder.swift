import ModelFiles

extension Program {
  /// The stages of the model that `description` describes, for one device that holds all of it.
  ///
  /// - Parameter source: where the model's tensors are; only `rope_freqs.weight` is read, where there is one.
  /// - Throws: the first tensor that is missing, has another shape than the hyperparameters say, or is not known.
  package init(
    _ description: ModelDescription, source: some TensorSource
  ) throws(ModelDescriptionError) {
    var builder = ProgramBuilder(description: description)
    try builder.readFrequencyFactors(from: source)
    self = try builder.build()
  }
}

/// Turns a description into stages, checking the shape of every tensor on the way.
private struct ProgramBuilder {
  let description: ModelDescription
  /// The values of `rope_freqs.weight` (Llama 3.1 and later): a divisor for the frequency of each rope pair.
  var frequencyFactors: [Float]?
  /// Names of the tensors that the program uses.
  var used: Set<String> = []

  init(description: ModelDescription) {
    self.description = description
  }

  mutating func build() throws(ModelDescriptionError) -> Program {
    let width = description.width
    let vocabulary = description.vocabularySize
    let table = try matrix("token_embd.weight", columns: width, rows: vocabulary)
    let embeddingScale: Float =
      switch description.architecture.embeddingScale {
      case .one: 1
      case .squareRootOfWidth: Float(width).squareRoot()
      }

    var stages: [Stage] = [.embed(EmbedStage(table: table, scale: embeddingScale))]
    for layer in 0..<description.layerCount {
      stages += try layerStages(layer)
    }
    // Models with tied embeddings have no output matrix of their own.
    let outputName = description.tensor("output.weight") == nil ? "token_embd.weight" : "output.weight"
    stages.append(
      .logits(
        LogitsStage(
          norm: try norm("output_norm.weight", size: width),
          table: try matrix(outputName, columns: width, rows: vocabulary),
          softcap: description.logitsSoftcap)))
    try checkNothingIsLeftOut()
    return Program(
      width: width, layerCount: description.layerCount, heads: description.heads,
      feedForwardWidth: description.feedForwardWidth, vocabularySize: vocabulary, stages: stages)
  }

  private mutating func layerStages(_ layer: Int) throws(ModelDescriptionError) -> [Stage] {
    let architecture = description.architecture
    let width = description.width
    let hidden = description.feedForwardWidth
    let heads = description.heads
    let queryWidth = heads.headCount * heads.headSize
    let windowed = description.windowedLayers[layer]
    let block = "blk.\(layer)."

    let projections = try queryKeyValue(block)
    var headNorms: (query: Norm, key: Norm)?
    if architecture.hasQueryKeyNorms {
      headNorms = (
        try norm(block + "attn_q_norm.weight", size: heads.headSize),
        try norm(block + "attn_k_norm.weight", size: heads.headSize)
      )
    }
    var postNorms: (attention: Norm, feedForward: Norm)?
    if architecture.hasPostNorms {
      postNorms = (
        try norm(block + "post_attention_norm.weight", size: width),
        try norm(block + "post_ffw_norm.weight", size: width)
      )
    }
    return [
      .queryKeyValue(
        QueryKeyValueStage(
          layer: layer, norm: try norm(block + "attn_norm.weight", size: width),
          query: projections.weights[0], key: projections.weights[1], value: projections.weights[2],
          queryBias: projections.biases[0], keyBias: projections.biases[1], valueBias: projections.biases[2],
          queryNorm: headNorms?.query, keyNorm: headNorms?.key,
          rope: rope(windowed: windowed), heads: heads)),
      .attention(
        AttentionStage(
          layer: layer, heads: heads, scale: description.attentionScale,
          window: windowed ? description.window : nil, softcap: description.attentionSoftcap)),
      .residualProjection(
        ResidualProjectionStage(
          layer: layer, input: .attention,
          weight: try matrix(block + "attn_output.weight", columns: queryWidth, rows: width),
          bias: try bias(block + "attn_output.bias", size: width), postNorm: postNorms?.attention)),
      .gatedFeedForward(
        GatedFeedForwardStage(
          layer: layer, norm: try norm(block + "ffn_norm.weight", size: width),
          gate: try matrix(block + "ffn_gate.weight", columns: width, rows: hidden),
          up: try matrix(block + "ffn_up.weight", columns: width, rows: hidden),
          activation: architecture.activation)),
      .residualProjection(
        ResidualProjectionStage(
          layer: layer, input: .feedForward,
          weight: try matrix(block + "ffn_down.weight", columns: hidden, rows: width),
          bias: try bias(block + "ffn_down.bias", size: width), postNorm: postNorms?.feedForward)),
    ]
  }

  /// The q, k and v matrices and biases of a layer: three tensors, or the rows of one that holds all three.
  private mutating func queryKeyValue(
    _ block: String
  ) throws(ModelDescriptionError) -> (weights: [TensorSlice], biases: [TensorSlice?]) {
    let heads = description.heads
    let kvWidth = heads.kvHeadCount * heads.headSize
    let sizes = [heads.headCount * heads.headSize, kvWidth, kvWidth]
    var weights: [TensorSlice] = []
    var biases: [TensorSlice?] = []

    let fused = block + "attn_qkv"
    guard description.tensor(fused + ".weight") != nil else {
      for (letter, size) in zip(["q", "k", "v"], sizes) {
        let name = block + "attn_" + letter
        weights.append(try matrix(name + ".weight", columns: description.width, rows: size))
        biases.append(try bias(name + ".bias", size: size))
      }
      return (weights, biases)
    }
    let total = sizes.reduce(0, +)
    let weight = try matrix(fused + ".weight", columns: description.width, rows: total)
    let wholeBias = try bias(fused + ".bias", size: total)
    var start = 0
    for size in sizes {
      let part = start..<start + size
      weights.append(
        TensorSlice(tensor: weight.tensor, type: weight.type, rows: part, columns: weight.columns))
      biases.append(
        wholeBias.map { TensorSlice(tensor: $0.tensor, type: $0.type, rows: $0.rows, columns: part) })
      start += size
    }
    return (weights, biases)
  }

  private func rope(windowed: Bool) -> Rope {
    var rope = windowed ? description.windowedRope : description.rope
    if let factors = frequencyFactors {
      rope.frequencyFactors = zip(factors, rope.frequencyFactors ?? factors.map { _ in 1 }).map { $0 * $1 }
    }
    return rope
  }

  // MARK: - Tensors

  mutating func readFrequencyFactors(from source: some TensorSource) throws(ModelDescriptionError) {
    let name = "rope_freqs.weight"
    guard let tensor = description.tensor(name) else { return }
    used.insert(name)
    let pairs = description.rope.rotatedSize / 2
    _ = try checked(tensor, shape: [pairs], mustBeFloat: true)
    let factors: [Float]
    do {
      factors = try source.withBytes(of: tensor, rows: 0..<1) { bytes in
        (0..<pairs).map { bytes.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Float>.size, as: Float.self) }
      }
    } catch {
      throw ModelDescriptionError("tensor \(name) cannot be read: \(error)")
    }
    guard factors.allSatisfy({ (1e-6...1e6).contains($0) }) else {
      throw ModelDescriptionError(
        "tensor \(name) holds a factor that is no sensible divisor: the file is damaged")
    }
    frequencyFactors = factors
  }

  private mutating func matrix(
    _ name: String, columns: Int, rows: Int
  ) throws(ModelDescriptionError) -> TensorSlice {
    try checked(try required(name), shape: [columns, rows], mustBeFloat: false)
  }

  private mutating func norm(
    _ name: String, size: Int
  ) throws(ModelDescriptionError) -> Norm {
    let weight = try checked(try required(name), shape: [size], mustBeFloat: true)
    return Norm(weight: weight, epsilon: description.normEpsilon)
  }

  private mutating func bias(
    _ name: String, size: Int
  ) throws(ModelDescriptionError) -> TensorSlice? {
    guard description.tensor(name) != nil else { return nil }
    return try checked(try required(name), shape: [size], mustBeFloat: true)
  }

  private mutating func required(
    _ name: String
  ) throws(ModelDescriptionError) -> TensorInfo {
    guard let tensor = description.tensor(name) else {
      throw ModelDescriptionError(
        "tensor \(name) is missing: the file is incomplete or no \(description.architecture.name) model")
    }
    used.insert(name)
    return tensor
  }

  private func checked(
    _ tensor: TensorInfo, shape: [Int], mustBeFloat: Bool
  ) throws(ModelDescriptionError) -> TensorSlice {
    // Trailing sizes of 1 say nothing: some writers add them.
    guard tensor.shape.starts(with: shape), tensor.shape.dropFirst(shape.count).allSatisfy({ $0 == 1 }) else {
      throw ModelDescriptionError(
        "tensor \(tensor.name) has shape \(tensor.shape) where the hyperparameters say \(shape): the file is damaged"
      )
    }
    guard !mustBeFloat || tensor.type == .f32 else {
      throw ModelDescriptionError(
        "tensor \(tensor.name) is \(tensor.type.name): norms and biases must be f32")
    }
    return TensorSlice(tensor)
  }

  /// A tensor that no stage uses would be weights left out of the sums, and wrong text without a word about it.
  private func checkNothingIsLeftOut() throws(ModelDescriptionError) {
    for tensor in description.tensors where !used.contains(tensor.name) {
      // Rope tables of the format's first files: the angles are computed from the metadata.
      if tensor.name.hasSuffix(".attn_rot_embd.weight") || tensor.name.hasSuffix(".rope_freqs.weight") {
        continue
      }
      throw ModelDescriptionError(
        "tensor \(oneLine(tensor.name)) is not part of a \(description.architecture.name) model: it is of a variant"
          + " that is not supported")
    }
  }
}
