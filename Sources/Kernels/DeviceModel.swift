import ModelFiles
import Transformer
import VulkanRuntime

/// The weights of a Program on one device, stage by stage.
package final class DeviceModel: Sendable {
  package let program: Program
  package let stages: [DeviceStage]
  /// Keeps the memory that `stages` points into.
  private let buffers: [Buffer]
  /// What brings weights that are not on the device; nil where all are.
  package let stream: WeightStream?
  /// Bytes of device memory that the weights take.
  package var byteCount: Int { buffers.reduce(0) { $0 + $1.byteCount } }

  /// Loads every weight of `program` from `source`.
  ///
  /// - Parameters:
  ///   - residency: where weights stay; nil keeps all on the device.
  ///   - rowInterleave: see `WeightFormat`; nil for what suits the device.
  ///   - reading: how weights are read while the model runs.
  ///   - onProgress: called with the bytes read from the source since the last call; may throw to stop.
  package init(
    program: Program, source: any TensorSource, cache: KernelCache, residency: WeightResidency? = nil,
    rowInterleave: Int? = nil, reading: ReadOptions = ReadOptions(),
    onProgress: @escaping (Int) throws -> Void
  ) throws {
    let residency = residency ?? WeightResidency(residentStages: program.stages.count)
    var stream: WeightStream?
    if residency.ringBytes > 0 {
      stream = try WeightStream(
        device: cache.device,
        layout: try StreamLayout(program: program, residency: residency, source: source),
        residency: residency, paths: source.paths, reading: reading)
    }
    let loader = try WeightLoader(
      cache: cache, source: source,
      pieces: Self.residentMatrices(
        program, residency, rowInterleave: rowInterleave ?? cache.traits.rowInterleave,
        isFused: cache.traits.method.fuses, streams: stream != nil),
      slotBytes: stream == nil ? nil : WeightLoader.smallSlotBytes, rowInterleave: rowInterleave,
      onProgress: onProgress)
    try stream?.load(loader)
    var builder = StageLoader(
      loader: loader, headSize: program.heads.headSize, share: program.share, residency: residency,
      stream: stream)
    let relative = try program.stages.enumerated().map { try builder.load($1, index: $0) }
    let (buffers, constants) = try loader.finish()
    try stream?.measureLink()
    self.program = program
    self.stream = stream
    self.buffers = buffers + builder.hostTables
    stages = relative.map { $0.rebased(to: constants) }
  }

  /// Records what comes before the products that read a unit of weights that stream.
  package func recordArrival(
    of unit: Int, _ commands: CommandBuffer, cache: KernelCache
  ) throws {

    try stream?.recordArrival(of: unit, commands, cache: cache)
  }

  /// Bytes of each matrix that stays on the device, in the order in which they are loaded: see `StageLoader`.
  private static func residentMatrices(
    _ program: Program, _ residency: WeightResidency, rowInterleave: Int, isFused: Bool, streams: Bool
  ) -> [Int] {
    var seen: Set<TensorSlice> = []
    return zip(program.stages, residency.tiers).filter { !streams || $1 == .device }
      .flatMap { $0.0.matrixSpecs(rowInterleave: rowInterleave, isFused: isFused) }
      .filter { $0.sharedSlice.map { seen.insert($0).inserted } ?? true }
      .map(\.byteCount)
  }

  /// Bytes of the matrices of `program` in device layout.
  package static func weightBytes(of program: Program) -> Int {
    var seen: Set<TensorSlice> = []
    return program.stages.flatMap(\.matrices).reduce(0) { sum, slice in
      guard seen.insert(slice).inserted else { return sum }
      return sum
        + WeightFormat.of(slice.type).planeOffsets(rows: slice.rows.count, columns: slice.columns.count).total
    }
  }
}

/// One stage's weights on the device. Addresses of vectors are device addresses of float32 data; 0 means none.
package enum DeviceStage: Sendable {
  case embed(table: DeviceMatrix, scale: Float, firstToken: Int)
  case queryKeyValue(QueryKeyValue)
  case attention(AttentionStage)
  case residualProjection(ResidualProjection)
  case gatedFeedForward(GatedFeedForward)
  case logits(Logits)
  /// `postNorm` is the address of the weight of an all-reduce's norm.
  case collective(CollectiveStage, postNorm: UInt64)

  package struct QueryKeyValue: Sendable {
    package var stage: QueryKeyValueStage
    /// Q, K and V stacked; one matrix for each run of parts of the same format.
    package var matrices: [DeviceMatrix]
    package var norm: UInt64
    /// All rows stacked, or 0.
    package var bias: UInt64
    package var queryNorm: UInt64
    package var keyNorm: UInt64
    package var rope: UInt64
  }

  package struct ResidualProjection: Sendable {
    package var stage: ResidualProjectionStage
    package var matrix: DeviceMatrix
    package var bias: UInt64
    package var postNorm: UInt64
    /// Elements of an attention head.
    package var headSize: Int
    /// Whether it leaves its product alone, for an all-reduce to add up.
    package var isPartial: Bool
  }

  package struct GatedFeedForward: Sendable {
    package var stage: GatedFeedForwardStage
    /// Gate and up rows in turn; several matrices where they stream in pieces.
    package var matrices: [DeviceMatrix]
    package var matrix: DeviceMatrix { matrices[0] }
    package var norm: UInt64
  }

  package struct Logits: Sendable {
    package var stage: LogitsStage
    /// Several where they stream in pieces.
    package var matrices: [DeviceMatrix]
    package var matrix: DeviceMatrix { matrices[0] }
    package var norm: UInt64
  }

  /// The stage's matrices on the device.
  package var matrices: [DeviceMatrix] {
    switch self {
    case .attention, .collective: []
    case .embed(let table, _, _): [table]
    case .queryKeyValue(let stage): stage.matrices
    case .residualProjection(let stage): [stage.matrix]
    case .gatedFeedForward(let stage): stage.matrices
    case .logits(let stage): stage.matrices
    }
  }

  /// Bytes of weights that the stage reads for any number of tokens; an embedding reads next to nothing.
  package var matrixBytes: Int {
    switch self {
    case .embed, .attention, .collective: 0
    case .queryKeyValue(let stage): stage.matrices.reduce(0) { $0 + $1.byteCount }
    case .residualProjection(let stage): stage.matrix.byteCount
    case .gatedFeedForward(let stage): stage.matrices.reduce(0) { $0 + $1.byteCount }
    case .logits(let stage): stage.matrices.reduce(0) { $0 + $1.byteCount }
    }
  }

  /// Constants were noted as offset + 1, so that 0 still means none; here they become addresses.
  func rebased(to base: UInt64) -> DeviceStage {
    func address(_ noted: UInt64) -> UInt64 { noted == 0 ? 0 : base + noted - 1 }
    switch self {
    case .embed, .attention:
      return self
    case .queryKeyValue(var stage):
      stage.norm = address(stage.norm)
      stage.bias = address(stage.bias)
      stage.queryNorm = address(stage.queryNorm)
      stage.keyNorm = address(stage.keyNorm)
      stage.rope = address(stage.rope)
      return .queryKeyValue(stage)
    case .residualProjection(var stage):
      stage.bias = address(stage.bias)
      stage.postNorm = address(stage.postNorm)
      return .residualProjection(stage)
    case .gatedFeedForward(var stage):
      stage.norm = address(stage.norm)
      return .gatedFeedForward(stage)
    case .logits(var stage):
      stage.norm = address(stage.norm)
      return .logits(stage)
    case .collective(let stage, let postNorm):
      return .collective(stage, postNorm: address(postNorm))
    }
  }
}

/// Loads stages one after another; matrices used twice (tied embeddings) are loaded once.
private struct StageLoader {
  let loader: WeightLoader
  let headSize: Int
  let share: ModelShare
  let residency: WeightResidency
  let stream: WeightStream?
  var loaded: [TensorSlice: DeviceMatrix] = [:]
  /// Embedding tables that stay on the host.
  var hostTables: [Buffer] = []
  var ropes: [Rope: UInt64] = [:]

  mutating func load(_ stage: Stage, index: Int) throws -> DeviceStage {
    switch stage {
    case .embed(let embed):
      if residency.tiers[index] != .device, let stream {
        let (matrix, buffer) = try stream.table(
          stage.matrixSpecs(rowInterleave: residency.rowInterleave)[0], loader)
        hostTables.append(buffer)
        return .embed(table: matrix, scale: embed.scale, firstToken: share.vocabulary.lowerBound)
      }
      return .embed(
        table: try matrices(stage, index)[0], scale: embed.scale, firstToken: share.vocabulary.lowerBound)
    case .queryKeyValue(let weights):
      return .queryKeyValue(try queryKeyValue(weights, matrices: try matrices(stage, index)))
    case .attention(let stage):
      return .attention(stage)
    case .residualProjection(let weights):
      return .residualProjection(
        .init(
          stage: weights, matrix: try matrices(stage, index)[0],
          bias: try weights.bias.map { try plain($0) } ?? 0,
          postNorm: try weights.postNorm.map { try activationVector($0.weight) } ?? 0, headSize: headSize,
          isPartial: share.mesh.tensor > 1))
    case .gatedFeedForward(let weights):
      return .gatedFeedForward(
        .init(
          stage: weights, matrices: try matrices(stage, index),
          norm: try activationVector(weights.norm.weight)))
    case .logits(let weights):
      return .logits(
        .init(
          stage: weights, matrices: try matrices(stage, index),
          norm: try activationVector(weights.norm.weight)))
    case .collective(let stage):
      guard case .allReduce(.some(let norm), _) = stage else { return .collective(stage, postNorm: 0) }
      return .collective(stage, postNorm: try activationVector(norm.weight))
    }
  }

  /// The matrices of a stage: loaded, or where they will stream to.
  private mutating func matrices(_ stage: Stage, _ index: Int) throws -> [DeviceMatrix] {
    if residency.streams(stage, index), let stream { return stream.matrices(ofStage: index) }
    let specs = stage.matrixSpecs(rowInterleave: loader.rowInterleave, isFused: loader.fuses)
    return try specs.map { spec in
      let key = spec.sharedSlice
      if let key, let known = loaded[key] { return known }
      let matrix = try loader.matrix(spec)
      if let key { loaded[key] = matrix }
      return matrix
    }
  }

  private mutating func queryKeyValue(
    _ stage: QueryKeyValueStage, matrices: [DeviceMatrix]
  ) throws -> DeviceStage.QueryKeyValue {
    let pairs = stage.pairs
    func ordered(_ values: [Float]) -> [Float] {
      guard let pairs else { return values }
      return values.indices.reduce(into: values) { result, row in
        result[pairOrder(row, headSize: pairs.headSize, rotatedSize: pairs.rotatedSize)] = values[row]
      }
    }
    var bias: UInt64 = 0
    if stage.queryBias != nil || stage.keyBias != nil || stage.valueBias != nil {
      func values(_ slice: TensorSlice?, count: Int) throws -> [Float] {
        try slice.map { try loader.vector($0) } ?? [Float](repeating: 0, count: count)
      }
      let query = ordered(try values(stage.queryBias, count: stage.query.rows.count))
      let key = ordered(try values(stage.keyBias, count: stage.key.rows.count))
      let value = try values(stage.valueBias, count: stage.value.rows.count)
      bias = note(query + key + value)
    }
    func headNorm(_ norm: Norm?) throws -> UInt64 {
      guard let norm else { return 0 }
      return note(ordered(try loader.vector(norm.weight)))
    }
    return DeviceStage.QueryKeyValue(
      stage: stage, matrices: matrices, norm: try activationVector(stage.norm.weight), bias: bias,
      queryNorm: try headNorm(stage.queryNorm), keyNorm: try headNorm(stage.keyNorm),
      rope: frequencies(stage.rope))
  }

  /// Frequencies as 0.64 fixed-point turns a token: see Shaders/common/rope.glsl.
  private mutating func frequencies(_ rope: Rope) -> UInt64 {
    if let known = ropes[rope] { return known }
    let words = rope.frequencies.flatMap { frequency -> [UInt32] in
      let turns = frequency / (2 * Double.pi)
      let fraction = turns - turns.rounded(.down)
      let high = (fraction * 0x1p32).rounded(.down)
      let low = ((fraction * 0x1p32 - high) * 0x1p32).rounded(.down)
      return [UInt32(min(high, 0x1p32 - 1)), UInt32(min(low, 0x1p32 - 1))]
    }
    let noted = UInt64(loader.constant(words)) + 1
    ropes[rope] = noted
    return noted
  }

  private func plain(_ slice: TensorSlice) throws -> UInt64 { note(try loader.vector(slice)) }

  /// A vector that multiplies activations, in their layout.
  private func activationVector(_ slice: TensorSlice) throws -> UInt64 {
    let values = try loader.vector(slice)
    var laidOut = [Float](repeating: 0, count: activationStride(values.count))
    for (k, value) in values.enumerated() { laidOut[activationIndex(k)] = value }
    return note(laidOut)
  }

  private func note(_ values: [Float]) -> UInt64 { UInt64(loader.constant(values)) + 1 }
}

/// Where a row goes when the rotated elements of its head, stored in halves, become neighbouring pairs.
func pairOrder(_ row: Int, headSize: Int, rotatedSize: Int) -> Int {
  let element = row % headSize
  guard element < rotatedSize else { return row }
  let half = rotatedSize / 2
  return row - element + 2 * (element % half) + (element >= half ? 1 : 0)
}
