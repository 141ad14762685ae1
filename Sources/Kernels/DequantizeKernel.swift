import CShaderInterface
import ModelFiles
import VulkanRuntime

/// Makes float16 rows of a quantised matrix (Shaders/matrix/dequantize.comp), as `MatrixKernel` would on the way to the
/// matrix units.
package struct DequantizeKernel: Sendable, Hashable {
  package var matrix: DeviceMatrix

  /// Nil for weights that are not quantised, and for rows that lie interleaved.
  package init?(_ matrix: DeviceMatrix) {
    guard Self.takes(matrix.format) else { return nil }
    self.matrix = matrix
  }

  package static func takes(_ format: WeightFormat) -> Bool {
    ![.f32, .f16, .bf16].contains(format.type) && format.rowInterleave == 1
  }

  package var shaderName: String { "dequantize.\(matrix.format.type.name)" }

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] { [UInt32(traits.invocations(256))] }

  /// Workgroups along x; further ones go along y.
  private static let mostGroups = 32768

  /// Records it for some of the rows, which go to `address`, one behind the other.
  package func record(
    _ commands: CommandBuffer, rows: Range<Int>, to address: UInt64, cache: KernelCache
  ) throws {
    let rowChunks = matrix.columns / matrix.format.chunk
    var push = DequantizePush()
    push.weights = matrix.push
    push.outputs = address
    push.first_chunk = UInt32(rows.lowerBound * rowChunks)
    push.chunk_count = UInt32(rows.count * rowChunks)
    let constants = specialization(cache.traits)
    let groups = (rows.count * rowChunks + Int(constants[0]) - 1) / Int(constants[0])
    let x = min(groups, Self.mostGroups)
    try cache.dispatch(commands, shaderName, constants, push, groups: (x, (groups + x - 1) / x, 1))
  }

  /// The rows as a matrix, once they are at `address`.
  package func result(_ rows: Range<Int>, at address: UInt64) -> DeviceMatrix {
    DeviceMatrix(
      format: .of(.f16), rows: rows.count, columns: matrix.columns, planes: [address],
      rowOffset: matrix.rowOffset + rows.lowerBound)
  }
}

/// A product of many tokens whose weights are made float16 first, some rows at a time: each is unpacked once, not by
/// every workgroup that takes some of the tokens.
package struct DequantizedProduct: Sendable, Hashable {
  package var kernel: MatrixKernel
  private let dequantize: DequantizeKernel
  private let address: UInt64
  private let rowsAtOnce: Int

  /// From so many tokens on it pays: products of float16 take a femtosecond a weight and token less on an H200, and
  /// writing and reading a weight costs 0.7 picoseconds there.
  package static let leastTokens = 1024
  /// The most memory that rows are given at a time.
  private static let mostBytes = 512 << 20
  /// Rows at a time are a multiple of this, which those of all large tilings divide.
  private static let rowStep = 640

  /// Bytes that the products of matrices with such columns and rows have use for.
  package static func byteCount(rows: Int, columns: Int) -> Int {
    let rowBytes = 2 * columns
    return min(rows, max(rowStep, mostBytes / rowBytes / rowStep * rowStep)) * rowBytes
  }

  /// Nil where the matrix kernel had better unpack the weights itself.
  ///
  /// - Parameters:
  ///   - address: device memory of `byteCount` bytes for some rows, aligned to 16 bytes.
  package init?(_ kernel: MatrixKernel, tokenCount: Int, address: UInt64, byteCount: Int) {
    let bytes = Self.byteCount(rows: kernel.matrix.rows, columns: kernel.matrix.columns)
    guard tokenCount >= Self.leastTokens, !kernel.gathersOutputs, bytes <= byteCount else { return nil }
    self.init(kernel, address: address, rowsAtOnce: bytes / (2 * kernel.matrix.columns))
  }

  /// The same for any number of tokens and of rows at a time, a multiple of four.
  package init?(_ kernel: MatrixKernel, address: UInt64, rowsAtOnce: Int) {
    guard let dequantize = DequantizeKernel(kernel.matrix) else { return nil }
    self.kernel = kernel
    self.dequantize = dequantize
    self.address = address
    self.rowsAtOnce = rowsAtOnce
  }

  /// Records it. What was at `address` must not be read any more.
  ///
  /// - Parameter product: records a product of float16 weights.
  package func record(
    _ commands: CommandBuffer, push: MatrixPush, cache: KernelCache,
    product: (_ kernel: MatrixKernel, _ push: MatrixPush) throws -> Void
  ) throws {
    for first in stride(from: 0, to: kernel.matrix.rows, by: rowsAtOnce) {
      if first > 0 { commands.dispatchBarrier() }
      let rows = first..<min(first + rowsAtOnce, kernel.matrix.rows)
      try dequantize.record(commands, rows: rows, to: address, cache: cache)
      commands.dispatchBarrier()
      var part = kernel
      part.matrix = dequantize.result(rows, at: address)
      var push = push
      if push.bias != 0 { push.bias += UInt64(4 * first) }
      try product(part, push)
    }
  }
}
