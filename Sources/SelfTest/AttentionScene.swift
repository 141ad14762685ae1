import CShaderInterface
import Kernels
import ModelFiles
import Reference
import Transformer

/// A memory image's KV cache of scattered pages, and queries of the last tokens of each sequence.
struct AttentionScene {
  let rows: [StepRow]
  let tileCount: Int
  let pagesPerSequence = 10
  /// [row][head][element].
  let queries: [Float]
  /// [sequence][position][kv head][element], as the cache rounds them.
  private let keys: [[Double]]
  private let values: [[Double]]
  private let queryWidth: Int

  let queryAddress: UInt64
  let keyAddress: UInt64
  let valueAddress: UInt64
  let tableAddress: UInt64
  let stepAddress: UInt64
  let tileAddress: UInt64

  /// - Parameters:
  ///   - contexts: tokens of each sequence, with those of the step.
  ///   - fresh: how many of them are the step's.
  ///   - tileRows: most tokens of a tile.
  init(
    heads: HeadLayout, contexts: [Int], fresh: [Int], tileRows: Int, random: inout SeededRandom,
    image: inout MemoryImage
  ) {
    rows = zip(contexts, fresh).enumerated().flatMap { sequence, counts in
      (counts.0 - counts.1..<counts.0).map {
        StepRow(token: 0, position: UInt32($0), sequence: UInt32(sequence), output_row: 0)
      }
    }
    let pages = PageTable(
      sequenceCount: contexts.count, pagesPerSequence: pagesPerSequence, rows: rows, &random)
    let kvWidth = heads.kvHeadCount * heads.headSize
    queryWidth = heads.headCount * heads.headSize
    queries = random.normals(rows.count * queryWidth)
    var keys: [[Double]] = []
    var values: [[Double]] = []
    let cacheHalves = pages.pageCount * pages.tokens * kvWidth
    var keyHalves = [UInt16](repeating: UInt16(MemoryImage.poison >> 16), count: cacheHalves)
    var valueHalves = keyHalves
    for (sequence, context) in contexts.enumerated() {
      let sequenceKeys = random.normals(context * kvWidth).map(\.halfBits)
      let sequenceValues = random.normals(context * kvWidth).map(\.halfBits)
      for index in 0..<context * kvWidth {
        let place = pages.place(
          sequence: sequence, position: index / kvWidth, element: index % kvWidth, heads: heads)
        keyHalves[place.key] = sequenceKeys[index]
        valueHalves[place.value] = sequenceValues[index]
      }
      keys.append(sequenceKeys.map { Double(Float(half: $0)) })
      values.append(sequenceValues.map { Double(Float(half: $0)) })
    }
    self.keys = keys
    self.values = values

    let step = StepContents(rows: rows, outputs: [], samples: [], tileRows: tileRows)
    tileCount = step.tiles.count
    queryAddress = image.add(queries).address
    keyAddress = image.add(structs: keyHalves).address
    valueAddress = image.add(structs: valueHalves).address
    tableAddress = image.add(pages.table).address
    stepAddress = image.addStep(rows, tileCount: step.tiles.count).address
    tileAddress = image.add(structs: step.tiles).address
  }

  /// What attention makes of `queries`, which may be rounded: [row][head][element].
  func expected(_ stage: AttentionStage, queries: [Double]) -> [Double] {
    keys.indices.flatMap { sequence in
      let indices = rows.indices.filter { rows[$0].sequence == sequence }
      return ReferenceStages.attention(
        stage, queries: indices.flatMap { queries[$0 * queryWidth..<($0 + 1) * queryWidth] },
        positions: indices.map { Int(rows[$0].position) }, keys: keys[sequence], values: values[sequence])
    }
  }
}
