import CShaderInterface
import Kernels
import Transformer
import VulkanRuntime

/// Where a stage's queries, keys and values go, for tokens at random places of three sequences.
struct HeadOutputs {
  let stage: QueryKeyValueStage
  let pages: PageTable
  let queries: MemoryImage.Region
  let queryStride: Int
  /// Without counters.
  let extras: LinearExtrasData
  private let keys: MemoryImage.Region
  private let values: MemoryImage.Region
  private let scratch: MemoryImage.Region
  /// Where keys and values wait to be quantised.
  private let fresh: MemoryImage.Region?

  init(
    stage: QueryKeyValueStage, weights: DeviceStage.QueryKeyValue, tokenCount: Int,
    random: inout SeededRandom,
    image: inout MemoryImage
  ) {
    let heads = stage.heads
    self.stage = stage
    pages = PageTable(columnCount: tokenCount, pagesPerSequence: 5, &random)
    let cacheWords = pages.pageCount * pages.tokens * heads.kvHeadCount * heads.headSize / 2
    keys = image.addPoisoned(cacheWords)
    values = image.addPoisoned(cacheWords)
    queryStride = heads.headCount * heads.headSize
    queries = image.addPoisoned(tokenCount * queryStride)
    let scratchStride = (heads.headCount + heads.kvHeadCount) * heads.headSize
    scratch = image.addPoisoned(tokenCount * scratchStride)
    var extras = LinearExtrasData()
    extras.keys = keys.address
    extras.values = values.address
    extras.block_tables = image.add(pages.table).address
    extras.table_stride = UInt32(pages.pagesPerSequence)
    extras.rope = weights.rope
    extras.query_norm = weights.queryNorm
    extras.key_norm = weights.keyNorm
    extras.scratch = scratch.address
    extras.scratch_stride = UInt32(scratchStride)
    extras.head_count = UInt32(heads.headCount)
    extras.kv_head_count = UInt32(heads.kvHeadCount)
    extras.head_size = UInt32(heads.headSize)
    extras.rotated_size = UInt32(stage.rope.rotatedSize)
    extras.rope_magnitude = stage.rope.magnitude
    extras.norm_epsilon = stage.queryNorm?.epsilon ?? 0
    if CacheWriteKernel(heads: heads) != nil {
      let width = CacheWriteKernel.width(heads)
      let fresh = image.addPoisoned(tokenCount * width)
      extras.fresh = fresh.address
      extras.fresh_stride = UInt32(width)
      self.fresh = fresh
    } else {
      fresh = nil
    }
    self.extras = extras
  }

  /// Norms of heads, whose products are in the scratch.
  ///
  /// - Parameter extras: where the device finds `extras`.
  func recordNorms(
    _ commands: CommandBuffer, step: UInt64, extras: UInt64, rowCount: Int, bench: TestBench
  ) throws {
    var push = plain(HeadNormPush())
    push.outputs = queries.address
    push.output_stride = UInt32(queryStride)
    push.step = step
    push.extras = extras
    try HeadNormKernel().record(commands, push: push, rowCount: rowCount, cache: bench.cache)
  }

  var positions: [Int] { pages.rows.map { Int($0.position) } }

  /// Compares what was left with what the reference makes, whose heads are in the file's order.
  func comparisons(
    _ expected: (queries: [Double], keys: [Double], values: [Double]), _ outcome: inout Outcome,
    tolerance: Double, halfTolerance: Double
  ) -> [Comparison] {
    if stage.queryNorm != nil { outcome.ignore(scratch) }
    let order = PairOrder(headSize: stage.heads.headSize, rope: stage.rope)
    let foundQueries = expected.queries.indices.map { outcome.float(queries, $0) }
    let expectedQueries = expected.queries.indices.map {
      expected.queries[$0 / queryStride * queryStride + order.source($0 % queryStride)]
    }
    var found: [Double] = []
    var expectedCache: [Double] = []
    let kvWidth = stage.heads.kvHeadCount * stage.heads.headSize
    for (column, row) in pages.rows.enumerated() {
      for element in 0..<kvWidth {
        if let fresh {
          found.append(outcome.float(fresh, 2 * column * kvWidth + element))
          found.append(outcome.float(fresh, (2 * column + 1) * kvWidth + element))
        } else {
          let place = pages.place(of: row, element: element, heads: stage.heads)
          found.append(outcome.half(keys, place.key))
          found.append(outcome.half(values, place.value))
        }
        expectedCache.append(expected.keys[column * kvWidth + order.source(element)])
        expectedCache.append(expected.values[column * kvWidth + element])
      }
    }
    return [
      Comparison("queries", found: foundQueries, expected: expectedQueries, tolerance: tolerance),
      Comparison("keys and values", found: found, expected: expectedCache, tolerance: halfTolerance),
    ]
  }
}
