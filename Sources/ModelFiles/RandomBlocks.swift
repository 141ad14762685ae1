/// Makes random blocks whose weights have a given spread.
enum RandomBlocks {
  /// What the blocks of a tensor depend on.
  struct Kind: Hashable, Sendable {
    let type: TensorType
    let columns: Int
    /// Near 1, for norms, rather than around 0.
    let isNorm: Bool

    init(_ tensor: TensorInfo) {
      type = tensor.type
      columns = tensor.columns
      isNorm = tensor.shape.count == 1 && tensor.type.blockSize == 1 && !tensor.name.hasSuffix(".bias")
    }
  }

  private static let poolBytes = 2 << 20
  /// Weights from which the spread of a format's blocks is known.
  private static let sampleCount = 131_072

  /// Some 2 MiB of blocks, a prime number of them.
  static func pool(_ kind: Kind, seed: UInt64) -> [UInt8] {
    let type = kind.type
    let count = largestPrime(upTo: poolBytes / type.blockBytes)
    let size = count * type.blockBytes
    var random = SplitMix64(
      state: seed ^ UInt64(type.rawValue) << 32 ^ UInt64(truncatingIfNeeded: kind.columns))
    let deviation = 1 / Float(kind.columns).squareRoot()
    return [UInt8](unsafeUninitializedCapacity: size) { buffer, initialized in
      let bytes = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[..<size])
      if type.blockSize == 1 {
        // A uniform distribution of half-width w has standard deviation w/sqrt(3).
        let (center, width): (Float, Float) = kind.isNorm ? (1, 0.1) : (0, deviation * Float(3).squareRoot())
        fillFloats(bytes, type, center: center, width: width, &random)
      } else {
        fill(bytes, &random)
        for block in stride(from: 0, to: size, by: type.blockBytes) {
          setScales(bytes.baseAddress! + block, type, &random)
        }
        scaleWeights(bytes, type, by: deviation / measuredDeviation(UnsafeRawBufferPointer(bytes), type))
      }
      initialized = size
    }
  }

  /// Numbers from `center - width` to `center + width`, uniformly.
  private static func fillFloats(
    _ bytes: UnsafeMutableRawBufferPointer, _ type: TensorType, center: Float, width: Float,
    _ random: inout SplitMix64
  ) {
    for offset in stride(from: 0, to: bytes.count, by: type.blockBytes) {
      let unit = Float(random.next() >> 40) * 0x1p-23 - 1
      let value = center + width * unit
      switch type {
      case .f32: bytes.storeBytes(of: value, toByteOffset: offset, as: Float.self)
      case .f16: bytes.storeBytes(of: value.halfBits, toByteOffset: offset, as: UInt16.self)
      default: bytes.storeBytes(of: value.bfloat16Bits, toByteOffset: offset, as: UInt16.self)
      }
    }
  }

  private static func fill(_ bytes: UnsafeMutableRawBufferPointer, _ random: inout SplitMix64) {
    for offset in stride(from: 0, to: bytes.count, by: 8) {
      withUnsafeBytes(of: random.next()) {
        UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<bytes.count])
          .copyMemory(from: UnsafeRawBufferPointer(rebasing: $0.prefix(bytes.count - offset)))
      }
    }
  }

  /// Gives a block of random bytes a scale near 1 and, where it has one, the minimum that makes its mean 0.
  private static func setScales(
    _ block: UnsafeMutableRawPointer, _ type: TensorType, _ random: inout SplitMix64
  ) {
    let bits = random.next()
    let scale = 0.75 + Float(bits >> 40) * 0x1p-25
    let scales = RandomScales(of: type)
    if let offset = scales.scale {
      // The lowest bit is no part of the scale.
      let signed = scales.isSigned && bits & 1 == 1 ? -scale : scale
      block.storeBytes(of: signed.halfBits, toByteOffset: offset, as: UInt16.self)
    }
    if let (offset, ratio) = scales.minimum {
      block.storeBytes(of: (ratio * scale).halfBits, toByteOffset: offset, as: UInt16.self)
    }
    for offset in scales.copied {
      block.storeBytes(
        of: block.load(fromByteOffset: offset - 4, as: UInt8.self), toByteOffset: offset, as: UInt8.self)
    }
    for offset in scales.doubled {
      let low = block.load(fromByteOffset: offset, as: UInt8.self) & 0xf
      block.storeBytes(of: low * 0x11, toByteOffset: offset, as: UInt8.self)
    }
    if scales.hasExponent { block.storeBytes(of: UInt8(127 + bits % 3), as: UInt8.self) }
  }

  /// Multiplies the scales of every block; mxfp4's, which are powers of two, by the nearest one.
  private static func scaleWeights(
    _ bytes: UnsafeMutableRawBufferPointer, _ type: TensorType, by factor: Float
  ) {
    let scales = RandomScales(of: type)
    for block in stride(from: 0, to: bytes.count, by: type.blockBytes) {
      for offset in [scales.scale, scales.minimum?.offset].compactMap({ $0 }) {
        let value = Float(half: bytes.loadUnaligned(fromByteOffset: block + offset, as: UInt16.self))
        bytes.storeBytes(of: (value * factor).halfBits, toByteOffset: block + offset, as: UInt16.self)
      }
      if scales.hasExponent { bytes[block] = UInt8(clamping: Int(bytes[block]) + octaves(factor)) }
    }
  }

  /// The power of two next to `factor`.
  private static func octaves(_ factor: Float) -> Int { Int((factor * Float(2).squareRoot()).exponent) }

  /// How a device makes blocks like those of `pool`.
  static func recipe(_ kind: Kind, seed: UInt32) -> RandomRecipe {
    let type = kind.type
    let deviation = 1 / Float(kind.columns).squareRoot()
    if type.blockSize == 1 {
      let width = kind.isNorm ? 0.1 : deviation * Float(3).squareRoot()
      return RandomRecipe(type: type, center: kind.isNorm ? 1 : 0, width: width, exponent: 0, seed: seed)
    }
    let size = sampleCount / type.blockSize * type.blockBytes
    var random = SplitMix64(state: UInt64(type.rawValue))
    let sample = [UInt8](unsafeUninitializedCapacity: size) { buffer, initialized in
      let bytes = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[..<size])
      fill(bytes, &random)
      for block in stride(from: 0, to: size, by: type.blockBytes) {
        setScales(bytes.baseAddress! + block, type, &random)
      }
      initialized = size
    }
    let factor = deviation / sample.withUnsafeBytes { measuredDeviation($0, type) }
    return RandomRecipe(
      type: type, center: 0, width: factor, exponent: UInt32(127 + octaves(factor)), seed: seed)
  }

  /// Standard deviation (around 0) of the weights in some of the blocks.
  private static func measuredDeviation(_ bytes: UnsafeRawBufferPointer, _ type: TensorType) -> Float {
    let sample = bytes.prefix(sampleCount / type.blockSize * type.blockBytes)
    let weights: [Float] = dequantize(UnsafeRawBufferPointer(rebasing: sample), type: type)
    let sum = weights.reduce(0.0) { $0 + Double($1) * Double($1) }
    return Float((sum / Double(weights.count)).squareRoot())
  }

  private static func largestPrime(upTo limit: Int) -> Int {
    var candidate = limit
    while (2...).prefix(while: { $0 * $0 <= candidate }).contains(where: { candidate.isMultiple(of: $0) }) {
      candidate -= 1
    }
    return candidate
  }
}

/// A small, fast, seedable generator (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
package struct SplitMix64: RandomNumberGenerator {
  package var state: UInt64

  package init(state: UInt64) { self.state = state }

  package mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return mixed ^ mixed >> 31
  }
}
