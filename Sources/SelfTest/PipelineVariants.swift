import CShaderInterface
import Kernels
import ModelFiles
import Transformer

/// A pipeline that the engine may ask for: a shader with its specialization constants.
struct PipelineVariant: Hashable {
  var shader: String
  var specialization: [UInt32]
  var pushConstantBytes: Int
  /// What the constants stand for.
  var text: String
}

/// Every pipeline variant that the engine chooses on a device for the shapes that models have; none of the device's
/// memory is needed.
struct PipelineVariants {
  let traits: DeviceTraits

  var all: [PipelineVariant] {
    TensorType.allCases.flatMap { [repack($0), random($0), embed($0)] + linear($0) } + attention + outputs
  }

  private func repack(_ type: TensorType) -> PipelineVariant {
    PipelineVariant(
      shader: "repack.\(type.name)", specialization: [UInt32(traits.invocations(64))],
      pushConstantBytes: MemoryLayout<RepackPush>.size, text: "")
  }

  private func random(_ type: TensorType) -> PipelineVariant {
    PipelineVariant(
      shader: "random", specialization: RandomKernel.specialization(type, traits: traits),
      pushConstantBytes: MemoryLayout<RandomPush>.size, text: type.name)
  }

  private func embed(_ type: TensorType) -> PipelineVariant {
    PipelineVariant(
      shader: "embed.\(type.name)", specialization: [UInt32(traits.invocations(64))],
      pushConstantBytes: MemoryLayout<EmbedPush>.size, text: "")
  }

  private var outputs: [PipelineVariant] {
    let threads = traits.invocations(traits.isCPU ? 32 : 1024)
    return [OutputKernel.sample, .score].map { kernel in
      PipelineVariant(
        shader: kernel.rawValue, specialization: [UInt32(threads), UInt32(threads / traits.subgroupSize)],
        pushConstantBytes: MemoryLayout<SamplePush>.size, text: "threads \(threads)")
    }
  }

  // MARK: Linear

  /// What a stage asks of the kernel.
  private struct Use {
    var epilogue: LinearKernel.Epilogue
    var hasNorm = false
    var hasBias = false
    var gathers = false
    var activation = ACTIVATION_SILU
    var text: String
  }

  private static let uses = [
    Use(epilogue: .store, hasNorm: true, gathers: true, text: "logits"),
    Use(epilogue: .residual, text: "residual"),
    Use(epilogue: .residual, hasBias: true, text: "residual bias"),
    Use(epilogue: .residualNorm, text: "residual post-norm"),
    Use(epilogue: .gated, hasNorm: true, text: "gated silu"),
    Use(epilogue: .gated, hasNorm: true, activation: ACTIVATION_GELU_TANH, text: "gated gelu"),
    Use(epilogue: .queryKeyValue, hasNorm: true, text: "qkv"),
    Use(epilogue: .queryKeyValue, hasNorm: true, hasBias: true, text: "qkv bias"),
    Use(epilogue: .queryKeyValueNorm, hasNorm: true, text: "qkv head norms"),
  ]

  private func linear(_ type: TensorType) -> [PipelineVariant] {
    Self.uses.flatMap { use in
      tilings.filter { isPlausible($0, type, use.epilogue) }.map { tiling in
        PipelineVariant(
          shader: "linear.\(type.name)",
          specialization: [
            UInt32(tiling.subgroups * traits.subgroupSize), UInt32(tiling.subgroups), UInt32(tiling.split),
            UInt32(tiling.rows), UInt32(tiling.columns), use.epilogue.rawValue, use.hasNorm ? 1 : 0,
            use.hasBias ? 1 : 0, use.gathers ? 1 : 0, use.activation,
          ],
          pushConstantBytes: MemoryLayout<LinearPush>.size, text: "\(use.text), \(tiling.text)")
      }
    }
  }

  /// The results of `LinearKernel.tiling` for any matrix: rows are spread out first, then the inputs are split.
  var tilings: [LinearTiling] {
    [1, 2, 4, 8].flatMap { columns -> [LinearTiling] in
      guard !traits.isCPU else {
        return (columns == 1 ? [24, 16] : [16]).map { rows in
          LinearTiling(subgroups: 1, split: 1, rows: rows, columns: columns)
        }
      }
      let cuts = [(4, 1), (2, 1), (1, 1), (1, 2), (1, 4), (1, 8)].filter { columns < 8 || $0.0 < 4 }
      return cuts.map { rows, split in
        var subgroups = max(traits.usualSubgroups, split)
        while subgroups / split * rows < 2 { subgroups *= 2 }
        return LinearTiling(subgroups: subgroups, split: split, rows: rows, columns: columns)
      }
    }.filter { $0.subgroups * traits.subgroupSize <= traits.maxWorkgroupInvocations }
  }

  /// Whether models have matrices that are cut so: inputs are split only where they are many and rows are few.
  private func isPlausible(_ tiling: LinearTiling, _ type: TensorType, _ epilogue: LinearKernel.Epilogue)
    -> Bool
  {
    guard tiling.split > 1 else { return true }
    let leastColumns = tiling.split * WeightFormat.of(type).chunk * traits.subgroupSize
    let mostRows = 2 * traits.wantedSubgroups / tiling.split
    // Only projections back into the residual stream have far more columns than rows.
    let mostColumnsPerRow = epilogue == .residual || epilogue == .residualNorm ? 8 : 2
    return leastColumns < mostColumnsPerRow * mostRows
  }

  // MARK: Attention

  private var attention: [PipelineVariant] {
    var seen: Set<AttentionKernel> = []
    for headSize in [64, 80, 96, 128, 256] {
      for headsPerKV in [1, 2, 3, 4, 6, 7, 8, 16] {
        for (tileRows, rowCount) in [(1, 1), (1, 8), (8, 64), (8, 512)] {
          seen.insert(
            AttentionKernel(
              heads: HeadLayout(headCount: 8 * headsPerKV, kvHeadCount: 8, headSize: headSize),
              tileRows: tileRows,
              rowCount: rowCount, traits: traits))
        }
      }
    }
    // The number of heads itself is no part of the pipeline.
    let variants = Set(
      seen.map { kernel in
        PipelineVariant(
          shader: "attention",
          specialization: [
            UInt32(kernel.threads), UInt32(kernel.heads.headSize), UInt32(kernel.group),
            UInt32(kernel.tileRows),
            UInt32(kernel.splits),
          ],
          pushConstantBytes: MemoryLayout<AttentionPush>.size,
          text:
            "head \(kernel.heads.headSize), tile \(kernel.tileRows)x\(kernel.group), threads \(kernel.threads), "
            + "splits \(kernel.splits)")
      })
    return variants.sorted { $0.specialization.lexicographicallyPrecedes($1.specialization) }
  }
}
