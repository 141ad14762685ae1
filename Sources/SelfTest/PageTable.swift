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
}
