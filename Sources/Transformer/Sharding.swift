import ModelFiles

extension Program {
  /// The Programs of the devices of a mesh, by device number: what each one loads and computes.
  ///
  /// Heads, kv heads and feed-forward columns are split as evenly as whole blocks of the matrices that are cut along
  /// their inputs allow; where there are more ranks than kv heads, ranks that share a kv head each have a copy of it.
  ///
  /// - Throws: a mesh that the model cannot be split over.
  package func shared(over mesh: MeshShape, split: LayerSplit? = nil) throws(MeshError) -> [Program] {
    guard mesh.deviceCount > 1 else { return [self] }
    guard mesh.pipeline <= layerCount else {
      throw MeshError(
        "\(layerCount) layers cannot be split into \(mesh.pipeline) pipeline stages: use --pipeline-parallel 1 to "
          + "\(layerCount)")
    }
    let layers = try layerRanges(stages: mesh.pipeline, split: split)
    let vocabulary = Self.runs(vocabularySize, unit: 16, parts: mesh.tensor)
    guard vocabulary.allSatisfy({ !$0.isEmpty }) else {
      throw MeshError(
        "a vocabulary of \(vocabularySize) cannot be split over \(mesh.tensor) devices: use fewer with --tensor-parallel"
      )
    }
    let heads = try headRanges(ranks: mesh.tensor)
    var programs: [Program] = []
    for stage in 0..<mesh.pipeline {
      for rank in 0..<mesh.tensor {
        let share = ModelShare(
          mesh: mesh, stage: stage, rank: rank, layers: layers[stage], vocabulary: vocabulary[rank],
          kvHeads: heads[rank].keyValue)
        programs.append(try part(share, queryHeads: heads[rank].query))
      }
    }
    return programs
  }

  private func layerRanges(stages: Int, split: LayerSplit?) throws(MeshError) -> [Range<Int>] {
    switch split {
    case nil: return layerRanges(stages: stages, rooms: nil)
    case .within(let rooms): return layerRanges(stages: stages, rooms: rooms)
    case .counts(let counts):
      guard counts.count == stages, counts.allSatisfy({ $0 > 0 }), counts.reduce(0, +) == layerCount else {
        throw MeshError(
          "layers \(counts.map(String.init).joined(separator: ",")) are not those of \(stages) pipeline stages: give "
            + "each one or more, \(layerCount) in all")
      }
      var start = 0
      return counts.map { count in
        defer { start += count }
        return start..<start + count
      }
    }
  }

  /// Layers of each stage, so that the bytes that the slowest one reads for a token are the fewest.
  ///
  /// - Parameter rooms: the most bytes of weights of each stage; where no division keeps to them, they are not heeded.
  func layerRanges(stages: Int, rooms: [Int]?) -> [Range<Int>] {
    var cost = [Int](repeating: 0, count: layerCount)
    var last = 0
    for stage in self.stages {
      if case .logits(let logits) = stage { last += logits.table.byteCount }
      guard let layer = stage.layer else { continue }
      cost[layer] += stage.matrices.reduce(0) { $0 + $1.byteCount }
    }
    cost[layerCount - 1] += last
    var rooms = rooms
    // The first stage has the embedding table, of which a token reads next to nothing.
    if case .embed(let embed) = self.stages.first { rooms?[0] -= embed.table.byteCount }
    let sums = cost.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }
    /// The division with the least sum of `weight` of each stage's bytes, or with the least of the most of them.
    func best(of weight: (Int) -> Double, most: Int, sumsUp: Bool) -> [Range<Int>]? {
      var totals = [Double](repeating: .infinity, count: layerCount + 1)
      totals[0] = 0
      var starts: [[Int]] = []
      for stage in 0..<stages {
        var next = [Double](repeating: .infinity, count: layerCount + 1)
        var start = [Int](repeating: 0, count: layerCount + 1)
        for end in 1...layerCount {
          for first in stage..<max(stage, end) where totals[first] < .infinity {
            let bytes = sums[end] - sums[first]
            guard bytes <= min(most, rooms?[stage] ?? .max) else { continue }
            let total = sumsUp ? totals[first] + weight(bytes) : max(totals[first], weight(bytes))
            if total < next[end] { (next[end], start[end]) = (total, first) }
          }
        }
        totals = next
        starts.append(start)
      }
      guard totals[layerCount] < .infinity else { return nil }
      var end = layerCount
      return starts.reversed().map { start in
        defer { end = start[end] }
        return start[end]..<end
      }.reversed()
    }
    // The least of the most; and within that as even as can be, for the memory's sake.
    guard let fastest = best(of: Double.init, most: .max, sumsUp: false) else {
      return layerRanges(stages: stages, rooms: nil)
    }
    let most = fastest.map { sums[$0.upperBound] - sums[$0.lowerBound] }.max() ?? 0
    return best(of: { Double($0) * Double($0) }, most: most, sumsUp: true) ?? fastest
  }

  /// Query and kv heads of each rank.
  func headRanges(ranks: Int) throws(MeshError) -> [(query: Range<Int>, keyValue: Range<Int>)] {
    let group = heads.headCount / heads.kvHeadCount
    var block = 32
    for case .residualProjection(let stage) in stages where stage.input == .attention {
      block = max(block, stage.weight.type.blockSize)
    }
    /// Query heads whose elements are whole blocks.
    let unit = block / greatestCommonDivisor(block, heads.headSize)
    let kvUnit = unit / greatestCommonDivisor(unit, group)
    let kvUnits = (heads.kvHeadCount + kvUnit - 1) / kvUnit
    if kvUnits >= ranks {
      return Self.runs(heads.kvHeadCount, unit: kvUnit, parts: ranks).map {
        ($0.lowerBound * group..<$0.upperBound * group, $0)
      }
    }
    var result: [(query: Range<Int>, keyValue: Range<Int>)] = []
    for (kvHead, sharers) in MeshShape.split(ranks, into: heads.kvHeadCount).enumerated() {
      let parts = Self.runs(group, unit: unit, parts: sharers.count)
      for part in parts where !part.isEmpty {
        result.append(
          (kvHead * group + part.lowerBound..<kvHead * group + part.upperBound, kvHead..<kvHead + 1))
      }
    }
    guard kvUnit == 1, result.count == ranks else {
      throw MeshError(
        "\(heads.headCount) attention heads of \(heads.headSize) elements in \(heads.kvHeadCount) groups cannot be split "
          + "over \(ranks) devices without cutting blocks of \(block) weights: use fewer with --tensor-parallel"
      )
    }
    return result
  }

  /// Feed-forward columns of each rank.
  func feedForwardRanges(ranks: Int) throws(MeshError) -> [Range<Int>] {
    var block = 32
    for case .residualProjection(let stage) in stages where stage.input == .feedForward {
      block = max(block, stage.weight.type.blockSize)
    }
    let ranges = Self.runs(feedForwardWidth, unit: block, parts: ranks)
    guard ranges.allSatisfy({ !$0.isEmpty }) else {
      throw MeshError(
        "\(feedForwardWidth) feed-forward columns cannot be split over \(ranks) devices without cutting blocks of "
          + "\(block) weights: use fewer with --tensor-parallel")
    }
    return ranges
  }

  private func part(_ share: ModelShare, queryHeads: Range<Int>) throws(MeshError) -> Program {
    let splits = share.mesh.tensor > 1
    let hidden = try feedForwardRanges(ranks: share.mesh.tensor)[share.rank]
    let cut = StageCut(
      whole: heads, queryHeads: queryHeads, kvHeads: share.kvHeads, hidden: hidden,
      vocabulary: share.vocabulary, isFirstRank: share.rank == 0)
    var part: [Stage] = []
    if !share.isFirstStage { part.append(.collective(.receive)) }
    for stage in stages {
      switch stage {
      case .embed:
        guard share.isFirstStage else { continue }
        part.append(cut.applied(to: stage))
        if splits { part.append(.collective(.allReduce(postNorm: nil, addsResidual: false))) }
      case .logits:
        guard share.isLastStage else { continue }
        part.append(cut.applied(to: stage))
        if splits { part.append(.collective(.gatherLogits)) }
      case .residualProjection(var projection) where splits:
        guard share.layers.contains(projection.layer) else { continue }
        let norm = projection.postNorm
        projection.postNorm = nil
        part.append(cut.applied(to: .residualProjection(projection)))
        part.append(.collective(.allReduce(postNorm: norm, addsResidual: true)))
      default:
        if let layer = stage.layer, share.layers.contains(layer) { part.append(cut.applied(to: stage)) }
      }
    }
    if !share.isLastStage { part.append(.collective(.send)) }
    return Program(
      width: width, layerCount: share.layers.count, heads: cut.heads, feedForwardWidth: hidden.count,
      vocabularySize: vocabularySize, stages: part, share: share)
  }

  /// `count` things in runs of whole units, as equal as can be; the last unit may be short.
  private static func runs(_ count: Int, unit: Int, parts: Int) -> [Range<Int>] {
    MeshShape.split((count + unit - 1) / unit, into: parts).map {
      min($0.lowerBound * unit, count)..<min($0.upperBound * unit, count)
    }
  }
}

private func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : greatestCommonDivisor(b, a % b) }

/// What a rank has of every stage.
private struct StageCut {
  var whole: HeadLayout
  var queryHeads: Range<Int>
  var kvHeads: Range<Int>
  var hidden: Range<Int>
  var vocabulary: Range<Int>
  var isFirstRank: Bool

  var heads: HeadLayout {
    HeadLayout(
      headCount: queryHeads.count, kvHeadCount: kvHeads.count, headSize: whole.headSize,
      cacheType: whole.cacheType)
  }

  func applied(to stage: Stage) -> Stage {
    switch stage {
    case .embed(var stage):
      stage.table = stage.table.rows(vocabulary)
      return .embed(stage)
    case .queryKeyValue(var stage):
      let query = elements(queryHeads)
      let keyValue = elements(kvHeads)
      stage.query = stage.query.rows(query)
      stage.key = stage.key.rows(keyValue)
      stage.value = stage.value.rows(keyValue)
      stage.queryBias = stage.queryBias?.columns(query)
      stage.keyBias = stage.keyBias?.columns(keyValue)
      stage.valueBias = stage.valueBias?.columns(keyValue)
      stage.heads = heads
      return .queryKeyValue(stage)
    case .attention(var stage):
      stage.heads = heads
      return .attention(stage)
    case .residualProjection(var stage):
      stage.weight = stage.weight.columns(stage.input == .attention ? elements(queryHeads) : hidden)
      // Added once.
      if !isFirstRank { stage.bias = nil }
      return .residualProjection(stage)
    case .gatedFeedForward(var stage):
      stage.gate = stage.gate.rows(hidden)
      stage.up = stage.up.rows(hidden)
      return .gatedFeedForward(stage)
    case .logits(var stage):
      stage.table = stage.table.rows(vocabulary)
      return .logits(stage)
    case .collective:
      return stage
    }
  }

  private func elements(_ heads: Range<Int>) -> Range<Int> {
    heads.lowerBound * whole.headSize..<heads.upperBound * whole.headSize
  }
}

extension TensorSlice {
  /// Bytes of it in the file.
  package var byteCount: Int { rows.count * (columns.count / type.blockSize) * type.blockBytes }

  /// Those rows of it, counted from its own first.
  func rows(_ range: Range<Int>) -> TensorSlice {
    var slice = self
    slice.rows = rows.lowerBound + range.lowerBound..<rows.lowerBound + range.upperBound
    return slice
  }

  /// Those columns of it, counted from its own first.
  func columns(_ range: Range<Int>) -> TensorSlice {
    var slice = self
    slice.columns = columns.lowerBound + range.lowerBound..<columns.lowerBound + range.upperBound
    return slice
  }
}

extension Stage {
  /// The layer that it is part of; nil for embedding, logits and collectives.
  package var layer: Int? {
    switch self {
    case .queryKeyValue(let stage): stage.layer
    case .attention(let stage): stage.layer
    case .residualProjection(let stage): stage.layer
    case .gatedFeedForward(let stage): stage.layer
    case .embed, .logits, .collective: nil
    }
  }

  /// Its weight matrices.
  package var matrices: [TensorSlice] {
    switch self {
    case .embed(let stage): [stage.table]
    case .queryKeyValue(let stage): [stage.query, stage.key, stage.value]
    case .attention, .collective: []
    case .residualProjection(let stage): [stage.weight]
    case .gatedFeedForward(let stage): [stage.gate, stage.up]
    case .logits(let stage): [stage.table]
    }
  }
}
