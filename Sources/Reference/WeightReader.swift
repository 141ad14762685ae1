import ModelFiles
import Transformer

/// Why a model cannot be run by the reference: one line that names the tensor, the token or the sizes.
package struct ReferenceError: Error, CustomStringConvertible, Sendable, Hashable {
  package let description: String

  init(_ description: String) {
    self.description = description
  }
}

/// Reads slices of a model's tensors as plain numbers, whatever their format.
package struct WeightReader: Sendable {
  private let source: any TensorSource
  private let roundsToHalf: Bool

  /// - Parameter roundsToHalf: whether `forEachRow` gives weights as float16 rounds them.
  package init(_ source: any TensorSource, roundsToHalf: Bool = false) {
    self.source = source
    self.roundsToHalf = roundsToHalf
  }

  /// Calls `body` with each row of `slice`, from its first: the row's number within the slice and its weights.
  ///
  /// Rows are converted one at a time, so a large matrix needs little memory.
  package func forEachRow(
    of slice: TensorSlice, _ body: (_ row: Int, _ weights: UnsafeBufferPointer<Float>) throws -> Void
  ) throws {
    try forEachRow(of: slice, roundsToHalf: roundsToHalf, body)
  }

  private func forEachRow(
    of slice: TensorSlice, roundsToHalf: Bool,
    _ body: (_ row: Int, _ weights: UnsafeBufferPointer<Float>) throws -> Void
  ) throws {
    let tensor = try find(slice)
    let row = UnsafeMutableBufferPointer<Float>.allocate(capacity: tensor.columns)
    defer { row.deallocate() }
    let wanted = UnsafeBufferPointer(rebasing: row[slice.columns])
    for index in slice.rows {
      try source.withBytes(of: tensor, rows: index..<index + 1) { bytes in
        dequantize(bytes, type: tensor.type, into: row)
      }
      if roundsToHalf { for i in slice.columns { row[i] = Float(half: row[i].halfBits) } }
      try body(index - slice.rows.lowerBound, wanted)
    }
  }

  /// The weights of a slice of one row: a norm's or a bias's.
  package func vector(_ slice: TensorSlice) throws -> [Double] {
    var result: [Double] = []
    try forEachRow(of: slice, roundsToHalf: false) { _, weights in result += weights.map(Double.init) }
    return result
  }

  /// The rows of `slice` whose numbers are `rows`, one after another.
  package func rows(_ rows: [Int], of slice: TensorSlice) throws -> [Double] {
    var result: [Double] = []
    for row in rows {
      var one = slice
      one.rows = slice.rows.lowerBound + row..<slice.rows.lowerBound + row + 1
      result += try vector(one)
    }
    return result
  }

  private func find(_ slice: TensorSlice) throws -> TensorInfo {
    guard let tensor = source.tensor(slice.tensor), tensor.type == slice.type,
      slice.rows.upperBound <= tensor.rows, slice.columns.upperBound <= tensor.columns
    else {
      throw ReferenceError("tensor \(slice.tensor) is not in the model as the program has it")
    }
    return tensor
  }
}
