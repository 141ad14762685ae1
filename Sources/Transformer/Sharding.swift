import ModelFiles

extension Program {
  /// The Programs of the devices of a mesh, by device number: what each one loads and computes.
  ///
  /// Heads, kv heads and feed-forward columns are split as evenly as whole blocks of the matrices that are cut along
  /// their inputs allow; where there are more ranks than kv heads, ranks that share a kv head each have a copy of it.
  ///
  /// - Throws: a mesh that the model cannot be split over.
  package func shared(over mesh: MeshShape) throws(MeshError) -> [Program] {
    guard mesh.deviceCount > 1 else { return [self] }
    guard mesh.pipeline <= layerCount else {
      throw MeshError(
        "\(layerCount) layers cannot be split into \(mesh.pipeline) pipeline stages: use --pipeline-parallel 1 to "
          + "\(layerCount)")
    }
    let layers = layerRanges(stages: mesh.pipeline)
    let vocabulary = Self.runs(vocabularySize, unit: 16, parts: mesh.tensor)
    guard vocabulary.allSatisfy({ !$0.isEmpty }) else {
      throw MeshError(
        "a vocabulary of \(vocabularySize) cannot be split over \(mesh.tensor) devices: use fewer with --tensor-parallel"
      )
    }
    var programs: [Program] = []
    for stage in 0..<mesh.pipeline {
      for rank in 0..<mesh.tensor {
        let share = ModelShare(
          mesh: mesh, stage: stage, rank: rank, layers: layers[stage], vocabulary: vocabulary[rank])
        programs.append(try part(share))
      }
    }
    return programs
  }

  /// Layers of each stage, so that the bytes that the slowest one reads for a token are the fewest.
  func layerRanges(stages: Int) -> [Range<Int>] {
    var cost = [Int](repeating: 0, count: layerCount)
    var last = 0
    for stage in self.stages {
      if case .logits(let logits) = stage { last += logits.table.byteCount }
      guard let layer = stage.layer else { continue }
      cost[layer] += stage.matrices.reduce(0) { $0 + $1.byteCount }
    }
    cost[layerCount - 1] += last
    // The least bound that `stages` runs can keep to, by bisection.
    var low = cost.max() ?? 0
    var high = cost.reduce(0, +)
    func runs(_ bound: Int) -> [Range<Int>] {
      var result: [Range<Int>] = []
      var start = 0
      var sum = 0
      for layer in 0..<layerCount {
        let left = stages - result.count - 1
        // Every stage gets a layer.
        if layer > start, sum + cost[layer] > bound || layerCount - layer == left {
          result.append(start..<layer)
          (start, sum) = (layer, 0)
        }
        sum += cost[layer]
      }
      return result + [start..<layerCount]
    }
    while low < high {
      let middle = (low + high) / 2
      if runs(middle).count <= stages { high = middle } else { low = middle + 1 }
    }
    return runs(low)
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

  private func part(_ share: ModelShare) throws(MeshError) -> Program {
    let splits = share.mesh.tensor > 1
    let heads = try headRanges(ranks: share.mesh.tensor)[share.rank]
    let hidden = try feedForwardRanges(ranks: share.mesh.tensor)[share.rank]
    let cut = StageCut(
      whole: self.heads, queryHeads: heads.query, kvHeads: heads.keyValue, hidden: hidden,
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
