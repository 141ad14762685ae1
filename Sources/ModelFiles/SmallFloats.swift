/// Conversions between `Float` and the 16-bit formats of model files, by bits: exact and the same on every CPU.
extension Float {
  /// The IEEE half-precision number with these bits, exactly; the payload of a NaN is kept.
  package init(half bits: UInt16) {
    let sign = UInt32(bits & 0x8000) << 16
    let magnitude = UInt32(bits & 0x7fff)
    if magnitude >= 0x7c00 {
      self.init(bitPattern: sign | 0x7f80_0000 | (magnitude & 0x3ff) << 13)
    } else if magnitude >= 0x0400 {
      // The exponent's bias grows from 15 to 127.
      self.init(bitPattern: sign | (magnitude << 13) + (112 << 23))
    } else {
      // Subnormal: a count of 2^-24, which is normal as a Float.
      self.init(bitPattern: sign | (Float(magnitude) * 0x1p-24).bitPattern)
    }
  }

  /// The nearest half-precision number, ties to even; infinite from 65520 on.
  package var halfBits: UInt16 {
    let sign = UInt16(truncatingIfNeeded: bitPattern >> 16) & 0x8000
    let magnitude = bitPattern & 0x7fff_ffff
    if magnitude > 0x7f80_0000 { return sign | 0x7e00 }
    if magnitude >= 0x4780_0000 { return sign | 0x7c00 }
    if magnitude < 0x3880_0000 {
      // Below 2^-14 halves are counts of 2^-24, the spacing of floats at 0.5: the addition rounds.
      return sign | UInt16((Float(bitPattern: magnitude) + 0.5).bitPattern - Float(0.5).bitPattern)
    }
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - (112 << 23)
    return sign | UInt16(rounded >> 13)
  }

  /// The bfloat16 number with these bits: the upper half of a `Float`.
  package init(bfloat16 bits: UInt16) { self.init(bitPattern: UInt32(bits) << 16) }

  /// The nearest bfloat16 number, ties to even; NaN stays NaN.
  package var bfloat16Bits: UInt16 {
    if isNaN { return UInt16(bitPattern >> 16) | 0x40 }
    return UInt16((UInt64(bitPattern) + 0x7fff + UInt64(bitPattern >> 16 & 1)) >> 16)
  }
}
