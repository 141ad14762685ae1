import CShaderInterface
import Kernels

/// Inputs of a product in a memory image, in the form that its kernel reads.
struct ProductInputs {
  let values: MemoryImage.Region
  let scales: MemoryImage.Region
  /// What the values stand for, [row][width]: float32 as they are, or blocks of bytes after rounding.
  let effective: [Double]

  /// - Parameter rows: [row][width], already multiplied by the weight of a norm where there is one.
  init(_ rows: [Float], width: Int, form: ProductForm, image: inout MemoryImage) {
    guard form == .bytes else {
      values = image.addActivations(rows, width: width)
      scales = image.addPoisoned(1)
      effective = rows.map(Double.init)
      return
    }
    let padded = activationStride(width)
    let count = rows.count / width
    var words = [UInt32](repeating: MemoryImage.poison, count: count * padded / 4)
    var scaleWords = [UInt32](repeating: MemoryImage.poison, count: count * padded / 16)
    var effective: [Double] = []
    for row in 0..<count {
      for block in 0..<width / 32 {
        let start = row * width + 32 * block
        let quantised = QuantisedBlock(rows[start..<start + 32].map(Double.init))
        for j in 0..<8 {
          words[row * padded / 4 + blockWordIndex(8 * block + j)] = (0..<4).reduce(0) { word, i in
            word | UInt32(UInt8(bitPattern: Int8(quantised.bytes[4 * j + i]))) << (8 * UInt32(i))
          }
        }
        let scale = Float(quantised.scale)
        let total = quantised.bytes.reduce(0, +)
        scaleWords[(row * padded / 32 + block) * 2] = scale.bitPattern
        scaleWords[(row * padded / 32 + block) * 2 + 1] = (scale * Float(total)).bitPattern
        effective += quantised.bytes.map { Double($0) * Double(scale) }
      }
    }
    values = image.add(words)
    scales = image.add(scaleWords)
    self.effective = effective
  }
}

/// 32 numbers as signed bytes with a scale, by the rule of Shaders/common/blocks.glsl.
struct QuantisedBlock {
  let bytes: [Int]
  let scale: Double

  init(_ values: [Double]) {
    let largest = values.reduce(0) { max($0, abs($1)) }
    let scale = largest / 127
    self.scale = scale
    bytes = values.map { largest > 0 ? Int(($0 / scale).rounded(.toNearestOrEven)) : 0 }
  }

  /// What numbers become. One between two bytes may be either, when it is off by as little as floats are.
  ///
  /// - Parameters:
  ///   - found: what a device has made of them, which says which of the two it is.
  ///   - error: how far a number may be off, of the largest in its block.
  static func rounded(_ values: [Double], found: [Double], error: Double) -> [Double] {
    stride(from: 0, to: values.count, by: 32).flatMap { start in
      let block = QuantisedBlock(Array(values[start..<start + 32]))
      return block.bytes.enumerated().map { index, byte in
        let off = values[start + index] / block.scale - Double(byte)
        let other = Double(off < 0 ? byte - 1 : byte + 1) * block.scale
        let isEither = abs(off) >= 0.5 - 127 * error
        let isOther = isEither && abs(found[start + index] - other) < block.scale / 2
        return isOther ? other : Double(byte) * block.scale
      }
    }
  }
}

/// Where dispatches are to leave the inputs of the next product, and the sums of squares of the residual stream.
struct NextOutputs {
  let form: ProductForm
  let width: Int
  let rowCount: Int
  let values: MemoryImage.Region
  let scales: MemoryImage.Region
  let squares: MemoryImage.Region
  let norm: [Float]
  /// Parts of the sum of squares of a row.
  let squareCount: Int
  private let padded: Int
  private let normAddress: UInt64

  /// - Parameter norm: weight of the next norm; empty for none.
  init(
    form: ProductForm, width: Int, rowCount: Int, squareCount: Int, norm: [Float], image: inout MemoryImage
  ) {
    self.form = form
    self.width = width
    self.rowCount = rowCount
    self.squareCount = squareCount
    self.norm = norm
    padded = activationStride(width)
    values = image.addPoisoned(rowCount * padded / (form == .bytes ? 4 : form == .halves ? 2 : 1))
    scales = image.addPoisoned(rowCount * padded / 16)
    squares = image.addPoisoned(max(1, rowCount * squareCount))
    normAddress = norm.isEmpty ? 0 : image.addActivations(norm, width: width).address
  }

  var arguments: NextInputs {
    var next = NextInputs()
    next.values = values.address
    next.scales = scales.address
    next.squares = squares.address
    next.norm = normAddress
    next.width = UInt32(padded)
    return next
  }

  /// Compares what was left with what follows from `x`, [row][width]: the residual stream, or the outputs themselves
  /// where no norm follows.
  func comparisons(_ x: [Double], _ outcome: inout Outcome, tolerance: Double) -> [Comparison] {
    guard form != .none else { return [] }
    var expected = x
    if !norm.isEmpty { for i in expected.indices { expected[i] *= Double(norm[i % width]) } }
    var result: [Comparison] = []
    if form == .floats {
      let found = expected.indices.map {
        outcome.float(values, $0 / width * padded + activationIndex($0 % width))
      }
      result.append(Comparison("next inputs", found: found, expected: expected, tolerance: tolerance))
    } else if form == .halves {
      let found = expected.indices.map { outcome.half(values, $0 / width * padded + $0 % width) }
      result.append(
        Comparison("next inputs", found: found, expected: expected, tolerance: MatrixCheck.halfTolerance))
    } else {
      var found: [Double] = []
      var sums: [Double] = []
      var expectedSums: [Double] = []
      for row in 0..<rowCount {
        for block in 0..<width / 32 {
          let at = (row * padded / 32 + block) * 2
          let scale = outcome.float(scales, at)
          sums.append(outcome.float(scales, at + 1))
          var total = 0
          for j in 0..<8 {
            let word = outcome.word(values, row * padded / 4 + blockWordIndex(8 * block + j))
            for i in 0..<4 {
              let byte = Int(Int8(truncatingIfNeeded: word >> (8 * UInt32(i))))
              total += byte
              found.append(Double(byte) * scale)
            }
          }
          expectedSums.append(Double(total) * scale)
        }
      }
      let rounded = QuantisedBlock.rounded(expected, found: found, error: tolerance)
      result.append(Comparison("next inputs", found: found, expected: rounded, tolerance: 2e-3))
      result.append(Comparison("sums of blocks", found: sums, expected: expectedSums, tolerance: 1e-5))
    }
    if squareCount > 0 {
      let found = (0..<rowCount).map { row in
        (0..<squareCount).reduce(0.0) { $0 + outcome.float(squares, row * squareCount + $1) }
      }
      let wanted = (0..<rowCount).map { row in
        x[row * width..<(row + 1) * width].reduce(0) { $0 + $1 * $1 }
      }
      result.append(Comparison("squares", found: found, expected: wanted, tolerance: tolerance))
    }
    return result
  }
}
