import ModelFiles

/// How a stage leaves the inputs of the product that comes next: see Shaders/common/types.glsl and blocks.glsl.
package enum ProductForm: UInt32, Sendable, Hashable, CaseIterable {
  /// Nothing is left: no product follows, or another kernel prepares its inputs.
  case none = 0
  /// float32 in activation layout.
  case floats = 1
  /// Blocks of 32 signed bytes with a scale.
  case bytes = 2
  /// float16 rows, for the matrix units: attention alone leaves them so.
  case halves = 3

  /// The form that products with weights of these formats read on a device.
  package init(_ formats: [WeightFormat], traits: DeviceTraits) {
    self = traits.usesByteProducts && formats.allSatisfy(\.hasByteProducts) ? .bytes : .floats
  }
}

extension WeightFormat {
  /// Whether the linear kernel can multiply the type's weights as bytes.
  package var hasByteProducts: Bool {
    switch type {
    case .q2_k, .q3_k, .q4_0, .q4_1, .q4_k, .q5_0, .q5_1, .q5_k, .q6_k, .q8_0: true
    case .f32, .f16, .bf16, .iq4_nl, .iq4_xs, .mxfp4: false
    }
  }
}

/// Where blocks of bytes hold word `word` (inputs `4 * word` on) of a row: see Shaders/common/blocks.glsl.
package func blockWordIndex(_ word: Int) -> Int {
  let block = word / 8
  return ((block / 32 * 64) + (word % 8 / 4 * 32) + block % 32) * 4 + word % 4
}
