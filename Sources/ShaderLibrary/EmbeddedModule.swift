import CZlib

/// Decodes base64; nil when the text is none.
func bytes(base64 text: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
  guard text.count.isMultiple(of: 4) else { return nil }
  let padding = text.suffix(2).count { $0 == UInt8(ascii: "=") }
  var bytes: [UInt8] = []
  bytes.reserveCapacity(text.count / 4 * 3)
  var bits: UInt32 = 0
  var bitCount = 0
  for character in text.dropLast(padding) {
    guard let value = sixBits(of: character) else { return nil }
    bits = bits << 6 | value
    bitCount += 6
    guard bitCount >= 8 else { continue }
    bitCount -= 8
    bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(bitCount)))
  }
  return bytes
}

/// Little-endian words as EmbedShader compresses them: the number of their bytes, 32 bits, then zlib's stream. Nil when
/// it is nothing of that kind.
func words(compressed: [UInt8]) -> [UInt32]? {
  guard compressed.count > 4 else { return nil }
  let count = compressed.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
  guard count.isMultiple(of: 4) else { return nil }
  var words = [UInt32](repeating: 0, count: count / 4)
  var found = uLong(count)
  let status = words.withUnsafeMutableBytes { destination in
    compressed.withUnsafeBytes { source in
      uncompress(
        destination.bindMemory(to: UInt8.self).baseAddress, &found,
        source.bindMemory(to: UInt8.self).baseAddress?.advanced(by: 4), uLong(compressed.count - 4))
    }
  }
  guard status == Z_OK, found == uLong(count) else { return nil }
  return words.map { UInt32(littleEndian: $0) }
}

private func sixBits(of character: UInt8) -> UInt32? {
  switch character {
  case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character - UInt8(ascii: "A"))
  case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character - UInt8(ascii: "a")) + 26
  case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character - UInt8(ascii: "0")) + 52
  case UInt8(ascii: "+"): 62
  case UInt8(ascii: "/"): 63
  default: nil
  }
}
