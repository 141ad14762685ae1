import CShaderInterface

/// A weight matrix in device layout.
package struct DeviceMatrix: Sendable, Hashable {
  package var format: WeightFormat
  package var rows: Int
  package var columns: Int
  /// Device addresses of the planes; unused ones are 0.
  package var planes: [UInt64]
  /// Where row 0 stands among the stacked outputs of its stage.
  package var rowOffset: Int
  /// Which unit of a `WeightStream` brings it; nil for a matrix that stays.
  package var unit: Int?

  package init(format: WeightFormat, rows: Int, columns: Int, planes: [UInt64], rowOffset: Int) {
    self.format = format
    self.rows = rows
    self.columns = columns
    self.planes = planes
    self.rowOffset = rowOffset
  }

  /// Bytes that one pass over the matrix reads.
  package var byteCount: Int { format.planeOffsets(rows: rows, columns: columns).total }

  var push: WeightPlanes {
    func plane(_ index: Int) -> UInt64 { index < planes.count ? planes[index] : 0 }
    return WeightPlanes(plane0: plane(0), plane1: plane(1), plane2: plane(2), plane3: plane(3))
  }
}

/// Activation vectors are padded to whole blocks of the activation layout.
package func activationStride(_ width: Int) -> Int { (width + 1023) / 1024 * 1024 }

/// Where element `k` stands in the activation layout (see Shaders/common/types.glsl).
package func activationIndex(_ k: Int) -> Int {
  (k & ~1023) | (((k >> 2) & 7) << 7) | (((k >> 5) & 31) << 2) | (k & 3)
}
