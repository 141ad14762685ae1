import CShaderInterface
import Kernels
import ModelFiles
import Transformer

/// New keys and values into the pages of a q8_0 cache: as exact as blocks of signed bytes can be, whatever their size,
/// and nothing else of the pages changes.
struct CacheWriteChecks {
  let bench: TestBench

  func run() throws {
    let layouts = [(1, 32, 1), (3, 64, 5), (2, 96, 40), (8, 128, 7), (1, 256, 33)]
    for (turn, layout) in layouts.enumerated() {
      let heads = HeadLayout(
        headCount: layout.0, kvHeadCount: layout.0, headSize: layout.1, cacheType: .q8_0)
      guard let kernel = CacheWriteKernel(heads: heads) else { continue }
      try check(kernel, tokenCount: layout.2, isChained: turn % 2 == 1)
    }
  }

  private func check(_ kernel: CacheWriteKernel, tokenCount: Int, isChained: Bool) throws {
    let heads = kernel.heads
    let name =
      "cache write \(heads.kvHeadCount) heads of \(heads.headSize), \(tokenCount) tokens"
      + (isChained ? ", chained" : "")
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let pages = PageTable(columnCount: tokenCount, pagesPerSequence: 3, &random)
    let width = heads.kvHeadCount * heads.headSize
    // Blocks differ in size, and some are nothing but zeros.
    let inputs = random.normals(tokenCount * 2 * width).enumerated().map { index, value in
      value * [1, 300, 0.01, 0, 7][index / 32 % 5]
    }
    var image = bench.newImage()
    let cacheWords = pages.pageCount * KVCache.pageBytes(heads: heads) / 8
    let keys = image.addPoisoned(cacheWords)
    let values = image.addPoisoned(cacheWords)
    var push = plain(CacheWritePush())
    push.inputs = image.add(inputs).address
    push.keys = keys.address
    push.values = values.address
    push.block_tables = image.add(pages.table).address
    push.table_stride = UInt32(pages.pagesPerSequence)
    push.step = image.addStep(pages.rows).address
    try bench.check(name, image: image) { [bench] commands in
      let chain = isChained ? try StageChain(device: bench.device, stageCount: 1) : nil
      // More tokens than the step has, as in a plan recorded for a larger one.
      try kernel.record(
        commands, push: push, rowCount: tokenCount + 2, cache: bench.cache, chain: chain
      )
      chain?.keepAlive(commands)
    } compare: { outcome in
      var worst = 0.0
      var scaleError = 0.0
      var halves: Set<Int> = []
      for (column, row) in pages.rows.enumerated() {
        for element in 0..<2 * width {
          let place = pages.quantisedPlace(
            sequence: Int(row.sequence), position: Int(row.position), element: element % width, heads: heads)
          let isKey = element < width
          let region = isKey ? keys : values
          let byte = outcome.byte(region, isKey ? place.key : place.value)
          let scaleHalf = (isKey ? place.keyScale : place.valueScale) / 2
          let scale = outcome.half(region, scaleHalf)
          halves.insert((isKey ? 0 : 2 * cacheWords) + scaleHalf)
          let input = Double(inputs[column * 2 * width + element])
          let block = (column * 2 * width + element) / 32 * 32
          let largest = Double(inputs[block..<block + 32].reduce(0) { max($0, abs($1)) })
          if largest == 0 {
            worst = max(worst, abs(Double(byte) * scale))
          } else {
            worst = max(worst, abs(Double(byte) * scale - input) / scale)
            scaleError = max(scaleError, abs(scale * 127 / largest - 1))
          }
        }
      }
      // A word has the scales of two blocks: one that is not the step's must be as it was.
      let strays = halves.count { half in
        !halves.contains(half ^ 1)
          && outcome.halfBits(half < 2 * cacheWords ? keys : values, (half ^ 1) % (2 * cacheWords)) != 0x7fff
      }
      return [
        // Half a step, and what 127 steps are off by where the scale is a half.
        Comparison("steps from the input", value: worst, tolerance: 0.5 + 127.0 / 2048 + 1e-3),
        Comparison("scales", value: scaleError, tolerance: 1e-3),
        Comparison("scales of others", value: Double(strays), tolerance: 0),
      ]
    }
  }
}
