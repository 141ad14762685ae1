import CShaderInterface
import Kernels
import Transformer

/// A KV cache's pages, in random order, of a few sequences.
struct PageTable {
  let tokens = KVCache.pageTokens
  let pagesPerSequence: Int
  let pageCount: Int
  /// [sequence][pagesPerSequence] page numbers.
  let table: [UInt32]
  /// The step's tokens.
  let rows: [StepRow]

  init(sequenceCount: Int, pagesPerSequence: Int, rows: [StepRow], _ random: inout SeededRandom) {
    self.pagesPerSequence = pagesPerSequence
    // Some pages are nobody's.
    pageCount = sequenceCount * pagesPerSequence + 3
    table = Array((0..<UInt32(pageCount)).shuffled(using: &random).prefix(sequenceCount * pagesPerSequence))
    self.rows = rows
  }

  /// `columnCount` tokens at different places of three sequences.
  init(columnCount: Int, pagesPerSequence: Int, _ random: inout SeededRandom) {
    let positions = pagesPerSequence * KVCache.pageTokens
    let places = (0..<3 * positions).shuffled(using: &random).prefix(columnCount)
    let rows = places.map {
      StepRow(token: 0, position: UInt32($0 % positions), sequence: UInt32($0 / positions), output_row: 0)
    }
    self.init(sequenceCount: 3, pagesPerSequence: pagesPerSequence, rows: rows, &random)
  }

  /// Where an element of all kv heads of a token lies, in halves: see `KVCache`.
  func place(of row: StepRow, element: Int, heads: HeadLayout) -> (key: Int, value: Int) {
    place(sequence: Int(row.sequence), position: Int(row.position), element: element, heads: heads)
  }

  func place(sequence: Int, position: Int, element: Int, heads: HeadLayout) -> (key: Int, value: Int) {
    let page = Int(table[sequence * pagesPerSequence + position / tokens])
    let slot = position % tokens
    let (head, inHead) = element.quotientAndRemainder(dividingBy: heads.headSize)
    let start = (page * heads.kvHeadCount + head) * heads.headSize * tokens
    return (start + (inHead / 8 * tokens + slot) * 8 + inHead % 8, start + slot * heads.headSize + inHead)
  }

  /// The same in a q8_0 cache, in bytes: elements, and the scales of their blocks.
  func quantisedPlace(sequence: Int, position: Int, element: Int, heads: HeadLayout) -> QuantisedPlace {
    let page = Int(table[sequence * pagesPerSequence + position / tokens])
    let slot = position % tokens
    let (head, inHead) = element.quotientAndRemainder(dividingBy: heads.headSize)
    let start = (page * heads.kvHeadCount + head) * heads.cacheType.byteCount(heads.headSize) * tokens
    let scales = start + heads.headSize * tokens
    return QuantisedPlace(
      key: start + (inHead / 16 * tokens + slot) * 16 + inHead % 16,
      keyScale: scales + 2 * (inHead / 32 * tokens + slot),
      value: start + slot * heads.headSize + inHead,
      valueScale: scales + 2 * (slot * heads.headSize / 32 + inHead / 32))
  }

  struct QuantisedPlace {
    var key: Int
    var keyScale: Int
    var value: Int
    var valueScale: Int
  }
}
