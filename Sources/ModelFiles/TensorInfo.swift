/// What a model says of one tensor: its name, shape, format, and where its bytes lie.
package struct TensorInfo: Sendable, Hashable {
  package var name: String
  /// Sizes in GGUF order: `shape[0]` is the contiguous dimension (columns), `shape[1]` counts rows.
  package var shape: [Int]
  package var type: TensorType
  /// Which file of a split model holds it, from 0.
  package var file: Int
  /// First byte of the tensor, from the start of that file.
  package var offset: UInt64
  /// Bytes of the whole tensor.
  package var byteCount: Int

  /// - Precondition: `shape` is not empty, its sizes are positive and `byteCount` is theirs in `type`.
  package init(name: String, shape: [Int], type: TensorType, file: Int, offset: UInt64, byteCount: Int) {
    self.name = name
    self.shape = shape
    self.type = type
    self.file = file
    self.offset = offset
    self.byteCount = byteCount
  }

  /// A tensor that lies in no file: one to synthesise or to write. Nil when `shape` is empty, has a size that is
  /// not positive, has rows that are not whole blocks of `type`, or overflows.
  package init?(name: String, shape: [Int], type: TensorType) {
    guard let columns = shape.first, columns.isMultiple(of: type.blockSize) else { return nil }
    var weights = 1
    for size in shape {
      let (product, overflow) = weights.multipliedReportingOverflow(by: size)
      guard size > 0, !overflow else { return nil }
      weights = product
    }
    guard let byteCount = type.byteCount(weights: weights) else { return nil }
    self.init(name: name, shape: shape, type: type, file: 0, offset: 0, byteCount: byteCount)
  }

  /// Weights of a row: the contiguous dimension.
  package var columns: Int { shape[0] }

  /// Rows of the tensor taken as a matrix: the product of all dimensions but the first.
  package var rows: Int { shape.dropFirst().reduce(1, *) }

  /// Bytes of one row.
  package var rowBytes: Int { columns / type.blockSize * type.blockBytes }
}
