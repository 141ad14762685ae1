import ModelFiles
import Transformer

/// A weight matrix before it is anywhere: which tensors it is made of, and how.
package struct MatrixSpec: Sendable {
  package var parts: [WeightLoader.Part]
  /// Where its row 0 stands among the stacked outputs of its stage.
  package var rowOffset = 0
  /// Whether its stage may read it piece by piece, as several matrices of some rows each.
  package var canSplit = false
  /// See `WeightFormat`.
  package var rowInterleave = 1

  /// Parts of different types are widened to f32.
  package var type: TensorType { isUniform ? parts[0].slice.type : .f32 }
  /// Whether a device can make it of the bytes of a file.
  package var isUniform: Bool { Set(parts.map(\.slice.type)).count == 1 }
  /// The slice that it is, which another stage may use too; nil if it is made of several.
  var sharedSlice: TensorSlice? { parts.count == 1 ? parts[0].slice : nil }
  package var rows: Int { parts.reduce(0) { $0 + $1.slice.rows.count } }
  package var columns: Int { parts[0].slice.columns.count }
  package var format: WeightFormat { WeightFormat.of(type, rowInterleave: rowInterleave) }
  /// Bytes in device layout.
  package var byteCount: Int { format.planeOffsets(rows: rows, columns: columns).total }

  /// Rows of pieces are multiples of this, which all tilings' rows divide: so a piece is cut as the whole would be.
  private static let rowStep = 192

  /// The smallest that pieces get.
  package var leastPieceBytes: Int {
    canSplit && rows > 0 ? min(byteCount, byteCount / rows * Self.rowStep + 4096) : byteCount
  }

  /// The matrix in pieces of about `most` bytes, if it may be split.
  package func pieces(of most: Int) -> [MatrixSpec] {
    guard canSplit, byteCount > most else { return [self] }
    let step = Self.rowStep / parts.count
    let rowBytes = max(1, byteCount / rows * parts.count)
    // Planes are padded, and a file's rows stand at any place of a page.
    let most = max(0, most - 32 << 10)
    let count = max(step, most / rowBytes / step * step)
    let total = parts[0].slice.rows.count
    return stride(from: 0, to: total, by: count).map { first in
      var piece = self
      piece.rowOffset += first * parts.count
      for index in parts.indices {
        let start = parts[index].slice.rows.lowerBound + first
        piece.parts[index].slice.rows = start..<start + min(count, total - first)
      }
      return piece
    }
  }
}

extension Stage {
  /// The matrices that the stage's products read, in order.
  ///
  /// - Parameter isFused: false for products whose results other dispatches finish: every tensor is a matrix then.
  package func matrixSpecs(rowInterleave: Int, isFused: Bool = true) -> [MatrixSpec] {
    (isFused ? matrixSpecs : unfusedMatrixSpecs).map {
      var spec = $0
      spec.rowInterleave = rowInterleave
      return spec
    }
  }

  /// The same for unfused products, whose results are stacked in activation layout.
  private var unfusedMatrixSpecs: [MatrixSpec] {
    switch self {
    case .gatedFeedForward(let stage):
      [
        MatrixSpec(parts: [.init(slice: stage.gate)]),
        MatrixSpec(parts: [.init(slice: stage.up)], rowOffset: activationStride(stage.gate.rows.count)),
      ]
    case .queryKeyValue(let stage): stage.unfusedMatrixSpecs
    case .embed, .attention, .residualProjection, .logits, .collective: matrixSpecs
    }
  }

  /// The same with one row after the other.
  package var matrixSpecs: [MatrixSpec] {
    switch self {
    case .attention, .collective: []
    case .embed(let stage): [MatrixSpec(parts: [.init(slice: stage.table)], canSplit: true)]
    case .residualProjection(let stage): [MatrixSpec(parts: [.init(slice: stage.weight)])]
    case .gatedFeedForward(let stage):
      [
        MatrixSpec(
          parts: [
            .init(slice: stage.gate, rowOffset: 0, rowStride: 2),
            .init(slice: stage.up, rowOffset: 1, rowStride: 2),
          ], canSplit: true)
      ]
    case .logits(let stage): [MatrixSpec(parts: [.init(slice: stage.table)], canSplit: true)]
    case .queryKeyValue(let stage): stage.matrixSpecs
    }
  }
}

extension QueryKeyValueStage {
  /// Heads whose rows are put in rope pair order. Kernels rotate neighbouring rows, so heads rotated in halves are
  /// reordered; q.k does not change by it.
  var pairs: (headSize: Int, rotatedSize: Int)? {
    rope.pairing == .halves ? (headSize: heads.headSize, rotatedSize: rope.rotatedSize) : nil
  }

  private var slices: [(slice: TensorSlice, pairs: (headSize: Int, rotatedSize: Int)?)] {
    [(query, pairs), (key, pairs), (value, nil)]
  }

  /// Q, K and V, each by itself.
  fileprivate var unfusedMatrixSpecs: [MatrixSpec] {
    var rows = 0
    return slices.map { slice, pairs in
      defer { rows += slice.rows.count }
      return MatrixSpec(parts: [.init(slice: slice, pairs: pairs)], rowOffset: rows)
    }
  }

  /// Q, K and V stacked: one matrix for each run of parts of the same format.
  fileprivate var matrixSpecs: [MatrixSpec] {
    var specs: [MatrixSpec] = []
    var stackedRow = 0
    for (slice, pairs) in slices {
      if specs.last?.type == slice.type {
        let index = specs.count - 1
        specs[index].parts.append(.init(slice: slice, rowOffset: specs[index].rows, pairs: pairs))
      } else {
        specs.append(
          MatrixSpec(parts: [.init(slice: slice, rowOffset: 0, pairs: pairs)], rowOffset: stackedRow))
      }
      stackedRow += slice.rows.count
    }
    return specs
  }
}
