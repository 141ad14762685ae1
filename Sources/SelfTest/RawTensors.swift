import ModelFiles
import Transformer

/// Tensors of random bits: every pattern of quants and of small scales, and any finite number for the scales that
/// multiply them. Each tensor has a format of its own.
struct RawTensors: TensorSource {
  private(set) var tensors: [TensorInfo] = []
  private var bytes: [String: [UInt8]] = [:]

  /// Adds a tensor, and returns the whole of it.
  mutating func add(
    _ name: String, _ type: TensorType, rows: Int, columns: Int, _ random: inout SeededRandom
  ) -> TensorSlice {
    guard let info = TensorInfo(name: name, shape: [columns, rows], type: type) else {
      preconditionFailure("\(rows)x\(columns) of \(type.name) are not whole blocks")
    }
    var blocks = (0..<info.byteCount).map { _ in UInt8.random(in: 0...255, using: &random) }
    for block in stride(from: 0, to: info.byteCount, by: type.blockBytes) {
      for offset in Self.scales(type) {
        // As halves, numbers from the smallest, without a leading 1, to 4; of either sign.
        blocks[block + offset + 1] =
          blocks[block + offset + 1] & 0x83 | UInt8.random(in: 0...16, using: &random) << 2
      }
      // Powers of two that leave sums of squares finite.
      if type == .mxfp4 { blocks[block] = UInt8.random(in: 110...130, using: &random) }
    }
    tensors.append(info)
    bytes[name] = blocks
    return TensorSlice(info)
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
    try bytes[tensor.name, default: []].withUnsafeBytes { all in
      try body(
        UnsafeRawBufferPointer(
          rebasing: all[rows.lowerBound * tensor.rowBytes..<rows.upperBound * tensor.rowBytes]))
    }
  }
}
