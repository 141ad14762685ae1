import Kernels
import ModelFiles
import Reference
import Transformer

/// The matrix kernel, where there are matrix units: every format, every epilogue, every way to cut the work, sizes
/// that are no multiples of tiles; against Reference's stages.
struct MatrixChecks {
  let bench: TestBench
  /// How fragments lie in registers; nil where that cannot be made use of.
  private let layout: FragmentLayout?
  /// What multiplies bytes, where there is something that does.
  private let byteUnits: MatrixUnits?

  init(bench: TestBench) throws {
    self.bench = bench
    byteUnits = try FragmentProbe.byteUnits(device: bench.device, subgroupSize: bench.traits.subgroupSize)
    layout = try FragmentProbe.layout(device: bench.device, subgroupSize: bench.traits.subgroupSize)
  }

  func run() throws {
    guard let units = MatrixUnits(bench.device.capabilities) else { return }
    for (formatIndex, type) in TensorType.allCases.enumerated() {
      guard bench.matches("matrix \(type.name)") else { continue }
      try bench.report("matrix \(type.name) loading") {
        var random = bench.random("matrix \(type.name)")
        let stages = LinearStages(
          type: type, formatIndex: formatIndex, onMatrixUnits: true, random: &random)
        let model = try DeviceModel(
          program: stages.program, source: stages.source, cache: bench.cache, rowInterleave: 1,
          onProgress: { _ in })
        let tilings = MatrixTiling.possible(.of(type), units, bench.traits)
        let reader = WeightReader(stages.source, roundsToHalf: true)
        let exactReader = WeightReader(stages.source, roundsToHalf: false)
        for (stageIndex, (stage, weights)) in zip(stages.program.stages, model.stages).enumerated() {
          if type == .q8_0, case .gatedFeedForward = stage {
            try checkLarge(stage, weights, name: stages.names[stageIndex], units: units, reader: reader)
          }
          // CPU drivers take seconds to compile each kernel: formats share out the stages there.
          if bench.traits.isCPU, stageIndex != formatIndex % LinearStages.count { continue }
          for cut in cuts(formatIndex: formatIndex, stageIndex: stageIndex, tilings: tilings)
          where weights.matrices.allSatisfy({ cut.cut.takes($0.format) }) {
            let name =
              "matrix \(type.name) \(stages.names[stageIndex]), tokens \(cut.tokenCount)\(cut.cut.text)"
            guard bench.wants(name) else { continue }
            let check = MatrixCheck(
              bench: bench, units: units, name: name, reader: cut.cut.roundsToHalf ? reader : exactReader,
              tokenCount: cut.tokenCount, cut: cut.cut,
              isMadeOfHalves: cut.cut.roundsToHalf && type.isMadeOfHalves)
            try check.run(stage, weights)
          }
        }
        withExtendedLifetime(model) {}
        return ([], 0, "")
      }
    }
  }

  /// Hidden vectors far beyond what float16 holds, some even after they are made smaller.
  private func checkLarge(
    _ stage: Stage, _ weights: DeviceStage, name stageName: String, units: MatrixUnits, reader: WeightReader
  ) throws {
    for magnitude: Float in [300, 3000] {
      let name = "matrix q8_0 \(stageName), inputs x \(magnitude)"
      guard bench.wants(name) else { continue }
      let check = MatrixCheck(
        bench: bench, units: units, name: name, reader: reader, tokenCount: 9,
        cut: .staged(MatrixTiling.possible(.of(.q8_0), units, bench.traits)[0]), isMadeOfHalves: false,
        magnitude: magnitude)
      try check.run(stage, weights)
    }
  }

  private struct Cut {
    var tokenCount: Int
    var cut: MatrixCheck.Cut
  }

  /// What is run of one stage of one format, dealt out in turn.
  private func cuts(formatIndex: Int, stageIndex: Int, tilings: [MatrixTiling]) -> [Cut] {
    let tokenCounts = [1, 9, 17, 33, 70]
    func cut(_ turn: Int) -> Cut {
      Cut(tokenCount: tokenCounts[(turn + turn / 5) % 5], cut: .staged(tilings[turn % tilings.count]))
    }
    let turn = formatIndex * LinearStages.count + stageIndex
    let direct = directTilings(TensorType.allCases[formatIndex])
    let directCuts =
      layout.map { layout in
        direct.indices.map { index in
          Cut(
            tokenCount: tokenCounts[(turn + index) % 5],
            cut: .direct(layout, direct[(turn + index) % direct.count]))
        }
      } ?? []
    // Parts of a product come one after the other, of which several workgroups may share inputs.
    let dequantized =
      DequantizeKernel.takes(.of(TensorType.allCases[formatIndex]))
      ? [
        Cut(
          tokenCount: tokenCounts[(turn + 2) % 5],
          cut: .dequantized(tilings[turn % tilings.count], rowsAtOnce: [32, 4096, 64][turn % 3]))
      ] : []
    let format = WeightFormat.of(TensorType.allCases[formatIndex])
    var byteCuts: [Cut] = []
    // A CPU driver's compiler takes seconds for each: a format with minima and one without will do.
    let isWanted =
      bench.traits.isCPU ? [.q4_1, .q8_0].contains(format.type) : MatrixKernel.multipliesBytes(format)
    if let byteUnits, isWanted {
      let tilings = MatrixTiling.possible(format, byteUnits, bench.traits)
      byteCuts = (0..<2).map {
        Cut(
          tokenCount: tokenCounts[(turn + 3 + $0) % 5],
          cut: .bytes(byteUnits, tilings[(2 * turn + $0) % tilings.count]))
      }
    }
    if bench.traits.isCPU {
      // Formats with long chunks take a CPU driver's compiler a minute.
      return [cut(formatIndex + formatIndex / LinearStages.count)] + dequantized
        + directCuts.prefix(format.chunk <= 16 ? 1 : 0) + byteCuts.prefix(1)
    }
    let own = Cut(tokenCount: tokenCounts[turn / 3 % 5], cut: .own)
    return (0..<3).map { cut(3 * turn + $0) } + dequantized + directCuts.prefix(2) + byteCuts
      + (turn % 3 == 0 ? [own] : [])
  }

  /// Ways to cut the kernel without shared memory: one fragment or several, along rows and tokens, alone or shared.
  private func directTilings(_ type: TensorType) -> [DirectMatrixKernel.Tiling] {
    guard let layout, DirectMatrixKernel.takes(.of(type)) else { return [] }
    let cuts = [
      (1, 1, 1, 1, 1), (2, 1, 1, 2, 1), (1, 3, 1, 1, 2), (1, 2, 2, 2, 1), (2, 4, 1, 4, 2), (4, 2, 2, 1, 1),
      (1, 8, 1, 8, 1), (8, 1, 2, 8, 1),
    ]
    return cuts.map {
      DirectMatrixKernel.Tiling(
        rowSubgroups: $0.0, split: $0.1, rowFragments: $0.2, tokenFragments: $0.3, unroll: $0.4)
    }.filter {
      DirectMatrixKernel.fits($0, layout, bench.traits)
        && (!bench.traits.isCPU || $0.tokenFragments * $0.rowFragments <= 2)
    }
  }
}

extension MatrixTiling {
  /// Every tiling that the kernel chooses for a format on a device, and smaller ones; each with a split and a band.
  static func possible(
    _ format: WeightFormat, _ units: MatrixUnits, _ traits: DeviceTraits
  ) -> [MatrixTiling] {
    let small = [
      MatrixTiling(rowSubgroups: 1, tokenSubgroups: 1, rowFragments: 1, tokenFragments: 1, step: 32),
      MatrixTiling(rowSubgroups: 2, tokenSubgroups: 1, rowFragments: 1, tokenFragments: 1, step: 64),
      MatrixTiling(rowSubgroups: 1, tokenSubgroups: 2, rowFragments: 2, tokenFragments: 1, step: 32),
      MatrixTiling(rowSubgroups: 2, tokenSubgroups: 3, rowFragments: 1, tokenFragments: 1, step: 128),
    ]
    let all = (small + MatrixTilingChoice(format: format, units: units, traits: traits).all).filter {
      $0.fits(units, traits)
    }
    return (0..<all.count * 3 / 2).map { index in
      var tiling = all[index % all.count]
      tiling.split = [1, 3, 1, 2, 8][index % 5]
      tiling.band = [1, 2, 1, 3][index % 4]
      return tiling
    }
  }
}

extension TensorType {
  /// Whether blocks have a minimum, or a scale that is itself a small integer times a scale.
  fileprivate var isMadeOfHalves: Bool { [.q4_1, .q5_1, .q2_k, .q3_k, .q4_k, .q5_k, .q6_k].contains(self) }
}
