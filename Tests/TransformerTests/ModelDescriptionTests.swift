import ModelFiles
import Testing
import Transformer

/// A tiny llama model's metadata and tensors, to be spoilt.
struct TinyModel {
  var metadata: [String: MetadataValue] = [
    "general.architecture": .string("llama"),
    "llama.context_length": .uint32(128),
    "llama.block_count": .uint32(2),
    "llama.embedding_length": .uint32(64),
    "llama.feed_forward_length": .uint32(96),
    "llama.attention.head_count": .uint32(4),
    "llama.attention.head_count_kv": .uint32(2),
    "llama.attention.layer_norm_rms_epsilon": .float32(1e-5),
  ]
  var tensors: [TensorInfo]

  init() {
    var shapes: [(String, [Int])] = [("token_embd.weight", [64, 100]), ("output_norm.weight", [64])]
    for layer in 0..<2 {
      for (name, shape) in [
        ("attn_norm", [64]), ("attn_q", [64, 64]), ("attn_k", [64, 32]), ("attn_v", [64, 32]),
        ("attn_output", [64, 64]), ("ffn_norm", [64]), ("ffn_gate", [64, 96]), ("ffn_up", [64, 96]),
        ("ffn_down", [96, 64]),
      ] {
        shapes.append(("blk.\(layer).\(name).weight", shape))
      }
    }
    tensors = shapes.compactMap { TensorInfo(name: $0.0, shape: $0.1, type: .f32) }
  }

  mutating func replace(_ name: String, shape: [Int], type: TensorType = .f32) {
    tensors.removeAll { $0.name == name }
    if let tensor = TensorInfo(name: name, shape: shape, type: type) { tensors.append(tensor) }
  }

  func program() throws -> Program {
    let description = try ModelDescription(metadata: metadata, tensors: tensors)
    return try Program(description, source: ConstantSource(tensors: tensors, value: 1))
  }

  /// The message of the error that building the program throws.
  func failure() -> String {
    do {
      _ = try program()
      return "no error"
    } catch {
      return "\(error)"
    }
  }
}

@Suite struct ModelDescriptionTests {
  @Test func tinyModelBecomesStages() throws {
    let program = try TinyModel().program()
    #expect(program.stages.count == 1 + 2 * 5 + 1)
    #expect(program.heads == HeadLayout(headCount: 4, kvHeadCount: 2, headSize: 16))
    guard case .attention(let attention) = program.stages[2], case .logits(let logits) = program.stages[11]
    else {
      Issue.record("stages are out of order")
      return
    }
    #expect(attention.scale == 0.25 && attention.window == nil && attention.softcap == nil)
    // Tied embeddings.
    #expect(logits.table.tensor == "token_embd.weight")
  }

  @Test(arguments: [
    ("general.architecture", MetadataValue.string("mamba\u{1B}[2J"), "llama, qwen2, qwen3, gemma3"),
    ("general.architecture", .uint32(1), "general.architecture"),
    ("llama.context_length", .uint32(0), "llama.context_length is 0"),
    ("llama.context_length", .int64(.min), "llama.context_length"),
    ("llama.block_count", .uint64(.max), "llama.block_count"),
    ("llama.block_count", .string("two"), "is not an integer"),
    ("llama.block_count", .uint32(3), "tensor blk.2.attn_q.weight is missing"),
    ("llama.embedding_length", .uint32(48), "not a multiple of 32"),
    ("llama.embedding_length", .uint32(128), "token_embd.weight has shape [64, 100]"),
    ("llama.feed_forward_length", .int32(-96), "llama.feed_forward_length is -96"),
    ("llama.feed_forward_length", .uint32Array([96, 64]), "differs from layer to layer"),
    ("llama.feed_forward_length", .uint32Array([]), "differs from layer to layer"),
    ("llama.attention.head_count", .uint32(0), "llama.attention.head_count is 0"),
    ("llama.attention.head_count", .uint32(6), "does not divide"),
    ("llama.attention.head_count", .uint32(8), "head size is 8"),
    ("llama.attention.head_count_kv", .uint32(3), "does not divide 4 heads"),
    ("llama.attention.key_length", .uint32(272), "llama.attention.key_length is 272"),
    ("llama.attention.key_length", .uint32(24), "head size is 24"),
    ("llama.attention.key_length", .uint32(32), "blk.0.attn_q.weight has shape [64, 64]"),
    ("llama.attention.value_length", .uint32(32), "unequal sizes"),
    ("llama.attention.layer_norm_rms_epsilon", .float32(.nan), "layer_norm_rms_epsilon"),
    ("llama.rope.dimension_count", .uint32(15), "odd"),
    ("llama.rope.dimension_count", .uint32(18), "rope.dimension_count is 18"),
    ("llama.rope.freq_base", .float32(.infinity), "rope.freq_base"),
    ("llama.rope.scaling.type", .string("longrope"), "none, linear and yarn"),
    ("llama.rope.scaling.type", .string("yarn"), "rope.scaling.factor is missing"),
    ("llama.rope.scaling.factor", .float32(-2), "rope.scaling.factor"),
    ("llama.expert_count", .uint32(8), "mixture of 8 experts"),
    ("llama.attention.sliding_window", .int32(-1), "sliding_window"),
  ])
  func hostileMetadata(key: String, value: MetadataValue, message: String) {
    var model = TinyModel()
    model.metadata[key] = value
    let failure = model.failure()
    #expect(failure.contains(message))
    #expect(failure.unicodeScalars.allSatisfy { (" "..."~").contains($0) })
  }

  @Test(arguments: TinyModel().metadata.keys.filter { !$0.hasSuffix("head_count_kv") }.sorted())
  func missingKeyIsNamed(key: String) {
    var model = TinyModel()
    model.metadata[key] = nil
    #expect(model.failure().contains("metadata \(key) is missing"))
  }

  @Test(arguments: TinyModel().tensors.map(\.name))
  func missingTensorIsNamed(name: String) {
    var model = TinyModel()
    model.tensors.removeAll { $0.name == name }
    #expect(model.failure().contains("tensor \(name) is missing"))
  }

  @Test func wrongTensors() {
    var model = TinyModel()
    model.replace("blk.1.ffn_down.weight", shape: [64, 96])
    #expect(
      model.failure().contains(
        "blk.1.ffn_down.weight has shape [64, 96] where the hyperparameters say [96, 64]"))

    model = TinyModel()
    model.replace("output_norm.weight", shape: [64], type: .q8_0)
    #expect(model.failure().contains("output_norm.weight is q8_0"))

    model = TinyModel()
    model.replace("blk.0.ffn_gate.bias", shape: [96])
    #expect(model.failure().contains("blk.0.ffn_gate.bias is not part of a llama model"))
  }

  @Test func biasesAreUsedWhereThereAreSome() throws {
    var model = TinyModel()
    model.replace("blk.1.attn_k.bias", shape: [32])
    model.replace("blk.1.attn_output.bias", shape: [64])
    let stages = try model.program().stages
    guard case .queryKeyValue(let first) = stages[1], case .queryKeyValue(let second) = stages[6],
      case .residualProjection(let output) = stages[8]
    else {
      Issue.record("stages are out of order")
      return
    }
    #expect(first.keyBias == nil && second.queryBias == nil && second.valueBias == nil)
    #expect(second.keyBias?.tensor == "blk.1.attn_k.bias" && second.keyBias?.columns == 0..<32)
    #expect(output.bias?.tensor == "blk.1.attn_output.bias")
  }

  @Test func fusedProjectionIsCutIntoThree() throws {
    var model = TinyModel()
    for layer in 0..<2 {
      for letter in ["q", "k", "v"] {
        model.tensors.removeAll { $0.name == "blk.\(layer).attn_\(letter).weight" }
      }
      model.replace("blk.\(layer).attn_qkv.weight", shape: [64, 128])
    }
    model.replace("blk.0.attn_qkv.bias", shape: [128])
    guard case .queryKeyValue(let stage) = try model.program().stages[1] else {
      Issue.record("stages are out of order")
      return
    }
    #expect([stage.query.rows, stage.key.rows, stage.value.rows] == [0..<64, 64..<96, 96..<128])
    #expect(stage.valueBias?.columns == 96..<128)
  }

  @Test func windowsByPattern() throws {
    var model = TinyModel()
    model.metadata["llama.attention.sliding_window"] = .uint32(16)
    func windows() throws -> [Int?] {
      try model.program().stages.compactMap { stage -> Int?? in
        guard case .attention(let attention) = stage else { return nil }
        return .some(attention.window)
      }
    }
    #expect(try windows() == [16, 16])
    model.metadata["llama.attention.sliding_window_pattern"] = .uint32(2)
    #expect(try windows() == [16, nil])
    model.metadata["llama.attention.sliding_window_pattern"] = .boolArray([false, true])
    #expect(try windows() == [nil, 16])
    model.metadata["llama.attention.sliding_window_pattern"] = .boolArray([false])
    #expect(model.failure().contains("has 1 entries for 2 layers"))
    model.metadata["llama.attention.sliding_window"] = .uint32(0)
    #expect(try windows() == [nil, nil])
  }

  @Test func linearScalingSlowsPositions() throws {
    var model = TinyModel()
    model.metadata["llama.rope.scaling.factor"] = .float32(4)
    guard case .queryKeyValue(let stage) = try model.program().stages[1] else {
      Issue.record("stages are out of order")
      return
    }
    #expect(stage.rope.frequencies[0] == 0.25)
    #expect(stage.rope.pairing == .adjacent && stage.rope.rotatedSize == 16)
  }

  @Test(arguments: [Float.nan, -1, 0, .infinity])
  func hostileRopeFactors(factor: Float) throws {
    var model = TinyModel()
    model.replace("rope_freqs.weight", shape: [8])
    let description = try ModelDescription(metadata: model.metadata, tensors: model.tensors)
    let source = ConstantSource(tensors: model.tensors, value: factor)
    #expect(throws: ModelDescriptionError.self) { try Program(description, source: source) }
  }
}

/// Float32 tensors whose weights are all `value`.
struct ConstantSource: TensorSource {
  var tensors: [TensorInfo]
  var value: Float

  func tensor(_ name: String) -> TensorInfo? { tensors.first { $0.name == name } }

  func withBytes<R>(
    of tensor: TensorInfo, rows: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R
  ) throws -> R {
    try [Float](repeating: value, count: rows.count * tensor.columns).withUnsafeBytes(body)
  }
}
