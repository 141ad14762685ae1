// The formats of 256 weights a block: parts of 16 or 32 weights with small integer scales (and minima) of their own,
// and half-precision scales of those for the whole block.

/// Parts of 16, `d * scale * q - dmin * minimum`, q of 2 bits: 16 bytes of scales (low nibble) and minima (high),
/// 64 bytes of q, then d and dmin.
func expandQ2_K(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let (d, dmin) = (block.scale(80), block.scale(82))
  for part in 0..<16 {
    let packed = block.byte(part)
    let scale = d * Float(packed & 0xf)
    let minimum = dmin * Float(packed >> 4)
    let (bytes, shift) = twoBitPlace(part)
    for index in 0..<16 {
      let q = block.byte(16 + bytes + index) >> shift & 3
      output[part * 16 + index] = scale * Float(q) - minimum
    }
  }
}

/// Parts of 16, `d * (scale - 32) * (q - (third bit ? 0 : 4))`: 32 bytes of third bits, 64 bytes of the lower two,
/// 12 bytes of 6-bit scales, then d.
func expandQ3_K(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let d = block.scale(108)
  for part in 0..<16 {
    // Four low bits of scale `part` in bytes 0 to 7, first all the low nibbles; two high bits in bytes 8 to 11.
    let low = block.byte(96 + part % 8) >> UInt8(part / 8 * 4) & 0xf
    let high = block.byte(104 + part % 4) >> UInt8(part / 4 * 2) & 3
    let scale = d * Float(Int32(low | high << 4) - 32)
    let (bytes, shift) = twoBitPlace(part)
    for index in 0..<16 {
      let q = Int32(block.byte(32 + bytes + index) >> shift & 3)
      let third = block.byte(part % 2 * 16 + index) >> UInt8(part / 2) & 1
      output[part * 16 + index] = scale * Float(third == 1 ? q : q - 4)
    }
  }
}

/// Parts of 32, `d * scale * q - dmin * minimum`, q of 4 bits: d, dmin, 12 bytes of 6-bit scales and minima, 128
/// bytes of nibbles.
func expandQ4_K(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for part in 0..<8 {
    let (scale, minimum) = scaleAndMinimum(block, part)
    for index in 0..<32 {
      let q = block.byte(16 + part / 2 * 32 + index) >> UInt8(part % 2 * 4) & 0xf
      output[part * 32 + index] = scale * Float(q) - minimum
    }
  }
}

/// As q4_k, with a fifth bit: that of weight i of part p is bit p of byte i of the 32 before the nibbles.
func expandQ5_K(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  for part in 0..<8 {
    let (scale, minimum) = scaleAndMinimum(block, part)
    for index in 0..<32 {
      let low = block.byte(48 + part / 2 * 32 + index) >> UInt8(part % 2 * 4) & 0xf
      let fifth = block.byte(16 + index) >> UInt8(part) & 1
      output[part * 32 + index] = scale * Float(low | fifth << 4) - minimum
    }
  }
}

/// Parts of 16, `d * scale * (q - 32)`, q of 6 bits: 128 bytes of the lower four, 64 of the upper two, 16 signed
/// bytes of scales, then d.
func expandQ6_K(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let d = block.scale(208)
  for part in 0..<16 {
    let scale = d * Float(Int8(bitPattern: block.byte(192 + part)))
    let (upperBytes, upperShift) = twoBitPlace(part)
    // Each half of the block: low nibbles of 64 bytes, then their high nibbles.
    let lowerBytes = part / 8 * 64 + part % 4 * 16
    let lowerShift = UInt8(part % 8 / 4 * 4)
    for index in 0..<16 {
      let lower = block.byte(lowerBytes + index) >> lowerShift & 0xf
      let upper = block.byte(128 + upperBytes + index) >> upperShift & 3
      output[part * 16 + index] = scale * Float(Int32(lower | upper << 4) - 32)
    }
  }
}

/// Parts of 32, `d * (scale - 32) * level(nibble)` with the uneven levels of iq4_nl: d, 2 bytes with the upper two
/// bits of the scales, 4 with their lower four, 128 bytes of nibbles laid out in each part as in iq4_nl.
func expandIQ4_XS(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let d = block.scale(0)
  withLevels(unevenLevels) { levels in
    for part in 0..<8 {
      let low = block.byte(4 + part / 2) >> UInt8(part % 2 * 4) & 0xf
      let high = block.half(2) >> UInt16(part * 2) & 3
      let scale = d * Float(Int32(low) + Int32(high) * 16 - 32)
      for index in 0..<16 {
        let byte = block.byte(8 + part * 16 + index)
        output[part * 32 + index] = scale * Float(levels[Int(byte & 0xf)])
        output[part * 32 + 16 + index] = scale * Float(levels[Int(byte >> 4)])
      }
    }
  }
}

/// Where the 2-bit fields of 16-weight `part` stand: first byte and shift. Each 32 bytes hold 128 weights, the
/// first 32 of them in the lowest two bits of each byte.
@inline(__always)
private func twoBitPlace(_ part: Int) -> (bytes: Int, shift: UInt8) {
  (part / 8 * 32 + part % 2 * 16, UInt8(part % 8 / 2 * 2))
}

/// Scale and minimum of 32-weight `part` of q4_k and q5_k, already multiplied by d and dmin.
///
/// Of the 12 bytes after d and dmin, the first four hold scales 0 to 3 and the next minima 0 to 3 in their lower six
/// bits. Scales and minima 4 to 7 have their lower four bits in the last four bytes (scales in the low nibbles) and
/// their upper two in the upper two of those first eight bytes.
@inline(__always)
private func scaleAndMinimum(_ block: UnsafeRawPointer, _ part: Int) -> (Float, Float) {
  let (scale, minimum): (UInt8, UInt8)
  if part < 4 {
    scale = block.byte(4 + part) & 0x3f
    minimum = block.byte(8 + part) & 0x3f
  } else {
    let low = block.byte(8 + part)
    scale = low & 0xf | block.byte(part) >> 2 & 0x30
    minimum = low >> 4 | block.byte(4 + part) >> 2 & 0x30
  }
  return (block.scale(0) * Float(scale), block.scale(2) * Float(minimum))
}
