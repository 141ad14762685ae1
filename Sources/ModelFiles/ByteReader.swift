/// Reads the header of a model file from front to back, never past its end.
///
/// Every count and length comes from the file and is a claim: it is compared with the bytes that are left before
/// anything is allocated for it. Numbers are little-endian, as is every machine that this runs on.
struct ByteReader {
  /// Bytes that a header may have. The largest known (a 262 144-token vocabulary with its merges) have some 15 MiB;
  /// the limit bounds the time and memory that a hostile file can cost.
  static let headerLimit = 64 << 20

  let bytes: UnsafeRawBufferPointer
  let path: String
  /// Bytes of the whole file, of which `bytes` may be only the first part.
  let fileSize: Int
  private(set) var offset = 0

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
    String(decoding: try readStringBytes(what()), as: UTF8.self)
  }

  /// A name (of a key or a tensor): UTF-8 or an error, because repaired names could collide.
  mutating func readName(_ what: @autoclosure () -> String) throws(ModelFileError) -> String {
    let start = offset
    let name = try readStringBytes(what())
    guard let text = String(validating: name, as: UTF8.self) else {
      throw failure("corrupt: \(what()) at byte \(start) is not UTF-8; download the file again")
    }
    return text
  }
}
