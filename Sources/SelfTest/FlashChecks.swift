import CShaderInterface
import Kernels
import ModelFiles
import Transformer

/// Attention on matrix units, where there are any: head sizes, groups, prompts that start anywhere and end within a
/// tile, several of them in a step, windows, softcap.
struct FlashChecks {
  let bench: TestBench

  /// Queries, weights and outputs are halves of 11 bits, which drivers round as they like.
  private static let tolerance = 1e-3

  private struct Attempt {
    var heads: HeadLayout
    /// Tokens of each sequence, with those of the step, and how many those are.
    var contexts: [Int]
    var fresh: [Int]
    var window: Int?
    var softcap: Float?
  }

  func run() throws {
    guard let units = MatrixUnits(bench.device.capabilities) else { return }
    let layouts = [(1, 1), (2, 1), (6, 2), (4, 1), (2, 2)]
    let sequences: [(contexts: [Int], fresh: [Int])] = [
      ([300], [70]), ([33, 32, 31], [33, 5, 31]), ([100], [100]), ([257, 64, 1], [20, 64, 1]), ([129], [65]),
      ([160], [32]),
    ]
    var turn = 0
    for headSize in [16, 64, 80, 96, 128, 256] {
      // CPU drivers take minutes to compile the larger sizes.
      if bench.traits.isCPU, headSize > 64 { continue }
      for _ in 0..<6 {
        let (headCount, kvHeadCount) = layouts[turn % layouts.count]
        // Each list has its own period, so that every value meets others in each head size.
        let (contexts, fresh) = sequences[turn % sequences.count]
        let attempt = Attempt(
          heads: HeadLayout(
            headCount: headCount, kvHeadCount: kvHeadCount, headSize: headSize,
            cacheType: headSize.isMultiple(of: 32) && turn % 2 == 0 ? .q8_0 : .f16),
          contexts: contexts, fresh: fresh, window: [nil, 7, nil, 40, 150, nil, 33][turn % 7],
          softcap: [nil, 2, nil, nil][turn % 4])
        turn += 1
        guard var kernel = FlashAttentionKernel(heads: attempt.heads, units: units, traits: bench.traits)
        else {
          continue
        }
        // Where the other way is not too much for the device, it is checked as well.
        if turn % 3 == 0, headSize <= 16 || !bench.traits.isCPU {
          kernel.holdsQueries.toggle()
          if !kernel.fits(bench.traits) { kernel.holdsQueries.toggle() }
        }
        try check(attempt, kernel)
      }
    }
  }

  private func check(_ attempt: Attempt, _ kernel: FlashAttentionKernel) throws {
    let heads = attempt.heads
    let name =
      "flash head \(heads.headSize), \(heads.headCount)/\(heads.kvHeadCount) heads, contexts \(attempt.contexts), "
      + "\(heads.cacheType), "
      + "last \(attempt.fresh), subgroups \(kernel.subgroups), block \(kernel.block)"
      + (kernel.holdsQueries ? "" : ", shared queries")
      + (attempt.window.map { ", window \($0)" } ?? "") + (attempt.softcap.map { ", softcap \($0)" } ?? "")
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    var image = bench.newImage()
    let scene = AttentionScene(
      heads: heads, contexts: attempt.contexts, fresh: attempt.fresh, tileRows: kernel.tileRows,
      random: &random, image: &image)
    let outputs = HalfRows(
      rowCount: scene.rows.count, width: heads.headCount * heads.headSize, image: &image)
    let scale = 1 / Float(heads.headSize).squareRoot()
    var push = plain(FlashPush())
    push.queries = scene.queryAddress
    push.keys = scene.keyAddress
    push.values = scene.valueAddress
    push.block_tables = scene.tableAddress
    push.table_stride = UInt32(scene.pagesPerSequence)
    push.step = scene.stepAddress
    push.tiles = scene.tileAddress
    push.outputs = outputs.region.address
    push.output_stride = UInt32(outputs.stride)
    push.window = UInt32(attempt.window ?? 0)
    push.scale = scale
    push.softcap = attempt.softcap ?? 0
    try bench.check(name, image: image) { commands in
      // More tiles than the step has, as in a plan recorded for a larger one.
      try kernel.record(
        commands, push: push, tileCount: scene.tileCount + 2, cache: bench.cache)
    } compare: { outcome in
      let stage = AttentionStage(
        layer: 0, heads: heads, scale: scale, window: attempt.window, softcap: attempt.softcap)
      // The kernel rounds queries when the scale, and what makes powers of e powers of two, is in them.
      let factor = scale * 1.442_695
      let queries = scene.queries.map { Double(Float(half: ($0 * factor).halfBits)) / Double(factor) }
      let expected = scene.expected(stage, queries: queries)
      return [Comparison(found: outputs.values(&outcome), expected: expected, tolerance: Self.tolerance)]
    }
  }
}
