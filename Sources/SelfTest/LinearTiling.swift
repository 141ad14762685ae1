import Kernels

/// One way in which the linear kernel can cut its work: see `LinearKernel.Tiling`.
struct LinearTiling: Hashable {
  var subgroups: Int
  var split: Int
  var rows: Int
  var columns: Int
  var unroll: Int

  /// Rows of a workgroup.
  var groupRows: Int { subgroups / split * rows }

  var text: String {
    "tile \(groupRows)x\(columns), subgroups \(subgroups), split \(split), rows \(rows), unroll \(unroll)"
  }

  init(_ tiling: LinearKernel.Tiling) {
    self.init(
      subgroups: tiling.subgroups, split: tiling.split, rows: tiling.rows, columns: tiling.columns,
      unroll: tiling.unroll)
  }

  init(subgroups: Int, split: Int, rows: Int, columns: Int, unroll: Int) {
    self.subgroups = subgroups
    self.split = split
    self.rows = rows
    self.columns = columns
    self.unroll = unroll
  }

  /// The same for the kernel, whose own choice is `chosen`.
  func applied(to chosen: LinearKernel.Tiling) -> LinearKernel.Tiling {
    var tiling = chosen
    tiling.subgroups = subgroups
    tiling.split = split
    tiling.rows = rows
    tiling.columns = columns
    tiling.unroll = unroll
    return tiling
  }

  /// Rows of a lane, and sums, that no candidate of the kernel has more of: they overflow the registers, and compilers
  /// fail or take minutes.
  private static let mostRows = 16
  private static let mostSums = 32

  /// Has each workgroup make a multiple of so many rows, a power of two, as blocks of bytes want it.
  mutating func own(rows wanted: Int) {
    while groupRows % wanted != 0 {
      if split > 1 { split /= 2 } else if rows < Self.mostRows { rows *= 2 } else { subgroups *= 2 }
    }
    while rows * columns > Self.mostSums { columns /= 2 }
  }

  /// Every sound tiling of up to 16 subgroups that the device has room for.
  static func possible(_ traits: DeviceTraits) -> [LinearTiling] {
    var result: [LinearTiling] = []
    for columns in [1, 2, 4, 8] {
      for subgroups in [1, 2, 4, 8, 16]
      where subgroups * traits.subgroupSize <= traits.maxWorkgroupInvocations {
        for split in [1, 2, 4, 8] where split <= subgroups {
          // Rows come in pairs, which stay in one workgroup.
          for rows in [1, 2, 4, 8, mostRows] where (2...32).contains(subgroups / split * rows) {
            if rows * columns > mostSums { continue }
            let unroll = traits.isCPU ? [1, 1, 2][result.count % 3] : [1, 2, 4, 1][result.count % 4]
            result.append(
              LinearTiling(subgroups: subgroups, split: split, rows: rows, columns: columns, unroll: unroll))
          }
        }
      }
    }
    return result
  }
}
