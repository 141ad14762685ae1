/// What stands before the weights in one GGUF file: metadata, and where each tensor lies.
///
/// Follows the GGUF specification (versions 2 and 3, little-endian). Everything a file claims is checked against
/// its size with overflow-checked arithmetic, so parsing a hostile file costs bounded time and memory, and the
/// tensors of a header that parsed lie inside the file.
package struct GGUFHeader: Sendable {
  /// More than any model has (one of 61 layers with 384 unmerged experts has 70 000); bounds a hostile file's cost.
  static let tensorLimit: UInt64 = 1 << 17
  /// Likewise for metadata; real files have some tens of keys.
  static let keyLimit: UInt64 = 1 << 16
  /// `GGML_MAX_DIMS`.
  static let dimensionLimit: UInt32 = 4

  /// Version of the format, 2 or 3.
  package let version: Int
  package let metadata: [String: MetadataValue]
  /// The keys of `metadata` in file order.
  package let metadataKeys: [String]
  /// In file order, offsets from the start of the file.
  package let tensors: [TensorInfo]
  /// Indices in `tensors` by name.
  let tensorIndices: [String: Int]

  /// Parses the start of `bytes`, which hold a whole file.
  ///
  /// - Parameters:
  ///   - path: names the file in errors.
  ///   - file: the number of this file in a split model, for `TensorInfo.file`.
  package init(parsing bytes: UnsafeRawBufferPointer, path: String, file: Int = 0) throws(ModelFileError) {
    if let reason = reasonNotGGUF(bytes) { throw ModelFileError(path: path, reason: reason) }
    var reader = ByteReader(bytes, path: path)
    _ = try reader.read(UInt32.self, "the magic number")
    version = Int(try reader.read(UInt32.self, "the version"))
    let tensorCount = try reader.read(UInt64.self, "the number of tensors")
    let keyCount = try reader.read(UInt64.self, "the number of metadata keys")
    guard tensorCount <= Self.tensorLimit else {
      throw reader.failure(
        "corrupt: claims \(tensorCount) tensors, and no model has more than \(Self.tensorLimit); "
          + "download the file again")
    }
    guard keyCount <= Self.keyLimit else {
      throw reader.failure(
        "corrupt: claims \(keyCount) metadata keys, and no model has more than \(Self.keyLimit); "
          + "download the file again")
    }
    (metadata, metadataKeys) = try Self.readMetadata(&reader, count: Int(keyCount))
    let alignment = try Self.alignment(metadata, reader)
    (tensors, tensorIndices) = try Self.readTensors(
      &reader, count: Int(tensorCount), alignment: alignment, file: file)
  }

  package func tensor(_ name: String) -> TensorInfo? { tensorIndices[name].map { tensors[$0] } }

  // MARK: - Metadata

  private static func readMetadata(
    _ reader: inout ByteReader, count: Int
  ) throws(ModelFileError) -> ([String: MetadataValue], [String]) {
    var metadata: [String: MetadataValue] = [:]
    var keys: [String] = []
    for number in 0..<count {
      let key = try reader.readName("the name of metadata key \(number + 1) of \(count)")
      let value = try readValue(&reader, key: key)
      guard metadata.updateValue(value, forKey: key) == nil else {
        throw reader.failure(
          "corrupt: metadata key '\(printable(key))' occurs twice; convert the model again")
      }
      keys.append(key)
    }
    return (metadata, keys)
  }

  private static func readValue(_ reader: inout ByteReader, key: String) throws(ModelFileError)
    -> MetadataValue
  {
    func what() -> String { "metadata '\(printable(key))'" }
    let type = try reader.read(UInt32.self, what())
    switch type {
    case 0: return .uint8(try reader.read(UInt8.self, what()))
    case 1: return .int8(try reader.read(Int8.self, what()))
    case 2: return .uint16(try reader.read(UInt16.self, what()))
    case 3: return .int16(try reader.read(Int16.self, what()))
    case 4: return .uint32(try reader.read(UInt32.self, what()))
    case 5: return .int32(try reader.read(Int32.self, what()))
    case 6: return .float32(try reader.read(Float.self, what()))
    case 7: return .bool(try reader.read(UInt8.self, what()) != 0)
    case 8: return .string(try reader.readText(what()))
    case 9: return try readArray(&reader, key: key)
    case 10: return .uint64(try reader.read(UInt64.self, what()))
    case 11: return .int64(try reader.read(Int64.self, what()))
    case 12: return .float64(try reader.read(Double.self, what()))
    default:
      throw reader.failure(
        "corrupt: \(what()) has value type \(type), and the last known is 12; download the file again")
    }
  }

  private static func readArray(_ reader: inout ByteReader, key: String) throws(ModelFileError)
    -> MetadataValue
  {
    func what() -> String { "the array in metadata '\(printable(key))'" }
    let type = try reader.read(UInt32.self, what())
    let count = try reader.read(UInt64.self, what())
    switch type {
    case 0: return .uint8Array(try reader.readArray(of: UInt8.self, count: count, what()))
    case 1: return .int8Array(try reader.readArray(of: Int8.self, count: count, what()))
    case 2: return .uint16Array(try reader.readArray(of: UInt16.self, count: count, what()))
    case 3: return .int16Array(try reader.readArray(of: Int16.self, count: count, what()))
    case 4: return .uint32Array(try reader.readArray(of: UInt32.self, count: count, what()))
    case 5: return .int32Array(try reader.readArray(of: Int32.self, count: count, what()))
    case 6: return .float32Array(try reader.readArray(of: Float.self, count: count, what()))
    case 7: return .boolArray(try reader.readArray(of: UInt8.self, count: count, what()).map { $0 != 0 })
    case 8: return .stringArray(try reader.readTexts(count: count, what()))
    case 9:
      throw reader.failure("\(what()) holds arrays, which no known model uses; convert the model again")
    case 10: return .uint64Array(try reader.readArray(of: UInt64.self, count: count, what()))
    case 11: return .int64Array(try reader.readArray(of: Int64.self, count: count, what()))
    case 12: return .float64Array(try reader.readArray(of: Double.self, count: count, what()))
    default:
      throw reader.failure(
        "corrupt: \(what()) has element type \(type), and the last known is 12; download the file again")
    }
  }

  /// What tensor offsets are multiples of, and where the weights start: a power of two, 32 unless the file says.
  private static func alignment(
    _ metadata: [String: MetadataValue], _ reader: ByteReader
  ) throws(ModelFileError) -> UInt64 {
    guard let value = metadata["general.alignment"] else { return 32 }
    guard let alignment = value.int, alignment > 0, alignment & (alignment - 1) == 0 else {
      throw reader.failure("corrupt: general.alignment is not a power of two; convert the model again")
    }
    return UInt64(alignment)
  }

  // MARK: - Tensors

  private static func readTensors(
    _ reader: inout ByteReader, count: Int, alignment: UInt64, file: Int
  ) throws(ModelFileError) -> ([TensorInfo], [String: Int]) {
    var tensors: [TensorInfo] = []
    var indices: [String: Int] = [:]
    for number in 0..<count {
      let tensor = try readTensor(&reader, number: number, of: count, alignment: alignment, file: file)
      guard indices.updateValue(number, forKey: tensor.name) == nil else {
        throw reader.failure(
          "corrupt: tensor '\(printable(tensor.name))' occurs twice; convert the model again")
      }
      tensors.append(tensor)
    }
    // Offsets in the file count from the end of its header, rounded up to the alignment.
    let (padded, overflow) = UInt64(reader.offset).addingReportingOverflow(alignment - 1)
    let start = padded & ~(alignment - 1)
    for index in tensors.indices {
      let (offset, offsetOverflow) = start.addingReportingOverflow(tensors[index].offset)
      let (end, endOverflow) = offset.addingReportingOverflow(UInt64(tensors[index].byteCount))
      guard !overflow, !offsetOverflow, !endOverflow, end <= UInt64(reader.fileSize) else {
        throw reader.failure(
          "cut short or corrupt: tensor '\(printable(tensors[index].name))' has \(tensors[index].byteCount) bytes "
            + "at byte \(tensors[index].offset) of the weights, which start at byte \(start), but the file has "
            + "\(reader.fileSize) bytes; download it again")
      }
      tensors[index].offset = offset
    }
    return (tensors, indices)
  }

  /// One tensor, its offset still relative to the start of the weights.
  private static func readTensor(
    _ reader: inout ByteReader, number: Int, of count: Int, alignment: UInt64, file: Int
  ) throws(ModelFileError) -> TensorInfo {
    let name = try reader.readName("the name of tensor \(number + 1) of \(count)")
    func what() -> String { "tensor '\(printable(name))'" }
    let dimensions = try reader.read(UInt32.self, what())
    guard (1...dimensionLimit).contains(dimensions) else {
      throw reader.failure(
        "corrupt: \(what()) has \(dimensions) dimensions, and GGUF allows 1 to \(dimensionLimit); "
          + "download the file again")
    }
    let sizes = try reader.readArray(of: UInt64.self, count: UInt64(dimensions), what())
    let rawType = try reader.read(UInt32.self, what())
    let offset = try reader.read(UInt64.self, what())
    let type = try tensorType(rawType, of: name, reader)
    guard !sizes.contains(0) else {
      throw reader.failure("corrupt: \(what()) has a dimension of size 0; convert the model again")
    }
    guard sizes[0].isMultiple(of: UInt64(type.blockSize)) else {
      throw reader.failure(
        "corrupt: \(what()) has rows of \(sizes[0]) weights, not a multiple of \(type.name)'s \(type.blockSize); "
          + "convert the model again")
    }
    let shape = sizes.compactMap(Int.init(exactly:))
    guard shape.count == sizes.count, var tensor = TensorInfo(name: name, shape: shape, type: type) else {
      throw reader.failure(
        "corrupt: \(what()) claims \(sizes.map(String.init).joined(separator: " x ")) weights, more than any "
          + "memory holds; download the file again")
    }
    guard offset.isMultiple(of: alignment) else {
      throw reader.failure(
        "corrupt: \(what()) lies at byte \(offset) of the weights, not a multiple of the alignment \(alignment); "
          + "convert the model again")
    }
    tensor.file = file
    tensor.offset = offset
    return tensor
  }

  private static func tensorType(
    _ raw: UInt32, of name: String, _ reader: ByteReader
  ) throws(ModelFileError) -> TensorType {
    if let type = TensorType(rawValue: raw) { return type }
    let tensor = "tensor '\(printable(name))'"
    guard let format = unsupportedTypes[raw] else {
      throw reader.failure("\(tensor) has type \(raw), which no known format has; download the file again")
    }
    throw reader.failure(
      "\(tensor) is stored as \(format), which cannot be read; use a file with weights in "
        + TensorType.allCases.map(\.name).joined(separator: ", "))
  }

  /// Formats that GGUF files hold and that are not read, to name them in the error.
  private static let unsupportedTypes: [UInt32: String] = [
    9: "q8_1", 15: "q8_k", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 21: "iq3_s", 22: "iq2_s",
    24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 29: "iq1_m", 31: "q4_0_4_4", 32: "q4_0_4_8",
    33: "q4_0_8_8", 34: "tq1_0", 35: "tq2_0", 40: "nvfp4", 41: "q1_0",
  ]
}
