/// Reads the header of a model file from front to back, never past its end.
///
/// Every count and length comes from the file and is a claim: it is compared with the bytes that are left before
/// anything is allocated for it. Numbers are little-endian, as is every machine that this runs on.
struct ByteReader {
  /// Bytes that a header may have. The largest known (a 262 144-token vocabulary with its merges) have some 15 MiB;
  /// the limit bounds the time and memory that a hostile file can cost.
  static let headerLimit = 64 << 20
  /// Bytes that the name of a key or tensor may have, as the GGUF specification has it for keys.
  static let nameLimit = 65_535
  /// Texts that the arrays of a header may hold together: some 800 000 in the largest known, tokens and merges.
  static let textLimit = 1 << 21
  /// Bytes of text that are not UTF-8 in a header, all texts together: repairing them is slow, and real files have
  /// few.
  static let repairLimit = 4 << 20
  /// Combining marks that a text may have in a row, as in Unicode's stream-safe text format (UAX #15). To compare
  /// texts takes time with the square of it.
  static let markLimit = 30

  let bytes: UnsafeRawBufferPointer
  let path: String
  /// Bytes of the whole file, of which `bytes` may be only the first part.
  let fileSize: Int
  private(set) var offset = 0
  private var textCount = 0
  private var repairedBytes = 0

  init(_ bytes: UnsafeRawBufferPointer, path: String) {
    self.bytes = UnsafeRawBufferPointer(rebasing: bytes.prefix(Self.headerLimit))
    self.path = path
    fileSize = bytes.count
  }

  var remaining: Int { bytes.count - offset }

  func failure(_ reason: String) -> ModelFileError { ModelFileError(path: path, reason: reason) }

  /// The error for something that needs more bytes than the header has left.
  func tooShort(_ what: String, needs: String) -> ModelFileError {
    if fileSize > Self.headerLimit {
      return failure(
        "corrupt: \(what) needs \(needs) bytes and would reach past the first \(Self.headerLimit >> 20) MiB, "
          + "where no model's header ends; download the file again")
    }
    return failure(
      "cut short or corrupt: \(what) needs \(needs) bytes at byte \(offset), but \(remaining) are left; "
        + "download the file again")
  }

  /// A number as it lies in the file. `what` names it in an error.
  mutating func read<T: BitwiseCopyable>(_: T.Type, _ what: @autoclosure () -> String) throws(ModelFileError)
    -> T
  {
    let size = MemoryLayout<T>.size
    guard remaining >= size else { throw tooShort(what(), needs: "\(size)") }
    let value = bytes.loadUnaligned(fromByteOffset: offset, as: T.self)
    offset += size
    return value
  }

  /// `count` numbers, as they lie in the file.
  mutating func readArray<T: BitwiseCopyable>(
    of _: T.Type, count: UInt64, _ what: @autoclosure () -> String
  ) throws(ModelFileError) -> [T] {
    guard count <= UInt64(remaining / MemoryLayout<T>.size), let count = Int(exactly: count) else {
      throw tooShort(what(), needs: "\(count) times \(MemoryLayout<T>.size)")
    }
    let source = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count * MemoryLayout<T>.size])
    offset += source.count
    return [T](unsafeUninitializedCapacity: count) { buffer, initialized in
      UnsafeMutableRawBufferPointer(buffer).copyMemory(from: source)
      initialized = count
    }
  }

  /// The bytes of a string: a 64-bit length, then that many bytes.
  mutating func readStringBytes(_ what: @autoclosure () -> String) throws(ModelFileError)
    -> UnsafeRawBufferPointer
  {
    let length = try read(UInt64.self, what())
    guard length <= UInt64(remaining), let length = Int(exactly: length) else {
      throw tooShort(what(), needs: "\(length)")
    }
    defer { offset += length }
    return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + length])
  }

  /// A text. Bytes that are not UTF-8 become U+FFFD: they occur in the descriptions of real models.
  mutating func readText(_ what: @autoclosure () -> String) throws(ModelFileError) -> String {
    let bytes = try readStringBytes(what())
    let valid = String(validating: bytes, as: UTF8.self)
    if valid == nil {
      repairedBytes += bytes.count
      guard repairedBytes <= Self.repairLimit else {
        throw failure("corrupt: \(what()) is not UTF-8; download the file again")
      }
    }
    let text = valid ?? String(decoding: bytes, as: UTF8.self)
    guard !hasLongRunOfMarks(text) else {
      throw failure(
        "corrupt: \(what()) has more than \(Self.markLimit) combining marks in a row; download the file again"
      )
    }
    return text
  }

  private func hasLongRunOfMarks(_ text: String) -> Bool {
    // No mark takes less than two bytes.
    guard text.utf8.count > 2 * Self.markLimit else { return false }
    var run = 0
    for scalar in text.unicodeScalars {
      // The first mark is U+0300.
      if scalar.value >= 0x300, scalar.properties.canonicalCombiningClass != .notReordered {
        run += 1
        if run > Self.markLimit { return true }
      } else {
        run = 0
      }
    }
    return false
  }

  /// `count` texts.
  mutating func readTexts(count: UInt64, _ what: @autoclosure () -> String) throws(ModelFileError) -> [String]
  {
    // Each takes at least the 8 bytes of its length.
    guard count <= UInt64(remaining / 8) else { throw tooShort(what(), needs: "\(count) times 8") }
    textCount += Int(count)
    guard textCount <= Self.textLimit else {
      throw failure(
        "corrupt: \(what()) brings the file to \(textCount) texts, and no model has more than \(Self.textLimit); "
          + "download the file again")
    }
    var texts: [String] = []
    texts.reserveCapacity(Int(count))
    for _ in 0..<count { texts.append(try readText(what())) }
    return texts
  }

  /// The name of a key or a tensor: ASCII. Others would be compared by Unicode's canonical equivalence, under which
  /// different names are equal and hostile ones take hours.
  mutating func readName(_ what: @autoclosure () -> String) throws(ModelFileError) -> String {
    let start = offset
    let name = try readStringBytes(what())
    guard name.count <= Self.nameLimit else {
      throw failure(
        "corrupt: \(what()) at byte \(start) has \(name.count) bytes, and GGUF allows \(Self.nameLimit); "
          + "download the file again")
    }
    guard name.allSatisfy({ $0 < 0x80 }) else {
      throw failure("corrupt: \(what()) at byte \(start) is not ASCII; download the file again")
    }
    return String(decoding: name, as: UTF8.self)
  }
}
