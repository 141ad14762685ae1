import CShaderInterface
import Kernels
import ModelFiles
import Reference
import Transformer

/// The linear kernel: every format, every epilogue, every way to cut the work, odd sizes; against Reference's stages.
struct LinearChecks {
  let bench: TestBench

  func run() throws {
    for (formatIndex, type) in TensorType.allCases.enumerated() {
      guard bench.matches("linear \(type.name)") else { continue }
      try bench.report("linear \(type.name) loading") {
        var random = bench.random("linear \(type.name)")
        let stages = LinearStages(type: type, formatIndex: formatIndex, random: &random)
        for interleave in Set([1, bench.traits.rowInterleave]).sorted() {
          let model = try DeviceModel(
            program: stages.program, source: stages.source, cache: bench.cache, rowInterleave: interleave,
            onProgress: { _ in })
          for (stageIndex, (stage, weights)) in zip(stages.program.stages, model.stages).enumerated() {
            let name =
              "linear \(type.name) \(stages.names[stageIndex])" + (interleave == 1 ? "" : ", lanes are rows")
            let cuts =
              interleave == 1
              ? cuts(type: type, formatIndex: formatIndex, stageIndex: stageIndex, stage: stage)
              : interleavedCuts(formatIndex: formatIndex, stageIndex: stageIndex)
            for cut in cuts {
              let name =
                "\(name), columns \(cut.columnCount), \(cut.inputs) to \(cut.next)"
                + (cut.tiling.map { ", \($0.text)" } ?? "") + (cut.isNaive ? ", naive" : "")
                + (cut.tiles.map { ", \($0.text)" } ?? "")
              guard bench.wants(name) else { continue }
              let check = LinearCheck(
                bench: bench, name: name, reader: WeightReader(stages.source), columnCount: cut.columnCount,
                tiling: cut.tiling, inputs: cut.inputs, next: cut.next, isNaive: cut.isNaive, tiles: cut.tiles
              )
              try check.run(stage, weights)
            }
          }
          withExtendedLifetime(model) {}
        }
        return ([], 0, "")
      }
    }
  }

  private struct Cut {
    var columnCount: Int
    /// Nil: the kernel's own choice.
    var tiling: LinearTiling?
    var inputs: ProductForm
    var next: ProductForm
    var isNaive = false
    var tiles: LinearTileKernel.Tiling?
  }

  /// What is run of one stage whose matrices are interleaved: numbers of columns take turns.
  private func interleavedCuts(formatIndex: Int, stageIndex: Int) -> [Cut] {
    let turn = formatIndex + stageIndex
    guard turn % 2 == 0 else { return [] }
    return [
      Cut(
        columnCount: [1, 2, 3, 8, 17][(turn / 2 + formatIndex) % 5], tiling: nil, inputs: .floats,
        next: .floats)
    ]
  }

  /// What is run of one stage of one format. Tilings are dealt out in turn, so that all formats and epilogues
  /// together see each of them with each number of columns.
  private func cuts(type: TensorType, formatIndex: Int, stageIndex: Int, stage: Stage) -> [Cut] {
    let columnCounts = [1, 2, 3, 8, 9, 17]
    let turn = formatIndex * LinearStages.count + stageIndex
    let all = LinearTiling.possible(bench.traits)
    // Formats of small integers are multiplied as floats and as bytes.
    let hasBytes = WeightFormat.of(type).hasByteProducts && !stage.mixesFormats
    func inputs(_ turn: Int) -> ProductForm { hasBytes && turn % 2 == 0 ? .bytes : .floats }
    func next(_ turn: Int) -> ProductForm { ProductForm.allCases[turn % 3] }
    // Compiling takes most of the time: the kernel's own choice is left to every third.
    var cuts =
      turn % 3 == 0
      ? [
        Cut(
          columnCount: columnCounts[turn / 3 % columnCounts.count], tiling: nil, inputs: inputs(turn / 3),
          next: next(turn / 3))
      ] : []
    // Every epilogue of the plain kernel with several formats.
    if turn % 4 == 1 {
      cuts.append(
        Cut(columnCount: [1, 3, 9][turn / 4 % 3], tiling: nil, inputs: .floats, next: .floats, isNaive: true))
    }
    // CPU drivers get one stage of each format.
    if !bench.traits.isCPU || stageIndex == formatIndex % LinearStages.count {
      cuts += tileCuts(turn: turn, stage: stage, inputs: inputs(turn / 2), next: next(turn))
    }
    // Coprime steps through the list: one pass over all formats and stages takes in more than all tilings.
    // CPU drivers take long to compile: there, stages take turns from format to format.
    for part in 0..<(bench.traits.isCPU ? (formatIndex + stageIndex) % 2 : 2) {
      var tiling = all[(turn * 2 + part) * 7 % all.count]
      // Per-head norms need the rows of a workgroup to divide 16.
      if case .queryKeyValue(let stage) = stage, stage.queryNorm != nil {
        while tiling.groupRows > 16 { tiling.rows /= 2 }
      }
      let next = next(turn / 2 + part)
      if next == .bytes { tiling.own(rows: stage.rowsOfBlock) }
      // A full workgroup of columns, or fewer, or several of them.
      let counts = columnCounts.filter { (tiling.columns == 1) == ($0 <= 2) || $0 == tiling.columns }
      cuts.append(
        Cut(
          columnCount: counts[(turn + part) % counts.count], tiling: tiling, inputs: inputs(turn + part),
          next: next))
    }
    return cuts
  }
}

extension LinearChecks {
  /// Tiles in registers: formats and stages share out how they are cut.
  private func tileCuts(turn: Int, stage: Stage, inputs: ProductForm, next: ProductForm) -> [Cut] {
    let traits = bench.traits
    let all = LinearTileKernel.Tiling.possible(traits).filter {
      $0.tileRows.isMultiple(of: next == .bytes ? stage.rowsOfBlock : 2)
    }
    // Post norms are over widths that models have.
    if case .residualProjection(let stage) = stage, stage.postNorm != nil,
      !stage.weight.rows.count.isMultiple(of: 32)
    {
      return []
    }
    guard !all.isEmpty else { return [] }
    return [
      Cut(
        columnCount: [9, 17, 1, 33, 70][turn % 5], tiling: nil, inputs: inputs, next: next,
        tiles: all[turn % all.count])
    ]
  }
}

extension LinearTileKernel.Tiling {
  /// Those that the kernel chooses on some device, as far as there is room for them, and small ones.
  static func possible(_ traits: DeviceTraits) -> [LinearTileKernel.Tiling] {
    let small = [
      LinearTileKernel.Tiling(threads: 32, rows: 4, columns: 2, columnLanes: 2),
      LinearTileKernel.Tiling(threads: 32, rows: 2, columns: 4, columnLanes: 1),
      LinearTileKernel.Tiling(threads: 64, rows: 4, columns: 3, columnLanes: 4),
      LinearTileKernel.Tiling(threads: 64, rows: 8, columns: 2, columnLanes: 8),
    ]
    let large = traits.isCPU ? [] : LinearTileKernel.tilings
    return (small + large).filter { $0.fits(traits) }
  }
}

extension Stage {
  /// Whether the stage's matrices are of several formats.
  fileprivate var mixesFormats: Bool { Set(matrices.map(\.type)).count > 1 }

  /// Rows of a product that make one block of 32 outputs.
  fileprivate var rowsOfBlock: Int {
    switch self {
    case .gatedFeedForward: 64
    case .residualProjection(let stage): stage.postNorm == nil ? 32 : 2
    case .embed, .queryKeyValue, .attention, .logits, .collective: 2
    }
  }
}
