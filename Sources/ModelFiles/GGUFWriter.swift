/// Writes GGUF files of version 3: synthesised models and test files.
///
/// Metadata and tensors are declared first; `write` then lays the file out and asks for each tensor's bytes in
/// turn, so that a model larger than memory can be written.
package struct GGUFWriter {
  /// Calls back with the next bytes of a tensor, in as many pieces as suit.
  package typealias Emit = (UnsafeRawBufferPointer) throws -> Void

  private var keys: [String] = []
  private var metadata: [String: MetadataValue] = [:]
  private var tensors: [TensorInfo] = []

  package init() {}

  /// Adds a metadata key, or replaces its value.
  package mutating func set(_ key: String, _ value: MetadataValue) {
    if metadata.updateValue(value, forKey: key) == nil { keys.append(key) }
  }

  /// Declares the next tensor; where `tensor` says that it lies is ignored.
  package mutating func add(_ tensor: TensorInfo) { tensors.append(tensor) }

  /// Writes the file, replacing any that is there once the new one is complete.
  ///
  /// - Parameters:
  ///   - path: the file. Until it is complete it is called `path` with `.partial` after it.
  ///   - contents: called once for each tensor in order; emits its `byteCount` bytes in its own format.
  /// - Throws: `ModelFileError` when the file cannot be written; whatever `contents` throws.
  package func write(to path: String, contents: (TensorInfo, Emit) throws -> Void) throws {
    let header = try encodeHeader(path)
    let output = try OutputFile(path: path)
    try header.withUnsafeBytes { try output.write($0) }
    for tensor in tensors {
      var written = 0
      try contents(tensor) { bytes in
        written += bytes.count
        try output.write(bytes)
      }
      guard written == tensor.byteCount else {
        throw ModelFileError(
          path: path,
          reason:
            "tensor '\(printable(tensor.name))' has \(tensor.byteCount) bytes, and \(written) were given")
      }
      let zeros = [UInt8](repeating: 0, count: padding(written, alignment))
      try zeros.withUnsafeBytes { try output.write($0) }
    }
    try output.finish()
  }

  /// Writes the file with every declared tensor's bytes taken from `source`.
  ///
  /// - Throws: `ModelFileError` when the file cannot be written or `source` lacks a tensor or has it in another shape.
  package func write(to path: String, from source: some TensorSource) throws {
    try write(to: path) { tensor, emit in
      guard let found = source.tensor(tensor.name), found.shape == tensor.shape, found.type == tensor.type
      else {
        throw ModelFileError(
          path: path, reason: "there are no weights for tensor '\(printable(tensor.name))'")
      }
      // Some MiB at a time: enough to write at full speed, little enough to hold.
      let step = max(1, (4 << 20) / found.rowBytes)
      for row in stride(from: 0, to: found.rows, by: step) {
        try source.withBytes(of: found, rows: row..<min(row + step, found.rows), emit)
      }
    }
  }

  /// What tensors' places in the file are multiples of.
  private var alignment: Int { metadata["general.alignment"]?.int ?? 32 }

  private func encodeHeader(_ path: String) throws(ModelFileError) -> [UInt8] {
    guard alignment > 0, alignment & (alignment - 1) == 0 else {
      throw ModelFileError(
        path: path, reason: "general.alignment is \(alignment), and must be a power of two")
    }
    var encoder = Encoder()
    encoder.append(Array("GGUF".utf8))
    encoder.append(UInt32(3))
    encoder.append(UInt64(tensors.count))
    encoder.append(UInt64(keys.count))
    for key in keys {
      encoder.append(key)
      encoder.append(metadata[key]!)
    }
    var offset: UInt64 = 0
    for tensor in tensors {
      encoder.append(tensor.name)
      encoder.append(UInt32(tensor.shape.count))
      for size in tensor.shape { encoder.append(UInt64(size)) }
      encoder.append(tensor.type.rawValue)
      encoder.append(offset)
      let size = UInt64(tensor.byteCount) + UInt64(padding(tensor.byteCount, alignment))
      let (sum, overflow) = offset.addingReportingOverflow(size)
      guard !overflow else {
        throw ModelFileError(path: path, reason: "the model is larger than any file can be")
      }
      offset = sum
    }
    encoder.append([UInt8](repeating: 0, count: padding(encoder.bytes.count, alignment)))
    return encoder.bytes
  }
}

/// Bytes from `count` to the next multiple of `alignment`, a power of two.
private func padding(_ count: Int, _ alignment: Int) -> Int { -count & (alignment - 1) }

/// Builds a header in memory, in the order in which `GGUFHeader` reads it.
private struct Encoder {
  private(set) var bytes: [UInt8] = []

  mutating func append(_ more: [UInt8]) { bytes += more }

  mutating func append<T: BitwiseCopyable>(_ value: T) { withUnsafeBytes(of: value) { bytes += $0 } }

  mutating func append(_ text: String) {
    append(UInt64(text.utf8.count))
    bytes += text.utf8
  }

  mutating func append(_ value: MetadataValue) {
    switch value {
    case .uint8(let value): scalar(0, value)
    case .int8(let value): scalar(1, value)
    case .uint16(let value): scalar(2, value)
    case .int16(let value): scalar(3, value)
    case .uint32(let value): scalar(4, value)
    case .int32(let value): scalar(5, value)
    case .float32(let value): scalar(6, value)
    case .bool(let value): scalar(7, UInt8(value ? 1 : 0))
    case .string(let value):
      append(UInt32(8))
      append(value)
    case .uint64(let value): scalar(10, value)
    case .int64(let value): scalar(11, value)
    case .float64(let value): scalar(12, value)
    case .uint8Array(let values): array(0, values)
    case .int8Array(let values): array(1, values)
    case .uint16Array(let values): array(2, values)
    case .int16Array(let values): array(3, values)
    case .uint32Array(let values): array(4, values)
    case .int32Array(let values): array(5, values)
    case .float32Array(let values): array(6, values)
    case .boolArray(let values): array(7, values.map { UInt8($0 ? 1 : 0) })
    case .stringArray(let values):
      arrayStart(8, values.count)
      for value in values { append(value) }
    case .uint64Array(let values): array(10, values)
    case .int64Array(let values): array(11, values)
    case .float64Array(let values): array(12, values)
    }
  }

  private mutating func scalar<T: BitwiseCopyable>(_ type: UInt32, _ value: T) {
    append(type)
    append(value)
  }

  private mutating func array<T: BitwiseCopyable>(_ type: UInt32, _ values: [T]) {
    arrayStart(type, values.count)
    values.withUnsafeBytes { bytes += $0 }
  }

  private mutating func arrayStart(_ type: UInt32, _ count: Int) {
    append(UInt32(9))
    append(type)
    append(UInt64(count))
  }
}
