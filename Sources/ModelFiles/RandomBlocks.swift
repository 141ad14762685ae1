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
    // Symmetric formats reach one step further down than up; scales of both signs make up for it.
    let signed = bits & 1 == 0 ? scale : -scale
    func set(_ value: Float, at offset: Int) {
      block.storeBytes(of: value.halfBits, toByteOffset: offset, as: UInt16.self)
    }
    switch type {
    case .q4_0, .q5_0, .q8_0, .iq4_nl, .iq4_xs: set(signed, at: 0)
    case .q3_k: set(signed, at: 108)
    case .q6_k: set(signed, at: 208)
    case .q4_1:
      set(scale, at: 0)
      set(-7.5 * scale, at: 2)
    case .q5_1:
      set(scale, at: 0)
      set(-15.5 * scale, at: 2)
    case .q2_k:
      set(scale, at: 80)
      set(1.5 * scale, at: 82)
      // Each part's minimum (high nibble) equals its scale.
      for part in 0..<16 {
        let partScale = block.load(fromByteOffset: part, as: UInt8.self) & 0xf
        block.storeBytes(of: partScale * 0x11, toByteOffset: part, as: UInt8.self)
      }
    case .q4_k, .q5_k:
      set(scale, at: 0)
      set((type == .q4_k ? 7.5 : 15.5) * scale, at: 2)
      // Likewise in the packing of `scaleAndMinimum`.
      (block + 8).copyMemory(from: block + 4, byteCount: 4)
      for offset in 12..<16 {
        let low = block.load(fromByteOffset: offset, as: UInt8.self) & 0xf
        block.storeBytes(of: low * 0x11, toByteOffset: offset, as: UInt8.self)
      }
    case .mxfp4: block.storeBytes(of: UInt8(127 + bits % 3), as: UInt8.self)
    case .f32, .f16, .bf16: preconditionFailure("\(type.name) has no scales")
    }
  }

  /// Multiplies the scales of every block; mxfp4's, which are powers of two, by the nearest one.
  private static func scaleWeights(
    _ bytes: UnsafeMutableRawBufferPointer, _ type: TensorType, by factor: Float
  ) {
    let scales: [Int] =
      switch type {
      case .q4_0, .q5_0, .q8_0, .iq4_nl, .iq4_xs: [0]
      case .q4_1, .q5_1, .q4_k, .q5_k: [0, 2]
      case .q2_k: [80, 82]
      case .q3_k: [108]
      case .q6_k: [208]
      case .f32, .f16, .bf16, .mxfp4: []
      }
    let octaves = Int((factor * Float(2).squareRoot()).exponent)
    for block in stride(from: 0, to: bytes.count, by: type.blockBytes) {
      for offset in scales {
        let value = Float(half: bytes.loadUnaligned(fromByteOffset: block + offset, as: UInt16.self))
        bytes.storeBytes(of: (value * factor).halfBits, toByteOffset: block + offset, as: UInt16.self)
      }
      if type == .mxfp4 { bytes[block] = UInt8(clamping: Int(bytes[block]) + octaves) }
    }
  }

  /// Standard deviation (around 0) of the weights in some of the blocks.
  private static func measuredDeviation(_ bytes: UnsafeRawBufferPointer, _ type: TensorType) -> Float {
    let sample = bytes.prefix(32_768 / type.blockSize * type.blockBytes)
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
struct SplitMix64: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return mixed ^ mixed >> 31
  }
}
