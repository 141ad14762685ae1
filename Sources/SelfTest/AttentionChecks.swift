import CShaderInterface
import Kernels
import ModelFiles
import Reference
import Transformer
import VulkanRuntime

/// The attention kernel over scattered pages: head sizes, groups, tiles, contexts of several blocks, windows,
/// softcap, and workgroups that share positions.
struct AttentionChecks {
  let bench: TestBench

  func run() throws {
    let layouts = [(1, 1), (2, 1), (6, 2), (4, 1), (8, 1), (16, 1), (4, 2)]
    var turn = 0
    for headSize in [16, 64, 80, 96, 128, 256] {
      for (headCount, kvHeadCount) in layouts {
        // Coprime cycles: every value meets every other.
        let attempt = Attempt(
          heads: HeadLayout(headCount: headCount, kvHeadCount: kvHeadCount, headSize: headSize),
          tileRows: [1, 2, 4, 8, 3][turn % 5],
          contexts: [[300, 1], [33, 32, 31], [100], [257, 64]][turn % 4],
          window: [nil, 7, nil, 40, 150][turn % 5], softcap: [nil, 2, nil][turn % 3],
          splits: [1, 2, 1, 3, 5, 1, 2][(turn + turn / 7) % 7], threadScale: [1, 2, 4][(turn + turn / 3) % 3])
        turn += 1
        let rows = attempt.freshRows
        try check(attempt, kernel(attempt, rowCount: rows))
        // CPU drivers, which do not choose the kernel, take minutes to compile its larger shapes.
        if bench.traits.canShuffle, !bench.traits.isCPU || (headSize <= 80 && headCount / kvHeadCount <= 4) {
          var single = attempt
          single.tileRows = 1
          try check(single, decodeKernel(single, turn: turn))
        }
      }
    }
  }

  private struct Attempt {
    var heads: HeadLayout
    var tileRows: Int
    /// Tokens of each sequence, with those of the step.
    var contexts: [Int]
    var window: Int?
    var softcap: Float?
    var splits: Int
    /// Workgroups of about this many times as many invocations as they must have.
    var threadScale: Int

    /// The last tokens of each sequence are the step's: prompts in pieces, or single tokens.
    var fresh: [Int] { contexts.map { min($0, tileRows == 1 ? 1 : 2 * tileRows + 1) } }
    var freshRows: Int { fresh.reduce(0, +) }
    /// What follows wants blocks of bytes every other time.
    var next: ProductForm {
      (threadScale + splits).isMultiple(of: 2) ? .bytes : .floats
    }
  }

  /// One of the two kernels, as far as a check is concerned.
  private struct Subject {
    var text: String
    var tileRows: Int
    var partialCount: Int
    /// Counters for so many tiles.
    var counterCount: (Int) -> Int
    var record: (CommandBuffer, AttentionPush, Int) throws -> Void
  }

  private func decodeKernel(_ attempt: Attempt, turn: Int) -> Subject {
    var kernel = AttentionDecodeKernel(
      heads: attempt.heads, tokenCount: attempt.freshRows, isDeep: turn % 4 != 0, next: attempt.next,
      anyDevice: bench.traits)
    kernel.splits = attempt.splits
    kernel.subgroups = max(1, kernel.subgroups >> (turn % 3))
    return Subject(
      text: "decode, group \(kernel.group), subgroups \(kernel.subgroups), splits \(kernel.splits)",
      tileRows: 1,
      partialCount: kernel.partialCount(tokenCount: attempt.freshRows),
      counterCount: { $0 * kernel.headGroups }
    ) { [bench] commands, push, count in
      try kernel.record(commands, push: push, tokenCount: count, cache: bench.cache, traits: bench.traits)
    }
  }

  private func kernel(_ attempt: Attempt, rowCount: Int) -> Subject {
    let traits = bench.traits
    var kernel = AttentionKernel(
      heads: attempt.heads, tileRows: attempt.tileRows, rowCount: rowCount, next: attempt.next, traits: traits
    )
    kernel.splits = attempt.splits
    let least = max(traits.subgroupSize, attempt.heads.headSize / 8)
    let rounded = (least + traits.subgroupSize - 1) / traits.subgroupSize * traits.subgroupSize
    // No more than the kernel's own choice needs in shared memory, on devices that have little.
    let most = max(rounded, kernel.threads)
    kernel.threads = traits.invocations(min(rounded * attempt.threadScale, most))
    let made = kernel
    return Subject(
      text: "tile \(made.tileRows)x\(made.group), threads \(made.threads), splits \(made.splits)",
      tileRows: made.tileRows, partialCount: made.partialCount(rowCount: rowCount),
      counterCount: { made.counterCount(tileCount: $0) }
    ) { [bench] commands, push, count in
      try made.record(commands, push: push, tileCount: count, cache: bench.cache, traits: bench.traits)
    }
  }

  /// Names a struct's conformance in this module. Swift 6.3.1, building with tests, does not find that of an imported
  /// struct when only code inlined from another module needs it, and crashes.
  private static func plain<Value: BitwiseCopyable>(_ value: Value) -> Value { value }

  private func check(_ attempt: Attempt, _ kernel: Subject) throws {
    let heads = attempt.heads
    let fresh = attempt.fresh
    let rowCount = attempt.freshRows
    let name =
      "attention head \(heads.headSize), \(heads.headCount)/\(heads.kvHeadCount) heads, contexts \(attempt.contexts), "
      + kernel.text + ", to \(attempt.next)"
      + (attempt.window.map { ", window \($0)" } ?? "") + (attempt.softcap.map { ", softcap \($0)" } ?? "")
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    var rows: [StepRow] = []
    for (sequence, (context, fresh)) in zip(attempt.contexts, fresh).enumerated() {
      rows += (context - fresh..<context).map {
        StepRow(token: 0, position: UInt32($0), sequence: UInt32(sequence), output_row: 0)
      }
    }
    let pages = PageTable(sequenceCount: attempt.contexts.count, pagesPerSequence: 10, rows: rows, &random)
    let kvWidth = heads.kvHeadCount * heads.headSize
    let queryWidth = heads.headCount * heads.headSize
    let queries = random.normals(rowCount * queryWidth)
    // [sequence][position][kv head][element], as the cache rounds them; and what the cache holds.
    var keys: [[Double]] = []
    var values: [[Double]] = []
    let cacheHalves = pages.pageCount * pages.tokens * kvWidth
    var keyHalves = [UInt16](repeating: UInt16(MemoryImage.poison >> 16), count: cacheHalves)
    var valueHalves = keyHalves
    for (sequence, context) in attempt.contexts.enumerated() {
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

    let step = StepContents(rows: rows, outputs: [], samples: [], tileRows: kernel.tileRows)
    var image = bench.newImage()
    let left = NextOutputs(
      form: attempt.next, width: queryWidth, rowCount: rowCount, squareCount: 0, norm: [], image: &image)
    let partials = image.addPoisoned(max(1, kernel.partialCount))
    let scale = 1 / Float(heads.headSize).squareRoot()
    var push = Self.plain(AttentionPush())
    push.queries = image.add(queries).address
    push.keys = image.add(structs: keyHalves).address
    push.values = image.add(structs: valueHalves).address
    push.block_tables = image.add(pages.table).address
    push.table_stride = UInt32(pages.pagesPerSequence)
    push.step = image.addStep(rows, tileCount: step.tiles.count).address
    push.tiles = image.add(structs: step.tiles).address
    push.outputs = left.values.address
    push.output_scales = left.scales.address
    push.output_width = left.arguments.width
    push.partials = partials.address
    // More tiles than the step has, as in a plan recorded for a larger one.
    let dispatched = step.tiles.count + 2
    push.counters =
      image.add([UInt32](repeating: 0, count: max(1, kernel.counterCount(dispatched)))).address
    push.head_count = UInt32(heads.headCount)
    push.kv_head_count = UInt32(heads.kvHeadCount)
    push.window = UInt32(attempt.window ?? 0)
    push.scale = scale
    push.softcap = attempt.softcap ?? 0
    try bench.check(name, image: image) { commands in
      try kernel.record(commands, push, dispatched)
    } compare: { outcome in
      outcome.ignore(partials)
      let stage = AttentionStage(
        layer: 0, heads: heads, scale: scale, window: attempt.window, softcap: attempt.softcap)
      var expected: [Double] = []
      for sequence in attempt.contexts.indices {
        let indices = rows.indices.filter { rows[$0].sequence == sequence }
        expected += ReferenceStages.attention(
          stage,
          queries: indices.flatMap { queries[$0 * queryWidth..<($0 + 1) * queryWidth] }.map(Double.init),
          positions: indices.map { Int(rows[$0].position) }, keys: keys[sequence], values: values[sequence])
      }
      return left.comparisons(expected, &outcome, tolerance: 2e-5)
    }
  }
}
