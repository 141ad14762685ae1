import CShaderInterface
import Kernels
import ModelFiles
import Transformer

/// What the engine chooses for prompts and larger batches on matrix units.
extension PipelineVariants {
  /// The matrix kernel, cut as for the matrices that models have and for steps of one prompt or of many sequences.
  func matrix(_ type: TensorType) -> [PipelineVariant] {
    // Weights of float32 would lose what they are there for: the engine keeps them from matrix units.
    guard let units, type != .f32 else { return [] }
    let format = WeightFormat.of(type)
    var seen: Set<[UInt32]> = []
    var result: [PipelineVariant] = []
    for use in Self.uses {
      for (rows, columns) in use.sizes where columns.isMultiple(of: format.repackBlock) {
        let kernel = MatrixKernel(
          matrix: DeviceMatrix(format: format, rows: rows, columns: columns, planes: [], rowOffset: 0),
          units: units, epilogue: use.epilogue, hasBias: use.hasBias, gathersOutputs: use.gathers,
          activation: use.activation)
        result += inBytes(kernel, text: use.text, seen: &seen)
        for tokenCount in [16, 32, 64, 512] {
          if let direct = DirectMatrixKernel(kernel, tokenCount: tokenCount, traits: traits) {
            let constants = direct.specialization(traits)
            guard seen.insert(constants).inserted else { continue }
            result.append(
              PipelineVariant(
                shader: direct.shaderName, specialization: constants,
                pushConstantBytes: MemoryLayout<MatrixPush>.size, text: "\(use.text), \(direct.tiling.text)"))
            continue
          }
          result += [staged(kernel, tokenCount: tokenCount, text: use.text, seen: &seen)].compactMap(\.self)
        }
      }
    }
    return result
  }

  /// The kernel with its tile in shared memory, if it is none of those seen.
  private func staged(
    _ kernel: MatrixKernel, tokenCount: Int, text: String, seen: inout Set<[UInt32]>
  ) -> PipelineVariant? {
    var tiling = kernel.tiling(tokenCount: tokenCount, traits: traits)
    // How many workgroups share inputs, and in what order they go, makes no other code.
    tiling.split = min(tiling.split, 2)
    tiling.band = 8
    let constants = kernel.specialization(tiling, traits: traits)
    guard seen.insert(constants).inserted else { return nil }
    return PipelineVariant(
      shader: kernel.shaderName, specialization: constants,
      pushConstantBytes: MemoryLayout<MatrixPush>.size,
      text: "\(text), \(tiling.text)" + (kernel.units.inputs == .bytes ? ", in bytes" : ""))
  }

  /// The same product in bytes, where it has one.
  private func inBytes(
    _ kernel: MatrixKernel, text: String, seen: inout Set<[UInt32]>
  ) -> [PipelineVariant] {
    guard let byteUnits, MatrixKernel.multipliesBytes(kernel.matrix.format) else { return [] }
    var kernel = kernel
    kernel.units = byteUnits
    return [16, 32, 64, 512].compactMap { staged(kernel, tokenCount: $0, text: text, seen: &seen) }
  }

  /// The kernel that makes the inputs of products in bytes.
  var quantiseRows: [PipelineVariant] {
    guard byteUnits != nil else { return [] }
    let constants = QuantiseRowsKernel().specialization(traits)
    return [
      PipelineVariant(
        shader: "quantise_rows", specialization: constants,
        pushConstantBytes: MemoryLayout<QuantiseRowsPush>.size, text: "threads \(constants[0])")
    ]
  }

  /// The kernel that makes weights float16 for prompts.
  func dequantize(_ type: TensorType) -> [PipelineVariant] {
    let matrix = DeviceMatrix(format: .of(type), rows: 4096, columns: 4096, planes: [], rowOffset: 0)
    guard units != nil, let kernel = DequantizeKernel(matrix) else { return [] }
    let constants = kernel.specialization(traits)
    return [
      PipelineVariant(
        shader: kernel.shaderName, specialization: constants,
        pushConstantBytes: MemoryLayout<DequantizePush>.size, text: "threads \(constants[0])")
    ]
  }

  var flash: [PipelineVariant] {
    guard let units else { return [] }
    let sizes: [(Int, KVCacheType)] =
      [16, 64, 80, 96, 128, 256].map { ($0, .f16) } + [64, 96, 128, 256].map { ($0, .q8_0) }
    return sizes.compactMap { headSize, cacheType in
      let heads = HeadLayout(headCount: 8, kvHeadCount: 8, headSize: headSize, cacheType: cacheType)
      guard let kernel = FlashAttentionKernel(heads: heads, units: units, traits: traits) else { return nil }
      return PipelineVariant(
        shader: "flash", specialization: kernel.specialization(traits),
        pushConstantBytes: MemoryLayout<FlashPush>.size,
        text: "head \(headSize), \(cacheType), subgroups \(kernel.subgroups), block \(kernel.block)"
          + (kernel.holdsQueries ? "" : ", shared queries"))
    }
  }

  /// The kernel that finishes heads with norms, behind products of many tokens of either kind.
  var headNorm: PipelineVariant {
    let constants = HeadNormKernel().specialization(traits)
    return PipelineVariant(
      shader: "headnorm", specialization: constants, pushConstantBytes: MemoryLayout<HeadNormPush>.size,
      text: "threads \(constants[0])")
  }

  /// The kernels that make a product's inputs.
  var normalise: [PipelineVariant] {
    guard units != nil else { return [] }
    var seen: Set<[UInt32]> = []
    var result: [PipelineVariant] = []
    for kind in 0..<8 {
      let kernel = NormaliseKernel(
        hasNorm: kind & 1 == 0, hasAddend: kind & 2 != 0, gathersOutputs: kind & 4 != 0)
      for width in [576, 1536, 2048, 4096] {
        let constants = kernel.specialization(width: width, traits: traits)
        guard seen.insert(constants).inserted else { continue }
        result.append(
          PipelineVariant(
            shader: "normalise", specialization: constants,
            pushConstantBytes: MemoryLayout<NormalisePush>.size,
            text: "threads \(constants[0])" + (kernel.hasNorm ? ", norm" : "")
              + (kernel.hasAddend ? ", addend" : "") + (kernel.gathersOutputs ? ", gather" : "")))
      }
    }
    return result
  }
}
