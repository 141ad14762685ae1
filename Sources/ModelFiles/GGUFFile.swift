/// A model in GGUF files, mapped into memory: tensors are never copied.
///
/// A model split over several files (`name-00001-of-00003.gguf` and so on) opens whole from any one of them; its
/// metadata is the first file's. A file with a vocabulary and no weights opens too. The bytes of tensors stay valid
/// while the `GGUFFile` lives; see `MappedFile` for files that shrink after they were opened.
package final class GGUFFile: Sendable {
  /// Every file of the model, in the order of its parts.
  package let paths: [String]
  /// Version of the GGUF format of the first file, 2 or 3.
  package let version: Int
  package let metadata: [String: MetadataValue]
  /// The keys of `metadata` in file order.
  package let metadataKeys: [String]
  package let tensors: [TensorInfo]
  private let tensorIndices: [String: Int]
  private let files: [MappedFile]

  /// Opens a model.
  ///
  /// - Throws: one line on what is wrong when a file cannot be opened, is no GGUF file of version 2 or 3, holds
  ///   weights in an unknown format, is cut short, or claims anything that its size does not bear out.
  package init(path: String) throws(ModelFileError) {
    let opened = try MappedFile(path: path)
    let header = try GGUFHeader(parsing: opened.bytes, path: path)
    guard let part = try SplitPart(header, path: path) else {
      paths = [path]
      files = [opened]
      (version, metadata, metadataKeys) = (header.version, header.metadata, header.metadataKeys)
      (tensors, tensorIndices) = (header.tensors, header.tensorIndices)
      return
    }

    var files: [MappedFile] = []
    var first: GGUFHeader?
    var tensors: [TensorInfo] = []
    var indices: [String: Int] = [:]
    for number in 0..<part.count {
      let partPath = part.path(ofPart: number)
      let file = number == part.number ? opened : try MappedFile(path: partPath)
      let header = try GGUFHeader(parsing: file.bytes, path: partPath, file: number)
      guard let found = try SplitPart(header, path: partPath), found.count == part.count else {
        throw ModelFileError(
          path: partPath,
          reason: "is not part \(number + 1) of the \(part.count) of \(printable(path, limit: 4096))")
      }
      for tensor in header.tensors {
        guard indices.updateValue(tensors.count, forKey: tensor.name) == nil else {
          throw ModelFileError(
            path: partPath,
            reason: "tensor '\(printable(tensor.name))' is in an earlier part too; download the parts again")
        }
        tensors.append(tensor)
      }
      files.append(file)
      if number == 0 { first = header }
    }
    guard let first else { throw ModelFileError(path: path, reason: "corrupt: split into no parts") }
    if let total = first.metadata["split.tensors.count"]?.int, total != tensors.count {
      throw ModelFileError(
        path: path,
        reason: "the model's parts hold \(tensors.count) tensors, and its first part promises \(total); "
          + "download all parts again")
    }
    paths = (0..<part.count).map(part.path(ofPart:))
    (version, metadata, metadataKeys) = (first.version, first.metadata, first.metadataKeys)
    (self.files, self.tensors, tensorIndices) = (files, tensors, indices)
  }

  /// The tensor of that name, or nil.
  package func tensor(_ name: String) -> TensorInfo? { tensorIndices[name].map { tensors[$0] } }

  /// The bytes of a whole tensor, valid while this object lives.
  ///
  /// - Precondition: `tensor` is one of `tensors`.
  package func bytes(of tensor: TensorInfo) -> UnsafeRawBufferPointer {
    let start = Int(tensor.offset)
    return UnsafeRawBufferPointer(rebasing: files[tensor.file].bytes[start..<start + tensor.byteCount])
  }
}

extension GGUFFile: TensorSource {
  package func withBytes<R>(
    of tensor: TensorInfo, rows: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R
  ) throws -> R {
    let range = rows.lowerBound * tensor.rowBytes..<rows.upperBound * tensor.rowBytes
    return try withExtendedLifetime(self) {
      let bytes = UnsafeRawBufferPointer(rebasing: bytes(of: tensor)[range])
      defer { files[tensor.file].release(bytes) }
      return try body(bytes)
    }
  }
}
