/// The characters by which byte-level vocabularies write bytes (GPT-2's table).
///
/// Printable bytes of Latin-1 stand for themselves; the other 68 are U+0100 and up, in order.
enum ByteLevelAlphabet {
  /// The character for each byte.
  static let scalars: [Unicode.Scalar] = {
    var next: UInt32 = 0x100
    return (0...255).map { (byte: UInt32) in
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF:
        return Unicode.Scalar(UInt8(byte))
      default:
        defer { next += 1 }
        return Unicode.Scalar(next) ?? "\u{FFFD}"
      }
    }
  }()

  /// The byte for each character from U+0000 to U+0143; nil where it stands for none.
  private static let bytes: [UInt8?] = {
    var bytes = [UInt8?](repeating: nil, count: 0x144)
    for (byte, scalar) in scalars.enumerated() { bytes[Int(scalar.value)] = UInt8(byte) }
    return bytes
  }()

  /// The bytes that `text` writes; a character outside the alphabet stands for itself, as it does in tokens added to
  /// a vocabulary by hand.
  static func decode(_ text: String) -> [UInt8] {
    var result: [UInt8] = []
    for scalar in text.unicodeScalars {
      if Int(scalar.value) < bytes.count, let byte = bytes[Int(scalar.value)] {
        result.append(byte)
      } else {
        result.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
      }
    }
    return result
  }
}
