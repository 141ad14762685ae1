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
  /// Nil leaves out the kernels that need them.
  let units: MatrixUnits?
  /// The same of products in bytes.
  let byteUnits: MatrixUnits?

  var all: [PipelineVariant] {
    TensorType.allCases.flatMap(ofFormat) + attention
      + flash + normalise + quantiseRows + outputs + combine + unfused + cacheWrite + exchange + [
        chain, sum, headNorm,
      ]
  }

  private func ofFormat(_ type: TensorType) -> [PipelineVariant] {
    let products = linear(type) + tiles(type) + naive(type) + matrix(type) + dequantize(type)
    return [repack(type), random(type)] + embed(type) + products
  }

  private var cacheWrite: [PipelineVariant] {
    let heads = HeadLayout(headCount: 8, kvHeadCount: 8, headSize: 64, cacheType: .q8_0)
    return [false, true].compactMap { isChained in
      CacheWriteKernel(heads: heads).map {
        PipelineVariant(
          shader: "cache_write", specialization: $0.specialization(traits, isChained: isChained),
          pushConstantBytes: MemoryLayout<CacheWritePush>.size, text: isChained ? "chained" : "")
      }
    }
  }

  private var combine: [PipelineVariant] {
    [576, 2048, 4096, 8192].flatMap { width in
      [ProductForm.none, .floats, .bytes].flatMap { next in
        [false, true].map { hasPostNorm in
          let kernel = CombineKernel(
            addsResidual: true, hasPostNorm: hasPostNorm, next: next, rankCount: hasPostNorm ? 8 : 2,
            meeting: next == .none ? nil : ExchangeKernel(readsLast: hasPostNorm))
          return PipelineVariant(
            shader: "combine", specialization: kernel.specialization(width: width, traits: traits),
            pushConstantBytes: MemoryLayout<CombinePush>.size,
            text: "width \(width), to \(next)" + (hasPostNorm ? ", post norm" : ""))
        }
      }
    }
  }

  private var exchange: [PipelineVariant] {
    [false, true].map { readsLast in
      let kernel = ExchangeKernel(readsLast: readsLast)
      return PipelineVariant(
        shader: "exchange", specialization: kernel.specialization(traits),
        pushConstantBytes: MemoryLayout<ExchangePush>.size, text: "\(kernel.lines) lines")
    }
  }

  private var sum: PipelineVariant {
    PipelineVariant(
      shader: "sum", specialization: SumKernel().specialization(traits),
      pushConstantBytes: MemoryLayout<SumPush>.size, text: "")
  }

  private var chain: PipelineVariant {
    PipelineVariant(
      shader: "chain", specialization: [UInt32(traits.invocations(256))],
      pushConstantBytes: MemoryLayout<ChainProbePush>.size, text: "trial")
  }

  private func repack(_ type: TensorType) -> PipelineVariant {
    PipelineVariant(
      shader: "repack.\(type.name)", specialization: [UInt32(traits.invocations(64))],
      pushConstantBytes: MemoryLayout<RepackPush>.size, text: "")
  }

  private func embed(_ type: TensorType) -> [PipelineVariant] {
    [ProductForm.none, .floats, .bytes].map { next in
      PipelineVariant(
        shader: "embed.\(type.name)", specialization: [UInt32(traits.invocations(32)), next.rawValue],
        pushConstantBytes: MemoryLayout<EmbedPush>.size, text: "to \(next)")
    }
  }

  private func random(_ type: TensorType) -> PipelineVariant {
    PipelineVariant(
      shader: "random", specialization: RandomKernel.specialization(type, traits: traits),
      pushConstantBytes: MemoryLayout<RandomPush>.size, text: type.name)
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

  /// What a stage asks of the kernel of its product.
  struct Use {
    var epilogue: LinearKernel.Epilogue
    var hasNorm = false
    var hasBias = false
    var gathers = false
    var activation = Activation.silu
    var text: String

    /// Rows and columns of such matrices in models from 135 million to 70 billion weights.
    var sizes: [(Int, Int)] {
      let widths = [576, 2048, 4096, 8192]
      let hidden = [1536, 8192, 14336, 28672]
      return switch epilogue {
      case .store: [(49152, 576), (128256, 2048), (128256, 4096), (128256, 8192)]
      case .residual, .residualNorm, .partial: Array(zip(widths, widths)) + zip(widths, hidden)
      case .gated: Array(zip(hidden.map { 2 * $0 }, widths))
      case .queryKeyValue, .queryKeyValueNorm: Array(zip([960, 3072, 6144, 10240], widths))
      }
    }
  }

  static let uses = [
    Use(epilogue: .store, hasNorm: true, gathers: true, text: "logits"),
    Use(epilogue: .residual, text: "residual"),
    Use(epilogue: .residual, hasBias: true, text: "residual bias"),
    Use(epilogue: .residualNorm, text: "residual post-norm"),
    Use(epilogue: .partial, text: "partial sums"),
    Use(epilogue: .gated, hasNorm: true, text: "gated silu"),
    Use(epilogue: .gated, hasNorm: true, activation: .geluTanh, text: "gated gelu"),
    Use(epilogue: .queryKeyValue, hasNorm: true, text: "qkv"),
    Use(epilogue: .queryKeyValue, hasNorm: true, hasBias: true, text: "qkv bias"),
    Use(epilogue: .queryKeyValueNorm, hasNorm: true, text: "qkv head norms"),
  ]

  private func linear(_ type: TensorType) -> [PipelineVariant] {
    let format = WeightFormat.of(type, rowInterleave: traits.rowInterleave)
    let form = ProductForm([format], traits: traits)
    return Self.uses.flatMap { linear(format, form, $0) }
  }

  /// The linear kernel of one use, cut as for the matrices that models have.
  private func linear(_ format: WeightFormat, _ form: ProductForm, _ use: Use) -> [PipelineVariant] {
    var seen: Set<PipelineVariant> = []
    var result: [PipelineVariant] = []
    let nexts: [ProductForm] =
      switch use.epilogue {
      case .residual, .residualNorm, .gated: [form]
      case .store, .partial, .queryKeyValue, .queryKeyValueNorm: [.none]
      }
    for next in nexts {
      for (rows, columns) in use.sizes where columns.isMultiple(of: format.repackBlock) {
        let kernel = LinearKernel(
          matrix: DeviceMatrix(format: format, rows: rows, columns: columns, planes: [], rowOffset: 0),
          epilogue: use.epilogue, hasNorm: use.hasNorm, hasBias: use.hasBias, gathersOutputs: use.gathers,
          activation: use.activation, inputs: form, next: next)
        for columnCount in [1, 2, 4, 8] {
          for isChained in columnCount == 1 ? [false, true] : [true] {
            let tiling = kernel.tiling(columnCount: columnCount, isChained: isChained, traits: traits)
            let variant = PipelineVariant(
              shader: kernel.shaderName(traits),
              specialization: kernel.specialization(tiling, isChained: isChained, traits: traits),
              pushConstantBytes: MemoryLayout<LinearPush>.size,
              text: "\(use.text), \(form) to \(next), \(LinearTiling(tiling).text)"
                + (isChained ? ", chained" : ""))
            if seen.insert(variant).inserted { result.append(variant) }
          }
        }
      }
    }
    return result
  }

  /// Products of many columns where there are no matrix units.
  private func tiles(_ type: TensorType) -> [PipelineVariant] {
    var traits = traits
    traits.usesTiles = true
    let format = WeightFormat.of(type)
    let form = ProductForm([format], traits: traits)
    var seen: Set<PipelineVariant> = []
    var result: [PipelineVariant] = []
    for use in Self.uses {
      let leaves = [.residual, .residualNorm, .gated].contains(use.epilogue)
      for (rows, columns) in use.sizes where columns.isMultiple(of: format.repackBlock) {
        let product = LinearKernel(
          matrix: DeviceMatrix(format: format, rows: rows, columns: columns, planes: [], rowOffset: 0),
          epilogue: use.epilogue, hasNorm: use.hasNorm, hasBias: use.hasBias, gathersOutputs: use.gathers,
          activation: use.activation, inputs: form, next: leaves ? form : .none)
        for columnCount in [16, 512] {
          guard let kernel = LinearTileKernel(product, columnCount: columnCount, traits: traits) else {
            continue
          }
          let variant = PipelineVariant(
            shader: kernel.shaderName, specialization: kernel.specialization(traits),
            pushConstantBytes: MemoryLayout<LinearPush>.size,
            text: "\(use.text), \(form), \(kernel.tiling.text)")
          if seen.insert(variant).inserted { result.append(variant) }
        }
      }
    }
    return result
  }

  /// The plain kernel has one tiling.
  private func naive(_ type: TensorType) -> [PipelineVariant] {
    Self.uses.map { use in
      let leaves = [.residual, .residualNorm, .gated].contains(use.epilogue)
      var kernel = LinearKernel(
        matrix: DeviceMatrix(
          format: WeightFormat.of(type), rows: 4096, columns: 4096, planes: [], rowOffset: 0),
        epilogue: use.epilogue, hasNorm: use.hasNorm, hasBias: use.hasBias, gathersOutputs: use.gathers,
        activation: use.activation, next: leaves ? .floats : .none)
      kernel.isNaive = true
      return PipelineVariant(
        shader: kernel.shaderName(traits),
        specialization: kernel.specialization(kernel.tiling(columnCount: 1, traits: traits), traits: traits),
        pushConstantBytes: MemoryLayout<LinearPush>.size, text: use.text)
    }
  }

  private var unfused: [PipelineVariant] {
    let operations = ElementwiseKernel.Operation.allCases.flatMap { operation in
      (operation == .activate ? [Activation.silu, .geluTanh] : [.silu]).map {
        ElementwiseKernel(operation, activation: $0)
      }
    }
    let norms = [(false, 576), (false, 4096), (true, 64), (true, 80), (true, 96), (true, 128), (true, 256)]
    let heads = [(true, true), (true, false), (false, true)]
    return operations.map { kernel in
      PipelineVariant(
        shader: "elementwise", specialization: kernel.specialization(traits),
        pushConstantBytes: MemoryLayout<OperationPush>.size, text: "\(kernel.operation)")
    }
      + norms.map { ofHeads, width in
        PipelineVariant(
          shader: "norm",
          specialization: NormKernel(ofHeads: ofHeads).specialization(width: width, traits: traits),
          pushConstantBytes: MemoryLayout<OperationPush>.size,
          text: "width \(width)" + (ofHeads ? ", heads" : ""))
      }
      + heads.map { rotates, stores in
        PipelineVariant(
          shader: "heads",
          specialization: HeadsKernel(rotates: rotates, stores: stores).specialization(traits),
          pushConstantBytes: MemoryLayout<HeadsPush>.size,
          text: (rotates ? "rotate" : "") + (stores ? " store" : ""))
      }
      + [
        PipelineVariant(
          shader: "quantise", specialization: QuantiseKernel().specialization(traits),
          pushConstantBytes: MemoryLayout<QuantisePush>.size, text: "")
      ]
  }

  // MARK: Attention

  private static let cachedHeads: [(Int, KVCacheType)] =
    [64, 80, 96, 128, 256].map { ($0, .f16) } + [64, 96, 128, 256].map { ($0, .q8_0) }

  private var attention: [PipelineVariant] {
    var seen: Set<AttentionKernel> = []
    for (headSize, cacheType) in Self.cachedHeads {
      for headsPerKV in [1, 2, 3, 4, 6, 7, 8, 16] {
        for (tileRows, rowCount) in [(1, 1), (1, 8), (8, 64), (8, 512)] {
          seen.insert(
            AttentionKernel(
              heads: HeadLayout(
                headCount: 8 * headsPerKV, kvHeadCount: 8, headSize: headSize, cacheType: cacheType),
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
          specialization: kernel.specialization,
          pushConstantBytes: MemoryLayout<AttentionPush>.size,
          text:
            "head \(kernel.heads.headSize), \(kernel.heads.cacheType), tile \(kernel.tileRows)x\(kernel.group), threads \(kernel.threads), "
            + "splits \(kernel.splits)")
      })
    return variants.union(decodeAttention).union(lanesAttention).sorted {
      $0.specialization.lexicographicallyPrecedes($1.specialization)
    }
  }

  private var lanesAttention: Set<PipelineVariant> {
    var variants: Set<PipelineVariant> = []
    for (headSize, cacheType) in Self.cachedHeads {
      for headsPerKV in [1, 3, 4, 8] {
        for tileRows in [1, 8] {
          let heads = HeadLayout(
            headCount: 8 * headsPerKV, kvHeadCount: 8, headSize: headSize, cacheType: cacheType)
          guard let kernel = AttentionLanesKernel(heads: heads, tileRows: tileRows, traits: traits) else {
            continue
          }
          variants.insert(
            PipelineVariant(
              shader: "attention_lanes", specialization: kernel.specialization(traits),
              pushConstantBytes: MemoryLayout<AttentionPush>.size,
              text: "lanes, head \(headSize), \(cacheType), tile \(kernel.tileRows)x\(kernel.group)"))
        }
      }
    }
    return variants
  }

  private var decodeAttention: Set<PipelineVariant> {
    var variants: Set<PipelineVariant> = []
    for (headSize, cacheType) in Self.cachedHeads {
      for headsPerKV in [1, 2, 3, 4, 6, 7, 8, 16] {
        for (tokenCount, next) in [(1, ProductForm.floats), (8, .bytes), (64, .halves)]
        where headSize.isMultiple(of: 32) || next != .bytes {
          let heads = HeadLayout(
            headCount: 8 * headsPerKV, kvHeadCount: 8, headSize: headSize, cacheType: cacheType)
          if next == .halves, units == nil { continue }
          guard
            let kernel = AttentionDecodeKernel(
              heads: heads, tokenCount: tokenCount, isDeep: tokenCount > 1 || headsPerKV > 1,
              isChained: headsPerKV % 2 == 0, next: next, traits: traits)
          else { continue }
          variants.insert(
            PipelineVariant(
              shader: "attention_decode",
              specialization: kernel.specialization(traits, isChained: headsPerKV % 2 == 0),
              pushConstantBytes: MemoryLayout<AttentionPush>.size,
              text:
                "decode, head \(headSize), \(cacheType), group \(kernel.group), subgroups \(kernel.subgroups), to \(next)"
            ))
        }
      }
    }
    return variants
  }
}
