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
          heads: HeadLayout(
            headCount: headCount, kvHeadCount: kvHeadCount, headSize: headSize,
            cacheType: headSize.isMultiple(of: 32) && turn % 2 == 0 ? .q8_0 : .f16),
          tileRows: [1, 2, 4, 8, 3][turn % 5],
          contexts: [[300, 1], [33, 32, 31], [100], [257, 64]][turn % 4],
          window: [nil, 7, nil, 40, 150][turn % 5], softcap: [nil, 2, nil][turn % 3],
          splits: [1, 2, 1, 3, 5, 1, 2][(turn + turn / 7) % 7], threadScale: [1, 2, 4][(turn + turn / 3) % 3])
        turn += 1
        let rows = attempt.freshRows
        try check(attempt, kernel(attempt, rowCount: rows))
        if let lanes = lanesKernel(attempt) {
          var floats = attempt
          floats.takenAs = .floats
          try check(floats, lanes)
        }
        // CPU drivers, which do not choose the kernel, take minutes to compile its larger shapes.
        if bench.traits.canShuffle, !bench.traits.isCPU || (headSize <= 80 && headCount / kvHeadCount <= 2) {
          var single = attempt
          single.tileRows = 1
          if turn % 3 == 0 { single.takenAs = .halves }
          for isAhead in [false, true] {
            if let kernel = decodeKernel(single, isAhead: isAhead, turn: turn) { try check(single, kernel) }
          }
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
    /// What takes the outputs, where a kernel does not do for all.
    var takenAs: ProductForm?

    /// The last tokens of each sequence are the step's: prompts in pieces, or single tokens.
    var fresh: [Int] { contexts.map { min($0, tileRows == 1 ? 1 : 2 * tileRows + 1) } }
    var freshRows: Int { fresh.reduce(0, +) }
    /// What follows wants blocks of bytes where heads are whole blocks, every other time.
    var next: ProductForm {
      if let takenAs { return takenAs }
      return heads.headSize.isMultiple(of: 32) && (threadScale + splits).isMultiple(of: 2) ? .bytes : .floats
    }
  }

  /// One of the kernels, as far as a check is concerned.
  private struct Subject {
    var text: String
    var tileRows: Int
    var partialCount: Int
    /// Counters for so many tiles.
    var counterCount: (Int) -> Int
    var record: (CommandBuffer, AttentionPush, Int) throws -> Void
  }

  /// - Parameter isAhead: whether loads start a round ahead; nil where the heads do not allow it.
  private func decodeKernel(_ attempt: Attempt, isAhead: Bool, turn: Int) -> Subject? {
    var kernel = AttentionDecodeKernel(
      heads: attempt.heads, tokenCount: attempt.freshRows, isDeep: turn % 4 != 0, next: attempt.next,
      anyDevice: bench.traits)
    kernel.splits = attempt.splits
    kernel.subgroups = max(1, kernel.subgroups >> (turn % 3))
    kernel.leastRounds = 1 + turn % 5
    let lanes = AttentionDecodeKernel.Lanes(
      attempt.heads, group: kernel.group, isSingle: isAhead || turn % 3 == 1, isAhead: isAhead,
      subgroupSize: bench.traits.subgroupSize)
    if let lanes { kernel.lanes = lanes } else if isAhead { return nil }
    return Subject(
      text: "decode, group \(kernel.group), subgroups \(kernel.subgroups), splits \(kernel.splits), "
        + "key lanes \(kernel.lanes.keyLanes)\(kernel.lanes.isAhead ? " ahead" : "")",
      tileRows: 1,
      partialCount: kernel.partialCount(tokenCount: attempt.freshRows),
      counterCount: { $0 * kernel.headGroups }
    ) { [bench] commands, push, count in
      let chain = turn % 2 == 0 ? try StageChain(device: bench.device, stageCount: 1) : nil
      try kernel.record(
        commands, push: push, tokenCount: count, cache: bench.cache, chain: chain)
      chain?.keepAlive(commands)
    }
  }

  private func lanesKernel(_ attempt: Attempt) -> Subject? {
    guard
      let kernel = AttentionLanesKernel(
        heads: attempt.heads, tileRows: attempt.tileRows, traits: bench.traits)
    else { return nil }
    return Subject(
      text: "lanes, tile \(kernel.tileRows)x\(kernel.group), rounds \(kernel.rounds)",
      tileRows: kernel.tileRows, partialCount: 0, counterCount: { _ in 0 }
    ) { [bench] commands, push, count in
      try kernel.record(commands, push: push, tileCount: count, cache: bench.cache)
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
      try made.record(commands, push: push, tileCount: count, cache: bench.cache)
    }
  }

  private func check(_ attempt: Attempt, _ kernel: Subject) throws {
    let heads = attempt.heads
    let name =
      "attention head \(heads.headSize), \(heads.headCount)/\(heads.kvHeadCount) heads, contexts \(attempt.contexts), "
      + "\(heads.cacheType), " + kernel.text + ", to \(attempt.next)"
      + (attempt.window.map { ", window \($0)" } ?? "") + (attempt.softcap.map { ", softcap \($0)" } ?? "")
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    var image = bench.newImage()
    let scene = AttentionScene(
      heads: heads, contexts: attempt.contexts, fresh: attempt.fresh, tileRows: kernel.tileRows,
      random: &random, image: &image)
    let queryWidth = heads.headCount * heads.headSize
    let left = NextOutputs(
      form: attempt.next, width: queryWidth, rowCount: attempt.freshRows, squareCount: 0, norm: [],
      image: &image)
    let partials = image.addPoisoned(max(1, kernel.partialCount))
    let scale = 1 / Float(heads.headSize).squareRoot()
    var push = plain(AttentionPush())
    push.queries = scene.queryAddress
    push.keys = scene.keyAddress
    push.values = scene.valueAddress
    push.block_tables = scene.tableAddress
    push.table_stride = UInt32(scene.pagesPerSequence)
    push.step = scene.stepAddress
    push.tiles = scene.tileAddress
    push.outputs = left.values.address
    push.output_scales = left.scales.address
    push.output_width = left.arguments.width
    push.partials = partials.address
    // More tiles than the step has, as in a plan recorded for a larger one.
    let dispatched = scene.tileCount + 2
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
      let expected = scene.expected(stage, queries: scene.queries.map(Double.init))
      return left.comparisons(expected, &outcome, tolerance: 2e-5)
    }
  }
}
