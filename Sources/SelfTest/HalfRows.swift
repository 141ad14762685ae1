import Kernels
import ModelFiles

/// Rows of float16 in a memory image, in plain order: inputs of the matrix kernel, as any kernel leaves them.
struct HalfRows {
  let region: MemoryImage.Region
  let width: Int
  /// Halves from row to row, more than there are in one.
  let stride: Int
  /// What the host put there, [row][width].
  let contents: [Double]

  /// Rounds [row][width]; padding is poisoned, as no kernel may use it.
  init(_ rows: [Float], width: Int, image: inout MemoryImage) {
    let halves = rows.map(\.halfBits)
    self.width = width
    stride = Self.stride(width)
    contents = halves.map { Double(Float(half: $0)) }
    var words = [UInt32](repeating: MemoryImage.poison, count: rows.count / width * stride / 2)
    for pair in 0..<halves.count / 2 {
      let (row, element) = (2 * pair).quotientAndRemainder(dividingBy: width)
      words[(row * stride + element) / 2] = UInt32(halves[2 * pair]) | UInt32(halves[2 * pair + 1]) << 16
    }
    region = image.add(words)
  }

  /// Rows that dispatches are to fill.
  init(rowCount: Int, width: Int, image: inout MemoryImage) {
    self.width = width
    stride = Self.stride(width)
    contents = []
    region = image.addPoisoned(rowCount * stride / 2)
  }

  private static func stride(_ width: Int) -> Int { (width + 7) / 8 * 8 + 8 }

  /// What dispatches left, [row][width].
  func values(_ outcome: inout Outcome) -> [Double] {
    let rowCount = 2 * region.count / stride
    return (0..<rowCount * width).map { outcome.half(region, $0 / width * stride + $0 % width) }
  }
}
