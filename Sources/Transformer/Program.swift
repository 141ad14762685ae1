import ModelFiles

#if canImport(Glibc)
  import Glibc
#endif

/// A rectangular part of a tensor of the model file: `rows` x `columns`, in the file's own order.
///
/// A whole tensor covers all its rows and columns; a device of a tensor-parallel group gets a slice.
/// Column bounds always fall on block boundaries of the tensor's type.
package struct TensorSlice: Sendable, Hashable {
  package var tensor: String
  package var type: TensorType
  package var rows: Range<Int>
  package var columns: Range<Int>

  package init(tensor: String, type: TensorType, rows: Range<Int>, columns: Range<Int>) {
    self.tensor = tensor
    self.type = type
    self.rows = rows
    self.columns = columns
  }

  /// The whole of a tensor.
  package init(_ info: TensorInfo) {
    self.init(tensor: info.name, type: info.type, rows: 0..<info.rows, columns: 0..<info.columns)
  }
}

/// Root-mean-square normalisation: `y = x / sqrt(mean(x^2) + epsilon) * weight`.
package struct Norm: Sendable, Hashable {
  package var weight: TensorSlice
  package var epsilon: Float

  package init(weight: TensorSlice, epsilon: Float) {
    self.weight = weight
    self.epsilon = epsilon
  }
}

/// Rotary position embedding of one layer.
///
/// Pair `i` of a head's first `rotatedSize` elements turns by `position * scale * base^(-2i/rotatedSize) / factor[i]`.
package struct Rope: Sendable, Hashable {
  /// Which two elements of a head make pair `i`.
  package enum Pairing: Sendable, Hashable {
    /// Elements `2i` and `2i+1` (Llama models in GGUF files).
    case adjacent
    /// Elements `i` and `i + rotatedSize/2` (Qwen, Gemma and NeoX models).
    case halves
  }
  package var pairing: Pairing
  package var rotatedSize: Int
  package var base: Float
  /// Linear position scaling: positions are multiplied by this (1 for none).
  package var positionScale: Float
  /// One divisor for each pair's frequency (Llama 3.1 and later; LongRoPE), or nil.
  package var frequencyFactors: [Float]?
  /// Multiplies sine and cosine (YaRN and LongRoPE attention factor; 1 for none).
  package var magnitude: Float

  package init(
    pairing: Pairing, rotatedSize: Int, base: Float, positionScale: Float = 1,
    frequencyFactors: [Float]? = nil, magnitude: Float = 1
  ) {
    self.pairing = pairing
    self.rotatedSize = rotatedSize
    self.base = base
    self.positionScale = positionScale
    self.frequencyFactors = frequencyFactors
    self.magnitude = magnitude
  }

  /// The angle per position of each pair, in radians: what kernels and Reference both use.
  package var frequencies: [Double] {
    (0..<rotatedSize / 2).map { pair in
      let frequency = Double(positionScale) * pow(Double(base), -2 * Double(pair) / Double(rotatedSize))
      return frequency / Double(frequencyFactors?[pair] ?? 1)
    }
  }
}

extension Program {
  /// For each layer, how many positions before a token attention reads; nil for all.
  package var attentionWindows: [Int?] {
    stages.compactMap { stage in
      if case .attention(let attention) = stage { .some(attention.window) } else { nil }
    }
  }
}

/// The heads of an attention layer.
package struct HeadLayout: Sendable, Hashable {
  package var headCount: Int
  package var kvHeadCount: Int
  package var headSize: Int
  /// How keys and values of the heads are kept.
  package var cacheType: KVCacheType

  package init(headCount: Int, kvHeadCount: Int, headSize: Int, cacheType: KVCacheType = .f16) {
    self.headCount = headCount
    self.kvHeadCount = kvHeadCount
    self.headSize = headSize
    self.cacheType = cacheType
  }
}

extension HeadLayout {
  /// - Throws: heads that are not whole blocks of a KV cache of that type.
  package func check(_ type: KVCacheType) throws(ModelDescriptionError) {
    guard headSize.isMultiple(of: type.blockSize) else {
      throw ModelDescriptionError(
        "heads of \(headSize) elements are no whole blocks of \(type.blockSize), as a KV cache in \(type.rawValue) "
          + "needs: use --kv-type f16")
    }
  }
}

/// What a KV cache holds of a key or a value.
public enum KVCacheType: String, Sendable, Hashable, CaseIterable {
  case f16
  /// Blocks of 32 signed bytes with a scale in float16: 8.5 bits an element. Heads must be whole blocks.
  case q8_0

  /// Elements that are kept together: heads have a multiple of them.
  package var blockSize: Int { self == .f16 ? 1 : 32 }

  /// Bytes of `count` elements, whole blocks.
  package func byteCount(_ count: Int) -> Int { self == .f16 ? 2 * count : count / 32 * 34 }
}

package enum Activation: Sendable, Hashable {
  /// `x * sigmoid(x)`.
  case silu
  /// The tanh approximation of GELU.
  case geluTanh
}

/// One fused stage. Activations flow through four implicit arrays: the residual stream `x` [tokens, width],
/// queries [tokens, heads * headSize], attention output (same shape) and the feed-forward hidden state.
package enum Stage: Sendable, Hashable {
  case embed(EmbedStage)
  case queryKeyValue(QueryKeyValueStage)
  case attention(AttentionStage)
  case residualProjection(ResidualProjectionStage)
  case gatedFeedForward(GatedFeedForwardStage)
  case logits(LogitsStage)
  case collective(CollectiveStage)
}

/// `x = table[token] * scale`.
package struct EmbedStage: Sendable, Hashable {
  package var table: TensorSlice
  package var scale: Float
  package init(table: TensorSlice, scale: Float) {
    self.table = table
    self.scale = scale
  }
}

/// Norm, Q/K/V products, bias, optional per-head norm of q and k, rope, write of k and v into the KV cache.
package struct QueryKeyValueStage: Sendable, Hashable {
  package var layer: Int
  package var norm: Norm
  package var query: TensorSlice
  package var key: TensorSlice
  package var value: TensorSlice
  package var queryBias: TensorSlice?
  package var keyBias: TensorSlice?
  package var valueBias: TensorSlice?
  package var queryNorm: Norm?
  package var keyNorm: Norm?
  package var rope: Rope
  package var heads: HeadLayout
  package init(
    layer: Int, norm: Norm, query: TensorSlice, key: TensorSlice, value: TensorSlice,
    queryBias: TensorSlice?, keyBias: TensorSlice?, valueBias: TensorSlice?,
    queryNorm: Norm?, keyNorm: Norm?, rope: Rope, heads: HeadLayout
  ) {
    self.layer = layer
    self.norm = norm
    self.query = query
    self.key = key
    self.value = value
    self.queryBias = queryBias
    self.keyBias = keyBias
    self.valueBias = valueBias
    self.queryNorm = queryNorm
    self.keyNorm = keyNorm
    self.rope = rope
    self.heads = heads
  }
}

/// Causal attention of the step's queries over the paged KV cache of one layer.
package struct AttentionStage: Sendable, Hashable {
  package var layer: Int
  package var heads: HeadLayout
  /// Multiplies q.k (usually `1/sqrt(headSize)`).
  package var scale: Float
  /// A query at position p sees positions `max(0, p - window + 1)...p`; nil sees all.
  package var window: Int?
  /// `softcap * tanh(score / softcap)` on the scaled scores, before masking.
  package var softcap: Float?
  package init(layer: Int, heads: HeadLayout, scale: Float, window: Int?, softcap: Float?) {
    self.layer = layer
    self.heads = heads
    self.scale = scale
    self.window = window
    self.softcap = softcap
  }
}

/// `x += postNorm(weight * input + bias)`: the attention output projection and the feed-forward down projection.
///
/// Where ranks split a layer, the product alone: an all-reduce does the rest.
package struct ResidualProjectionStage: Sendable, Hashable {
  package enum Input: Sendable, Hashable {
    case attention
    case feedForward
  }
  package var layer: Int
  package var input: Input
  package var weight: TensorSlice
  package var bias: TensorSlice?
  package var postNorm: Norm?
  package init(layer: Int, input: Input, weight: TensorSlice, bias: TensorSlice?, postNorm: Norm?) {
    self.layer = layer
    self.input = input
    self.weight = weight
    self.bias = bias
    self.postNorm = postNorm
  }
}

/// `hidden = activation(gate * norm(x)) * (up * norm(x))`.
package struct GatedFeedForwardStage: Sendable, Hashable {
  package var layer: Int
  package var norm: Norm
  package var gate: TensorSlice
  package var up: TensorSlice
  package var activation: Activation
  package init(layer: Int, norm: Norm, gate: TensorSlice, up: TensorSlice, activation: Activation) {
    self.layer = layer
    self.norm = norm
    self.gate = gate
    self.up = up
    self.activation = activation
  }
}

/// `logits = softcap(table * norm(x))` for the rows of the step whose logits are wanted.
package struct LogitsStage: Sendable, Hashable {
  package var norm: Norm
  package var table: TensorSlice
  package var softcap: Float?
  package init(norm: Norm, table: TensorSlice, softcap: Float?) {
    self.norm = norm
    self.table = table
    self.softcap = softcap
  }
}

/// A model as a list of fused stages, in the order in which they run; pure values.
package struct Program: Sendable, Hashable {
  package var width: Int
  /// Layers, heads and feed-forward elements that it has, and tokens of the whole model.
  package var layerCount: Int
  package var heads: HeadLayout
  /// Elements of the feed-forward hidden state.
  package var feedForwardWidth: Int
  package var vocabularySize: Int
  package var stages: [Stage]
  /// Which part of the model it is.
  package var share: ModelShare

  package init(
    width: Int, layerCount: Int, heads: HeadLayout, feedForwardWidth: Int, vocabularySize: Int,
    stages: [Stage], share: ModelShare? = nil
  ) {
    self.width = width
    self.layerCount = layerCount
    self.heads = heads
    self.feedForwardWidth = feedForwardWidth
    self.vocabularySize = vocabularySize
    self.stages = stages
    self.share =
      share
      ?? ModelShare(
        mesh: MeshShape(), stage: 0, rank: 0, layers: 0..<layerCount, vocabulary: 0..<vocabularySize,
        kvHeads: 0..<heads.kvHeadCount)
  }
}

extension Program {
  /// The Program with a KV cache of another type.
  ///
  /// - Throws: heads that are not whole blocks of it.
  package func keeping(_ type: KVCacheType) throws(ModelDescriptionError) -> Program {
    try heads.check(type)
    var program = self
    program.heads.cacheType = type
    program.stages = stages.map { stage in
      switch stage {
      case .queryKeyValue(var stage):
        stage.heads.cacheType = type
        return .queryKeyValue(stage)
      case .attention(var stage):
        stage.heads.cacheType = type
        return .attention(stage)
      case .embed, .residualProjection, .gatedFeedForward, .logits, .collective:
        return stage
      }
    }
    return program
  }
}
