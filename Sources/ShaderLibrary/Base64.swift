/// Decodes base64 into little-endian words; nil when the text is not base64 of whole words.
func words(base64 text: UnsafeBufferPointer<UInt8>) -> [UInt32]? {
  guard text.count.isMultiple(of: 4) else { return nil }
  let padding = text.suffix(2).count { $0 == UInt8(ascii: "=") }
  let byteCount = text.count / 4 * 3 - padding
  guard byteCount.isMultiple(of: 4) else { return nil }

  var words: [UInt32] = []
  words.reserveCapacity(byteCount / 4)
  var word: UInt32 = 0
  var bytesInWord: UInt32 = 0
  var bits: UInt32 = 0
  var bitCount = 0
  for character in text.dropLast(padding) {
    guard let value = sixBits(of: character) else { return nil }
    bits = bits << 6 | value
    bitCount += 6
    guard bitCount >= 8 else { continue }
    bitCount -= 8
    word |= (bits >> UInt32(bitCount) & 0xff) << (8 * bytesInWord)
    bytesInWord += 1
    if bytesInWord == 4 {
      words.append(word)
      word = 0
      bytesInWord = 0
    }
  }
  return words
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
