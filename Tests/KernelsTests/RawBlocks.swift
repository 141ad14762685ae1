import ModelFiles
import Transformer

/// Tensors of random bytes: every bit pattern of quants and scales, and any finite number for what multiplies them.
struct RawBlocks: TensorSource {
  let tensors: [TensorInfo]
  private let bytes: [String: [UInt8]]

  /// All tensors have one shape; `bytes` are theirs in the format of a file.
  init(type: TensorType, rows: Int, columns: Int, bytes: [String: [UInt8]]) {
    tensors = bytes.keys.sorted().map { TensorInfo(name: $0, shape: [columns, rows], type: type)! }
    self.bytes = bytes
    precondition(tensors.allSatisfy { bytes[$0.name]!.count == $0.byteCount })
  }

  init(type: TensorType, rows: Int, columns: Int, names: [String]) {
    var random = SystemRandomNumberGenerator()
    let count = type.byteCount(weights: rows * columns)!
    var bytes: [String: [UInt8]] = [:]
    for name in names {
      var blocks = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
      for block in stride(from: 0, to: count, by: type.blockBytes) {
        for offset in Self.scales(type) {
          // Halves from the smallest, without a leading 1, to 4, of either sign.
          blocks[block + offset + 1] = blocks[block + offset + 1] & 0x83 | UInt8.random(in: 0...16) << 2
        }
        if type == .mxfp4 { blocks[block] = UInt8.random(in: 110...130) }
      }
      bytes[name] = blocks
    }
    self.init(type: type, rows: rows, columns: columns, bytes: bytes)
  }

  /// Where in a block there are floating-point numbers whose upper byte must be chosen with care.
  private static func scales(_ type: TensorType) -> [Int] {
    switch type {
    case .f32: [2]
    case .f16, .bf16, .q4_0, .q5_0, .q8_0, .iq4_nl, .iq4_xs: [0]
    case .q4_1, .q5_1, .q4_k, .q5_k: [0, 2]
    case .q2_k: [80, 82]
    case .q3_k: [108]
    case .q6_k: [208]
    case .mxfp4: []
    }
  }

  func tensor(_ name: String) -> TensorInfo? { tensors.first { $0.name == name } }

  func withBytes<R>(
    of tensor: TensorInfo, rows: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R
  ) throws -> R {
    try bytes[tensor.name]!.withUnsafeBytes { all in
      try body(
        UnsafeRawBufferPointer(
          rebasing: all[rows.lowerBound * tensor.rowBytes..<rows.upperBound * tensor.rowBytes]))
    }
  }

  /// The whole of a tensor.
  func slice(_ name: String) -> TensorSlice { TensorSlice(tensor(name)!) }

  /// The rows of a tensor, dequantised on the host.
  func weights(_ name: String) -> [[Float]] {
    let tensor = tensor(name)!
    return bytes[name]!.withUnsafeBytes { all in
      let values: [Float] = dequantize(all, type: tensor.type)
      return (0..<tensor.rows).map { Array(values[$0 * tensor.columns..<($0 + 1) * tensor.columns]) }
    }
  }
}
