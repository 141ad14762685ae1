/// How the weights of a tensor are stored: the formats that can be read.
///
/// The raw value is the `ggml_type` number that a GGUF file holds. A format packs `blockSize` consecutive weights
/// of a row into `blockBytes` bytes; rows are whole numbers of blocks.
package enum TensorType: UInt32, CaseIterable, Sendable, Hashable {
  case f32 = 0
  case f16 = 1
  case q4_0 = 2
  case q4_1 = 3
  case q5_0 = 6
  case q5_1 = 7
  case q8_0 = 8
  case q2_k = 10
  case q3_k = 11
  case q4_k = 12
  case q5_k = 13
  case q6_k = 14
  case iq4_nl = 20
  case iq4_xs = 23
  case bf16 = 30
  case mxfp4 = 39

  /// The name in lower case, as "q4_k"; also the name of the format's shader piece.
  package var name: String { "\(self)" }

  /// Weights in a block: 1, 32 or 256.
  package var blockSize: Int {
    switch self {
    case .f32, .f16, .bf16: 1
    case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .iq4_nl, .mxfp4: 32
    case .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_xs: 256
    }
  }

  /// Bytes of a block.
  package var blockBytes: Int {
    switch self {
    case .f32: 4
    case .f16, .bf16: 2
    case .q4_0, .iq4_nl: 18  // scale, 16 bytes of nibbles
    case .q4_1: 20  // scale, minimum, nibbles
    case .q5_0: 22  // scale, 32 fifth bits, nibbles
    case .q5_1: 24  // scale, minimum, fifth bits, nibbles
    case .q8_0: 34  // scale, 32 bytes
    case .mxfp4: 17  // exponent, nibbles
    case .q2_k: 84  // 16 scale bytes, 64 bytes of 2 bits, scale, minimum
    case .q3_k: 110  // 32 bytes of third bits, 64 bytes of 2 bits, 12 scale bytes, scale
    case .q4_k: 144  // scale, minimum, 12 scale bytes, 128 bytes of nibbles
    case .q5_k: 176  // as q4_k, with 32 bytes of fifth bits
    case .q6_k: 210  // 128 bytes of low nibbles, 64 of high pairs, 16 scale bytes, scale
    case .iq4_xs: 136  // scale, 2 bytes of high and 4 of low scale bits, nibbles
    }
  }

  /// Bytes that `weights` weights take, or nil when they are negative, not whole blocks, or overflow an `Int`.
  package func byteCount(weights: Int) -> Int? {
    guard weights >= 0, weights.isMultiple(of: blockSize) else { return nil }
    let (bytes, overflow) = (weights / blockSize).multipliedReportingOverflow(by: blockBytes)
    return overflow ? nil : bytes
  }
}
