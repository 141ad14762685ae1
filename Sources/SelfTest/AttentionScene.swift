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
    queryWidth = heads.headCount * heads.headSize
    queries = random.normals(rows.count * queryWidth)
    var keys: [[Double]] = []
    var values: [[Double]] = []
    var cache = CacheImage(heads: heads, pages: pages)
    for (sequence, context) in contexts.enumerated() {
      let (sequenceKeys, sequenceValues) = cache.fill(sequence: sequence, positions: context, &random)
      keys.append(sequenceKeys)
      values.append(sequenceValues)
    }
    self.keys = keys
    self.values = values

    let step = StepContents(rows: rows, outputs: [], samples: [], tileRows: tileRows)
    tileCount = step.tiles.count
    queryAddress = image.add(queries).address
    keyAddress = image.add(structs: cache.keys).address
    valueAddress = image.add(structs: cache.values).address
    tableAddress = image.add(pages.table).address
    stepAddress = image.addStep(rows, tileCount: step.tiles.count).address
    // Plans have room for as many tiles as they dispatch, whatever a step has.
    tileAddress = image.add(structs: step.tiles + [plain(AttentionTile()), plain(AttentionTile())]).address
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

/// The pages of a KV cache as the host fills them.
private struct CacheImage {
  let heads: HeadLayout
  let pages: PageTable
  private(set) var keys: [UInt8]
  private(set) var values: [UInt8]

  /// Pages of NaNs.
  init(heads: HeadLayout, pages: PageTable) {
    self.heads = heads
    self.pages = pages
    let count = pages.pageCount * KVCache.pageBytes(heads: heads) / 2
    // Halves of a poisoned word.
    keys = (0..<count).map { UInt8(truncatingIfNeeded: MemoryImage.poison >> (8 * UInt32($0 % 2))) }
    values = keys
  }

  /// Random keys and values, [position][kv head][element], as the cache rounds them.
  mutating func fill(
    sequence: Int, positions: Int, _ random: inout SeededRandom
  ) -> (keys: [Double], values: [Double]) {
    let width = heads.kvHeadCount * heads.headSize
    let newKeys = random.normals(positions * width)
    let newValues = random.normals(positions * width)
    var rounded = (keys: [Double](), values: [Double]())
    for index in newKeys.indices {
      let (position, element) = index.quotientAndRemainder(dividingBy: width)
      switch heads.cacheType {
      case .f16:
        let place = pages.place(sequence: sequence, position: position, element: element, heads: heads)
        rounded.keys.append(Self.store(newKeys[index].halfBits, at: 2 * place.key, in: &keys))
        rounded.values.append(Self.store(newValues[index].halfBits, at: 2 * place.value, in: &values))
      case .q8_0:
        let place = pages.quantisedPlace(
          sequence: sequence, position: position, element: element, heads: heads)
        // A block's scale is any: that of its first element.
        let block = index / 32 * 32
        let keyScale = (abs(newKeys[block]) / 64 + 0.01).halfBits
        let valueScale = (abs(newValues[block]) / 64 + 0.01).halfBits
        let key = Self.store(newKeys[index], at: place.key, in: &keys)
        let value = Self.store(newValues[index], at: place.value, in: &values)
        rounded.keys.append(key * Self.store(keyScale, at: place.keyScale, in: &keys))
        rounded.values.append(value * Self.store(valueScale, at: place.valueScale, in: &values))
      }
    }
    return rounded
  }

  private static func store(_ half: UInt16, at byte: Int, in bytes: inout [UInt8]) -> Double {
    bytes[byte] = UInt8(truncatingIfNeeded: half)
    bytes[byte + 1] = UInt8(half >> 8)
    return Double(Float(half: half))
  }

  /// A normal number as a signed byte.
  private static func store(_ normal: Float, at byte: Int, in bytes: inout [UInt8]) -> Double {
    let rounded = Int8(max(-127, min(127, (normal * 50).rounded())))
    bytes[byte] = UInt8(bitPattern: rounded)
    return Double(rounded)
  }
}
