// The formats of 32 weights a block. Nibbles stand so: the low ones of 16 bytes are weights 0 to 15, the high ones
// 16 to 31.

/// Calls `body` with each weight's index and nibble, the 16 bytes of nibbles standing at `offset`.
@inline(__always)
private func forEachNibble(_ block: UnsafeRawPointer, at offset: Int, _ body: (Int, UInt8) -> Void) {
  for index in 0..<16 {
    let byte = block.byte(offset + index)
    body(index, byte & 0xf)
    body(index + 16, byte >> 4)
  }
}

/// `scale * (nibble - 8)`.
func expandQ4_0(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let scale = block.scale(0)
  forEachNibble(block, at: 2) { output[$0] = scale * Float(Int32($1) - 8) }
}

/// `scale * nibble + minimum`.
func expandQ4_1(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let (scale, minimum) = (block.scale(0), block.scale(2))
  forEachNibble(block, at: 4) { output[$0] = scale * Float($1) + minimum }
}

/// `scale * (q - 16)`: four bits of q in nibbles, the fifth of weight i in bit i of a 32-bit word.
func expandQ5_0(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let scale = block.scale(0)
  let fifth = block.loadUnaligned(fromByteOffset: 2, as: UInt32.self)
  forEachNibble(block, at: 6) {
    output[$0] = scale * Float(Int32($1) + Int32(fifth >> UInt32($0) & 1) * 16 - 16)
  }
}

/// `scale * q + minimum`, with q as in q5_0.
func expandQ5_1(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let (scale, minimum) = (block.scale(0), block.scale(2))
  let fifth = block.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
  forEachNibble(block, at: 8) {
    output[$0] = scale * Float(Int32($1) + Int32(fifth >> UInt32($0) & 1) * 16) + minimum
  }
}

/// `scale * q`, q a signed byte.
func expandQ8_0(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let scale = block.scale(0)
  for index in 0..<32 { output[index] = scale * Float(Int8(bitPattern: block.byte(2 + index))) }
}

/// `scale * level(nibble)`, the levels spaced unevenly.
func expandIQ4_NL(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let scale = block.scale(0)
  withLevels(unevenLevels) { levels in
    forEachNibble(block, at: 2) { output[$0] = scale * Float(levels[Int($1)]) }
  }
}

/// `2^(exponent - 128) * level(nibble)`, the levels being twice those of the E2M1 format (OCP Microscaling 1.0).
func expandMXFP4(_ block: UnsafeRawPointer, _ output: UnsafeMutablePointer<Float>) {
  let exponent = UInt32(block.byte(0))
  // 2^-128 and 2^-127 are subnormal.
  let scale = Float(bitPattern: exponent < 2 ? 0x0020_0000 << exponent : (exponent - 1) << 23)
  withLevels(doubledE2M1Levels) { levels in
    forEachNibble(block, at: 1) { output[$0] = scale * Float(levels[Int($1)]) }
  }
}

/// Sixteen levels, one for each value of a nibble.
typealias NibbleLevels = SIMD16<Int8>

/// Of iq4_nl and iq4_xs.
let unevenLevels = NibbleLevels(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

private let doubledE2M1Levels = NibbleLevels(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)

/// Calls `body` with the levels in memory, where they are quick to look up.
@inline(__always)
func withLevels(_ levels: NibbleLevels, _ body: (UnsafePointer<Int8>) -> Void) {
  withUnsafeBytes(of: levels) { body($0.baseAddress!.assumingMemoryBound(to: Int8.self)) }
}
