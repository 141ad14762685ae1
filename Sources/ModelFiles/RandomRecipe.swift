/// How random blocks of one tensor are made, in the layout of a file, by whoever needs them: see
/// Shaders/random/random.comp.
package struct RandomRecipe: Sendable, Hashable {
  package var type: TensorType
  /// The middle of the numbers of a floating-point type, which are uniformly distributed.
  package var center: Float
  /// Half their width; for a format of blocks, what multiplies each block's scale of 0.75 to 1.25.
  package var width: Float
  /// The smallest of three exponents, for a format whose scales are powers of two.
  package var exponent: UInt32
  package var seed: UInt32

  package init(type: TensorType, center: Float, width: Float, exponent: UInt32, seed: UInt32) {
    self.type = type
    self.center = center
    self.width = width
    self.exponent = exponent
    self.seed = seed
  }

  /// Numbers from `center - width` to `center + width`.
  package static func uniform(_ type: TensorType, center: Float, width: Float, seed: UInt32) -> RandomRecipe {
    precondition(type.blockSize == 1, "\(type.name) is a format of blocks")
    return RandomRecipe(type: type, center: center, width: width, exponent: 0, seed: seed)
  }
}

/// Where in a block there are numbers that cannot be just any bits; byte offsets.
package struct RandomScales: Sendable, Hashable {
  /// The scale, a half.
  package var scale: Int?
  /// Symmetric formats reach one step further down than up: scales of both signs make up for it.
  package var isSigned = false
  /// The minimum, a half, and what times the scale it must be for the block's mean to be 0.
  package var minimum: (offset: Int, ratio: Float)? {
    minimumOffset.map { ($0, minimumRatio) }
  }
  private var minimumOffset: Int?
  private var minimumRatio: Float = 0
  /// Bytes that equal those four bytes before: minima of parts, which equal their scales.
  package var copied = 0..<0
  /// Bytes whose high nibble equals the low one, likewise.
  package var doubled = 0..<0
  /// Whether the first byte is an exponent.
  package var hasExponent = false

  package init(of type: TensorType) {
    switch type {
    case .q4_0, .q5_0, .q8_0, .iq4_nl, .iq4_xs: (scale, isSigned) = (0, true)
    case .q3_k: (scale, isSigned) = (108, true)
    case .q6_k: (scale, isSigned) = (208, true)
    case .q4_1: (scale, minimumOffset, minimumRatio) = (0, 2, -7.5)
    case .q5_1: (scale, minimumOffset, minimumRatio) = (0, 2, -15.5)
    case .q2_k:
      (scale, minimumOffset, minimumRatio) = (80, 82, 1.5)
      doubled = 0..<16
    case .q4_k, .q5_k:
      (scale, minimumOffset, minimumRatio) = (0, 2, type == .q4_k ? 7.5 : 15.5)
      // Scales and minima of eight parts in 12 bytes, as `scaleAndMinimum` reads them.
      copied = 8..<12
      doubled = 12..<16
    case .mxfp4: hasExponent = true
    case .f32, .f16, .bf16: break
    }
  }
}
