import ModelFiles
import Transformer

/// One stage of every kind whose matrices have one format, of small and odd sizes.
struct LinearStages {
  /// Stages of a format.
  static let count = 9

  let source: RandomTensorSource
  let program: Program
  /// What each stage is, with its size.
  let names: [String]

  /// - Parameter onMatrixUnits: whether sizes are such as the matrix kernel takes: outputs in fours, but for logits,
  ///   and in 32s where a norm follows them.
  init(type: TensorType, formatIndex: Int, onMatrixUnits: Bool = false, random: inout SeededRandom) {
    func whole(_ rows: Int, _ unit: Int) -> Int { onMatrixUnits ? (rows + unit - 1) / unit * unit : rows }
    var builder = Builder(type: type, turn: formatIndex)
    let tall = [2, 99, 34, 576]
    builder.add("logits gather norm softcap", rows: tall[formatIndex % 4]) { rows, columns, builder in
      .logits(LogitsStage(norm: builder.norm(columns), table: builder.matrix(rows, columns), softcap: 5))
    }
    for (index, hasBias) in [false, true].enumerated() {
      let rows = whole([34, 2, 576, 98][(formatIndex + 2 * index) % 4], 4)
      builder.add(hasBias ? "residual bias" : "residual", rows: rows) { rows, columns, builder in
        .residualProjection(
          ResidualProjectionStage(
            layer: 0, input: .attention, weight: builder.matrix(rows, columns),
            bias: hasBias ? builder.bias(rows) : nil, postNorm: nil))
      }
    }
    builder.add("residual post-norm", rows: whole([576, 34, 98, 2][formatIndex % 4], 32)) {
      rows, columns, builder in
      .residualProjection(
        ResidualProjectionStage(
          layer: 0, input: .feedForward, weight: builder.matrix(rows, columns), bias: nil,
          postNorm: builder.norm(rows)))
    }
    for (index, activation) in [Activation.silu, .geluTanh].enumerated() {
      let rows = whole([33, 288, 1, 50][(formatIndex + index) % 4], 4)
      builder.add("gated \(activation == .silu ? "silu" : "gelu")", rows: rows) { rows, columns, builder in
        .gatedFeedForward(
          GatedFeedForwardStage(
            layer: 0, norm: builder.norm(columns), gate: builder.matrix(rows, columns),
            up: builder.matrix(rows, columns), activation: activation))
      }
    }
    let heads = [(2, 1, 16), (3, 1, 64), (4, 2, 80), (2, 2, 96)].map {
      HeadLayout(
        headCount: $0, kvHeadCount: $1, headSize: $2, cacheType: $2 == 96 ? .q8_0 : .f16)
    }
    let kinds: [(String, Rope.Pairing, part: Bool, bias: Bool, headNorm: Bool)] = [
      ("qkv", .adjacent, false, false, false),
      ("qkv bias, half of a head rotated", .halves, true, true, false),
      ("qkv head norms", .halves, false, false, true),
    ]
    for (index, kind) in kinds.enumerated() {
      let layout = heads[(formatIndex + index) % heads.count]
      let queryRows = layout.headCount * layout.headSize
      let kvRows = layout.kvHeadCount * layout.headSize
      builder.add(kind.0, rows: queryRows + 2 * kvRows) { _, columns, builder in
        .queryKeyValue(
          QueryKeyValueStage(
            layer: 0, norm: builder.norm(columns), query: builder.matrix(queryRows, columns),
            key: builder.matrix(kvRows, columns), value: builder.matrix(kvRows, columns, another: kind.bias),
            queryBias: kind.bias ? builder.bias(queryRows) : nil,
            keyBias: kind.bias ? builder.bias(kvRows) : nil,
            valueBias: kind.bias ? builder.bias(kvRows) : nil,
            queryNorm: kind.headNorm ? builder.norm(layout.headSize) : nil,
            keyNorm: kind.headNorm ? builder.norm(layout.headSize) : nil,
            rope: Rope(
              pairing: kind.1, rotatedSize: kind.part ? layout.headSize / 2 : layout.headSize, base: 10000,
              magnitude: kind.part ? 1.25 : 1),
            heads: layout))
      }
    }
    source = RandomTensorSource(tensors: builder.tensors, seed: random.next())
    names = builder.names
    program = Program(
      width: 64, layerCount: 1, heads: heads[0], feedForwardWidth: 64, vocabularySize: 64,
      stages: builder.stages)
  }

  /// Names tensors and collects stages.
  private struct Builder {
    let type: TensorType
    let turn: Int
    var tensors: [TensorInfo] = []
    var names: [String] = []
    var stages: [Stage] = []

    init(type: TensorType, turn: Int) {
      self.type = type
      self.turn = turn
    }

    mutating func add(_ name: String, rows: Int, _ make: (Int, Int, inout Builder) -> Stage) {
      let widths = type.blockSize == 256 ? [256, 768, 512, 1536] : [32, 288, 576, 1536]
      let columns = widths[(turn + stages.count) % widths.count]
      names.append("\(name) \(rows)x\(columns)")
      stages.append(make(rows, columns, &self))
    }

    /// `another`: in another format, as files mix them.
    mutating func matrix(_ rows: Int, _ columns: Int, another: Bool = false) -> TensorSlice {
      tensor("matrix", [columns, rows], another ? (type == .q8_0 ? .f16 : .q8_0) : type)
    }

    mutating func norm(_ width: Int) -> Norm {
      Norm(weight: tensor("norm.weight", [width], .f32), epsilon: 1e-3)
    }

    mutating func bias(_ width: Int) -> TensorSlice { tensor("bias", [width], .f32) }

    private mutating func tensor(_ name: String, _ shape: [Int], _ type: TensorType) -> TensorSlice {
      guard let info = TensorInfo(name: "\(tensors.count).\(name)", shape: shape, type: type) else {
        preconditionFailure("\(shape) of \(type.name) are not whole blocks")
      }
      tensors.append(info)
      return TensorSlice(info)
    }
  }
}
