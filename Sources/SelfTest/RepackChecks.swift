import CShaderInterface
import Kernels
import ModelFiles
import Reference
import Transformer

/// `repack` and `embed`: matrices of every format go to the device as a model's do, and are read back as embeddings.
/// All matrices of a format lie side by side before the first is read: one that overwrites another shows.
struct RepackChecks {
  let bench: TestBench

  func run() throws {
    for type in TensorType.allCases {
      let name = "repack+embed \(type.name)"
      guard bench.wants(name) else { continue }
      try bench.report(name) {
        try check(type, name: name)
        return ([], 0, "")
      }
    }
  }

  /// A matrix on the device, and the rows that it should hold.
  private struct Loaded {
    var what: String
    var matrix: DeviceMatrix
    var rows: [[Double]]
  }

  private func check(_ type: TensorType, name: String) throws {
    var random = bench.random(name)
    // An odd number of blocks: rows and blocks then share words in the planes of halves and bytes.
    let columns = type.blockSize == 256 ? 3 * 256 : 9 * 32
    var source = RawTensors()
    var slices: [TensorSlice] = []
    for part in ["table", "gate", "up", "query", "key", "value"] {
      slices.append(
        source.add(part, type, rows: part == "key" || part == "value" ? 16 : 48, columns: columns, &random))
    }
    let norm = Norm(weight: source.add("norm", .f32, rows: 1, columns: columns, &random), epsilon: 1e-5)
    var columnSlice = slices[0]
    columnSlice.rows = 5..<44
    columnSlice.columns = columns / 3..<columns
    func queryKeyValue(_ pairing: Rope.Pairing, rotated: Int) -> Stage {
      .queryKeyValue(
        QueryKeyValueStage(
          layer: 0, norm: norm, query: slices[3], key: slices[4], value: slices[5], queryBias: nil,
          keyBias: nil,
          valueBias: nil, queryNorm: nil, keyNorm: nil,
          rope: Rope(pairing: pairing, rotatedSize: rotated, base: 10000),
          heads: HeadLayout(headCount: 3, kvHeadCount: 1, headSize: 16)))
    }
    let stages: [(String, Stage)] = [
      ("whole", .embed(EmbedStage(table: slices[0], scale: 1))),
      ("some columns of some rows", .embed(EmbedStage(table: columnSlice, scale: 1))),
      (
        "alternating rows",
        .gatedFeedForward(
          GatedFeedForwardStage(layer: 0, norm: norm, gate: slices[1], up: slices[2], activation: .silu))
      ),
      ("pairs as they are", queryKeyValue(.adjacent, rotated: 16)),
      ("pairs from halves", queryKeyValue(.halves, rotated: 16)),
      ("pairs from halves of a part", queryKeyValue(.halves, rotated: 12)),
    ]
    let model = try DeviceModel(
      program: Program(
        width: columns, layerCount: 1, heads: HeadLayout(headCount: 3, kvHeadCount: 1, headSize: 16),
        feedForwardWidth: 48, vocabularySize: 48, stages: stages.map(\.1)),
      source: source, cache: bench.cache, onProgress: { _ in })

    let reader = WeightReader(source)
    for ((what, stage), onDevice) in zip(stages, model.stages) {
      guard let loaded = try loaded(what, stage, onDevice, reader) else { continue }
      try readBack(loaded, name: "\(name) \(what) \(loaded.matrix.rows)x\(loaded.matrix.columns)", &random)
    }
    withExtendedLifetime(model) {}
  }

  private func loaded(
    _ what: String, _ stage: Stage, _ onDevice: DeviceStage, _ reader: WeightReader
  ) throws -> Loaded? {
    func rows(_ slice: TensorSlice) throws -> [[Double]] {
      var result: [[Double]] = []
      try reader.forEachRow(of: slice) { _, weights in result.append(weights.map(Double.init)) }
      return result
    }
    switch (stage, onDevice) {
    case (.embed(let stage), .embed(let table, _, _)):
      return Loaded(what: what, matrix: table, rows: try rows(stage.table))
    case (.gatedFeedForward(let stage), .gatedFeedForward(let weights)):
      return Loaded(
        what: what, matrix: weights.matrix,
        rows: zip(try rows(stage.gate), try rows(stage.up)).flatMap { [$0, $1] })
    case (.queryKeyValue(let stage), .queryKeyValue(let weights)):
      let order = PairOrder(headSize: stage.heads.headSize, rope: stage.rope)
      let query = try rows(stage.query)
      let key = try rows(stage.key)
      return Loaded(
        what: what, matrix: weights.matrices[0],
        rows: query.indices.map { query[order.source($0)] } + key.indices.map { key[order.source($0)] }
          + (try rows(stage.value)))
    default:
      return nil
    }
  }

  /// Reads every row of a matrix, in random order, some by the token that the step before has chosen.
  private func readBack(_ loaded: Loaded, name: String, _ random: inout SeededRandom) throws {
    guard bench.matches(name) else { return }
    let matrix = loaded.matrix
    let tokens = Array(0..<matrix.rows).shuffled(using: &random)
    var image = bench.newImage()
    let lastTokens = tokens.prefix(4).map { UInt32($0) }
    let step = image.addStep(
      tokens.enumerated().map { index, token in
        let fromDevice = index < lastTokens.count
        return StepRow(
          token: fromDevice ? 0xffff_ffff : UInt32(token), position: 0,
          sequence: fromDevice ? UInt32(index) : 0,
          output_row: 0)
      })
    let stride = activationStride(matrix.columns)
    let outputs = image.addPoisoned(tokens.count * stride)
    let form = ProductForm.allCases[matrix.rows % 3]
    let left = NextOutputs(
      form: form, width: matrix.columns, rowCount: tokens.count,
      squareCount: form == .none ? 0 : matrix.columns / 32, norm: random.normals(matrix.columns),
      image: &image)
    var push = EmbedPush()
    push.next = left.arguments
    push.step = step.address
    push.last_tokens = image.add(lastTokens).address
    push.outputs = outputs.address
    push.output_stride = UInt32(stride)
    let scale = Float.random(in: 0.5...2, using: &random)
    try bench.check(name, image: image) { commands in
      // More rows than the step has, as in a plan recorded for a larger one.
      try EmbedKernel(table: matrix, scale: scale, next: form).record(
        commands, push: push, rowCount: tokens.count + 3, cache: bench.cache)
    } compare: { outcome in
      var found: [Double] = []
      var expected: [Double] = []
      for (row, token) in tokens.enumerated() {
        for column in 0..<matrix.columns {
          found.append(outcome.float(outputs, row * stride + activationIndex(column)))
          expected.append(loaded.rows[token][column] * Double(scale))
        }
      }
      return [Comparison(found: found, expected: expected, tolerance: 1e-6)]
        + left.comparisons(expected, &outcome, tolerance: 2e-6)
    }
  }
}

/// Where the rows of a head come from when rotated pairs, halves of a head in the file, become neighbours.
struct PairOrder {
  let headSize: Int
  let rope: Rope

  /// The file's row that stands in row `row` on the device.
  func source(_ row: Int) -> Int {
    let element = row % headSize
    guard rope.pairing == .halves, element < rope.rotatedSize else { return row }
    return row - element + element / 2 + (element % 2 == 0 ? 0 : rope.rotatedSize / 2)
  }
}
