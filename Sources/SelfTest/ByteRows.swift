import CShaderInterface
import Kernels
import Reference
import Transformer
import VulkanRuntime

/// Rows of blocks of bytes in a memory image, in plain order: what `QuantiseRowsKernel` makes of float16 rows.
struct ByteRows {
  let bytes: MemoryImage.Region
  let scales: MemoryImage.Region
  let width: Int
  let rowCount: Int

  /// Rows that a dispatch is to fill, those past the step's too.
  init(rowCount: Int, width: Int, image: inout MemoryImage) {
    self.rowCount = rowCount
    self.width = width
    bytes = image.addPoisoned(rowCount * width / 4)
    scales = image.addPoisoned(rowCount * width / 16)
  }

  func record(
    _ commands: CommandBuffer, inputs: UInt64, inputStride: UInt32, cache: KernelCache
  ) throws {
    var push = QuantiseRowsPush()
    push.inputs = inputs
    push.outputs = bytes.address
    push.scales = scales.address
    push.blocks = UInt32(width / 32)
    push.input_stride = inputStride
    push.output_stride = UInt32(width)
    try QuantiseRowsKernel().record(commands, push: push, rowCount: rowCount, cache: cache)
  }

  /// What they stand for, [row][width], of the first `rowCount` rows.
  func values(_ outcome: inout Outcome, rowCount: Int) -> [Double] {
    (0..<rowCount * width).map {
      Double(outcome.byte(bytes, $0)) * outcome.float(scales, $0 / 32 * 2)
    }
  }

  /// Against the rows that they were made of, [row][width]: a byte is off by half a step, and each block's sum is that
  /// of its bytes.
  func comparisons(_ rows: [Double], _ outcome: inout Outcome) -> [Comparison] {
    let found = values(&outcome, rowCount: rows.count / width)
    var nearest: [Double] = []
    var sums: [Double] = []
    var foundSums: [Double] = []
    for block in 0..<rows.count / 32 {
      let range = block * 32..<block * 32 + 32
      let scale = (rows[range].map(\.magnitude).max() ?? 0) / 127
      // Halves of a step may be rounded either way, and quotients are floats.
      nearest += range.map { index in
        guard scale > 0 else { return 0 }
        let step = found[index] / scale
        return (step - rows[index] / scale).magnitude <= 0.5001 ? step.rounded() * scale : rows[index]
      }
      sums.append(found[range].reduce(0, +))
      foundSums.append(outcome.float(scales, block * 2 + 1))
    }
    return [
      Comparison("bytes", found: found, expected: nearest, tolerance: 1e-6),
      Comparison("sums", found: foundSums, expected: sums, tolerance: 1e-6),
    ]
  }
}
