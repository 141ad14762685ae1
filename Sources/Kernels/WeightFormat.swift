import ModelFiles

/// How the weights of one type lie on the device: Shaders/formats/<type>.glsl, seen from the host.
///
/// Blocks are split into planes, so that a lane's quants are 16 aligned bytes and neighbouring lanes read
/// neighbouring chunks; within a plane, rows follow each other without gaps.
package struct WeightFormat: Sendable, Hashable {
  package let type: TensorType
  /// Weights that a lane loads at once.
  package let chunk: Int
  /// Weights that one invocation of the repack shader takes, and their bytes in the file.
  package let repackBlock: Int
  package let repackBlockBytes: Int
  package let planes: [Plane]
  /// Rows whose blocks lie side by side: 1, or 8 for kernels whose lanes are rows. Within eight rows all first blocks
  /// come first, then all second ones, so that those lanes together read memory from one end to the other.
  package var rowInterleave = 1

  package struct Plane: Sendable, Hashable {
    /// `bytes` hold something of `weights` neighbouring weights.
    package let weights: Int
    package let bytes: Int
    /// Whether blocks share words, which are then joined into zeroed memory.
    package var cleared: Bool { bytes % 4 != 0 }
  }

  /// Where each plane starts, aligned to 256 bytes, and the bytes of all.
  ///
  /// - Parameter columns: a multiple of 32, and of the type's block size.
  package func planeOffsets(rows: Int, columns: Int) -> (offsets: [Int], total: Int) {
    var offsets: [Int] = []
    var end = 0
    let rows = (rows + rowInterleave - 1) / rowInterleave * rowInterleave
    for plane in planes {
      offsets.append(end)
      end += (rows * columns / plane.weights * plane.bytes + 255) / 256 * 256
    }
    return (offsets, end)
  }

  /// The layout of a type.
  package static func of(_ type: TensorType, rowInterleave: Int = 1) -> WeightFormat {
    var format = standard(type)
    format.rowInterleave = rowInterleave
    return format
  }

  private static func standard(_ type: TensorType) -> WeightFormat {
    switch type {
    case .f32: plain(type, chunk: 4)
    case .f16, .bf16: plain(type, chunk: 8)
    case .q4_0, .iq4_nl: blocks(type, [(32, 16), (32, 2)])
    case .q4_1: blocks(type, [(32, 16), (32, 4)])
    case .q5_0: blocks(type, [(32, 16), (32, 4), (32, 2)])
    case .q5_1: blocks(type, [(32, 16), (32, 4), (32, 4)])
    case .q8_0: blocks(type, chunk: 16, [(32, 32), (32, 2)])
    case .mxfp4: blocks(type, [(32, 16), (32, 1)])
    case .q2_k: blocks(type, [(32, 8), (256, 16), (256, 4)])
    case .q3_k: blocks(type, [(32, 8), (32, 4), (256, 16), (256, 2)])
    case .q4_k: blocks(type, [(32, 16), (256, 16)])
    case .q5_k: blocks(type, [(32, 16), (32, 4), (256, 16)])
    case .q6_k: blocks(type, [(32, 16), (32, 8), (256, 16), (256, 2)])
    case .iq4_xs: blocks(type, [(32, 16), (256, 8)])
    }
  }

  private static func plain(_ type: TensorType, chunk: Int) -> WeightFormat {
    WeightFormat(
      type: type, chunk: chunk, repackBlock: chunk, repackBlockBytes: 16,
      planes: [Plane(weights: chunk, bytes: 16)])
  }

  private static func blocks(_ type: TensorType, chunk: Int = 32, _ planes: [(Int, Int)]) -> WeightFormat {
    WeightFormat(
      type: type, chunk: chunk, repackBlock: type.blockSize, repackBlockBytes: type.blockBytes,
      planes: planes.map { Plane(weights: $0.0, bytes: $0.1) })
  }
}
