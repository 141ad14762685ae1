import CVKInfer

/// What callers hand over is a claim: every pointer, length and struct is looked at here before it is used.
enum Arguments {
  /// The most bytes of a text: what is longer is a mistake.
  static let mostBytes = 1 << 30

  static func missing(_ name: String) -> Failure {
    Failure(VKINFER_ERROR_ARGUMENT, "\(name) is NULL")
  }

  /// A text that ends with a 0 byte.
  static func text(_ pointer: UnsafePointer<CChar>?, _ name: String) throws -> String {
    guard let pointer else { throw missing(name) }
    guard let text = String(validatingCString: pointer) else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "\(name) is not UTF-8")
    }
    return text
  }

  static func optionalText(_ pointer: UnsafePointer<CChar>?, _ name: String) throws -> String? {
    pointer == nil ? nil : try text(pointer, name)
  }

  /// A text of so many bytes.
  static func text(_ pointer: UnsafePointer<CChar>?, length: Int, _ name: String) throws -> String {
    let bytes = try elements(pointer, count: length, name)
    guard let text = String(validating: bytes.lazy.map { UInt8(bitPattern: $0) }, as: UTF8.self) else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "\(name) is not UTF-8")
    }
    return text
  }

  /// An array that the caller owns.
  static func elements<Element>(
    _ pointer: UnsafePointer<Element>?, count: Int, _ name: String
  ) throws -> UnsafeBufferPointer<Element> {
    // A size_t above Int.max comes as a negative number.
    guard (0...mostBytes / MemoryLayout<Element>.stride).contains(count) else {
      throw Failure(
        VKINFER_ERROR_ARGUMENT, "\(name): \(UInt(bitPattern: count)) elements are more than 1 GiB")
    }
    guard pointer != nil || count == 0 else { throw missing(name) }
    return UnsafeBufferPointer(start: pointer, count: count)
  }

  /// Writes an out parameter.
  static func out<Value>(_ pointer: UnsafeMutablePointer<Value>?, _ name: String) throws
    -> UnsafeMutablePointer<Value>
  {
    guard let pointer else { throw missing(name) }
    return pointer
  }

  /// Gives out `values`, and how many they are; only that for a NULL buffer without capacity.
  static func deliver<Element>(
    _ values: [Element], to buffer: UnsafeMutablePointer<Element>?, capacity: Int,
    count: UnsafeMutablePointer<Int>?, terminator: [Element] = []
  ) throws {
    try out(count, "the count").pointee = values.count
    guard buffer != nil || capacity != 0 else { return }
    guard let buffer else { throw missing("a buffer with a capacity") }
    let needed = values.count + terminator.count
    guard UInt(bitPattern: capacity) >= UInt(needed) else {
      throw Failure(
        VKINFER_ERROR_BUFFER, "the buffer has room for \(UInt(bitPattern: capacity)), and needs \(needed)")
    }
    for (index, value) in values.enumerated() { buffer[index] = value }
    for (index, value) in terminator.enumerated() { buffer[values.count + index] = value }
  }

  /// The same for a text, with a 0 byte at its end.
  static func deliver(
    _ text: String, to buffer: UnsafeMutablePointer<CChar>?, capacity: Int,
    length: UnsafeMutablePointer<Int>?
  ) throws {
    try deliver(
      text.utf8.map { CChar(bitPattern: $0) }, to: buffer, capacity: capacity, count: length, terminator: [0])
  }

  // MARK: - Structs with a size

  /// Programs made for another version hand over structs of another length.
  private static func size(_ pointer: UnsafeRawPointer, _ name: String) throws -> Int {
    let size = pointer.loadUnaligned(as: UInt32.self)
    guard (8...4096).contains(size) else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "\(name): size is \(size); set it to sizeof(\(name))")
    }
    return Int(size)
  }

  /// The caller's options; those that it does not know of are as in `defaults`.
  static func options<Options>(
    _ pointer: UnsafePointer<Options>?, defaults: Options, _ name: String
  ) throws -> Options {
    guard let pointer = UnsafeRawPointer(pointer) else { return defaults }
    let size = try size(pointer, name)
    let known = MemoryLayout<Options>.size
    for offset in min(known, size)..<size where pointer.load(fromByteOffset: offset, as: UInt8.self) != 0 {
      throw Failure(
        VKINFER_ERROR_UNSUPPORTED, "\(name) sets options that this version of the library does not know")
    }
    var options = defaults
    withUnsafeMutableBytes(of: &options) {
      $0.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: min(known, size)))
    }
    return options
  }

  /// Fills in a struct of the caller: as much of `value` as it has room for.
  static func fill<Value>(_ pointer: UnsafeMutablePointer<Value>?, with value: Value, _ name: String) throws {
    let raw = UnsafeMutableRawPointer(try out(pointer, name))
    fill(raw, size: try size(raw, name), with: value)
  }

  /// Fills in the first `size` bytes, and writes the size.
  static func fillDefaults<Value>(
    _ pointer: UnsafeMutablePointer<Value>?, size: Int, with value: Value, _ name: String
  ) throws {
    let raw = UnsafeMutableRawPointer(try out(pointer, name))
    guard (8...4096).contains(size) else {
      throw Failure(
        VKINFER_ERROR_ARGUMENT, "\(name): size is \(UInt(bitPattern: size)); give sizeof(\(name))")
    }
    raw.storeBytes(of: UInt32(size), as: UInt32.self)
    fill(raw, size: size, with: value)
  }

  static func fill<Value>(_ raw: UnsafeMutableRawPointer, size: Int, with value: Value) {
    withUnsafeBytes(of: value) { bytes in
      for offset in 4..<size {
        raw.storeBytes(of: offset < bytes.count ? bytes[offset] : 0, toByteOffset: offset, as: UInt8.self)
      }
    }
  }

  /// Writes a text into an array of a struct, cut to whole characters, with a 0 byte.
  static func set<Characters>(_ array: inout Characters, _ text: String) {
    withUnsafeMutableBytes(of: &array) { bytes in
      var room = bytes.count - 1
      for byte in bytes.indices { bytes[byte] = 0 }
      var offset = 0
      for scalar in text.unicodeScalars {
        let utf8 = UTF8.encode(scalar).map(Array.init) ?? []
        guard utf8.count <= room else { break }
        for byte in utf8 {
          bytes[offset] = byte
          offset += 1
        }
        room -= utf8.count
      }
    }
  }
}
