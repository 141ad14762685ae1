/// Where weights come from: a file, or random data.
package protocol TensorSource: Sendable {
  /// Every tensor, in the source's order.
  var tensors: [TensorInfo] { get }

  /// The tensor of that name, or nil.
  func tensor(_ name: String) -> TensorInfo?

  /// Calls `body` with the bytes of `rows` of `tensor`, in the file's own format; they are valid only inside it.
  ///
  /// - Precondition: `tensor` is one of `tensors` and `rows` lies within its rows.
  func withBytes<R>(
    of tensor: TensorInfo, rows: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R
  ) throws -> R

  /// How to make blocks of `tensor` where they are needed; nil for a source whose bytes matter.
  func recipe(of tensor: TensorInfo) -> RandomRecipe?

  /// The files that tensors lie in, by their `file`; none where there are no files.
  var paths: [String] { get }
}

extension TensorSource {
  package func recipe(of tensor: TensorInfo) -> RandomRecipe? { nil }
  package var paths: [String] { [] }
}
