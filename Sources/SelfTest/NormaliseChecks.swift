import CShaderInterface
import Kernels

/// The kernel that makes inputs of matrix products: with and without norm and addend, all rows or some, small and
/// large widths.
struct NormaliseChecks {
  let bench: TestBench

  func run() throws {
    for (index, width) in [32, 96, 576, 1024, 1536, 2048, 3200, 4096].enumerated() {
      for part in 0..<2 {
        // Each width has its own two of the eight kinds, and each kind two widths.
        let kind = (index * 3 + part * 5) % 8
        try check(
          NormaliseKernel(
            hasNorm: kind % 2 == 0, hasAddend: kind / 2 % 2 == 0, gathersOutputs: kind / 4 == 0),
          width: width, rowCount: [5, 1, 12][(index + part) % 3])
      }
    }
    // Activations that float16 does not hold: a norm makes them small, and without one they stay finite.
    for hasNorm in [true, false] {
      try check(
        NormaliseKernel(hasNorm: hasNorm, hasAddend: false, gathersOutputs: false), width: 576, rowCount: 5,
        magnitude: 1e5)
    }
  }

  private func check(_ kernel: NormaliseKernel, width: Int, rowCount: Int, magnitude: Float = 1) throws {
    let name =
      "normalise width \(width), rows \(rowCount)" + (kernel.hasNorm ? ", norm" : "")
      + (kernel.hasAddend ? ", addend" : "") + (kernel.gathersOutputs ? ", gather" : "")
      + (magnitude == 1 ? "" : ", inputs x \(magnitude)")
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let stride = activationStride(width)
    let sourceCount = kernel.gathersOutputs ? rowCount + 3 : rowCount
    let sources = kernel.gathersOutputs ? (0..<sourceCount).shuffled(using: &random) : Array(0..<sourceCount)
    let rows = sources.indices.map {
      StepRow(token: 0, position: 0, sequence: 0, output_row: UInt32(sources[$0]))
    }
    let x = random.normals(sourceCount * width).map { $0 * magnitude }
    let addend = random.normals(sourceCount * width)
    let norm = random.normals(width)
    let addendNorm = random.normals(width)
    var image = bench.newImage()
    let inputs = image.addActivations(x, width: width)
    let outputs = HalfRows(rowCount: rowCount, width: width, image: &image)
    var push = plain(NormalisePush())
    push.inputs = inputs.address
    push.input_stride = UInt32(stride)
    push.outputs = outputs.region.address
    push.output_stride = UInt32(outputs.stride)
    push.norm = image.addActivations(norm, width: width).address
    push.step = image.addStep(rows, outputCount: kernel.gathersOutputs ? rowCount : 0).address
    push.addend = image.addActivations(addend, width: width).address
    push.addend_stride = UInt32(stride)
    push.addend_norm = image.addActivations(addendNorm, width: width).address
    push.width = UInt32(width)
    push.epsilon = 1e-3
    push.addend_epsilon = 2e-3
    try bench.check(name, image: image) { commands in
      // More rows than the step has, as in a plan recorded for a larger one.
      try kernel.record(
        commands, push: push, rowCount: rowCount + 3, cache: bench.cache)
    } compare: { outcome in
      func row(_ values: [Float], _ index: Int) -> [Double] {
        values[index * width..<(index + 1) * width].map(Double.init)
      }
      func normed(_ row: [Double], _ weight: [Float], epsilon: Float) -> [Double] {
        let squares = row.reduce(0) { $0 + $1 * $1 }
        let scale = 1 / (squares / Double(width) + Double(epsilon)).squareRoot()
        return zip(row, weight).map { $0 * scale * Double($1) }
      }
      var stream: [Double] = []
      var foundStream: [Double] = []
      var expected: [Double] = []
      for source in sources.prefix(rowCount) {
        var values = row(x, source)
        if kernel.hasAddend {
          let added = normed(row(addend, source), addendNorm, epsilon: push.addend_epsilon)
          values = zip(values, added).map { $0 + $1 }
          foundStream += (0..<width).map { outcome.float(inputs, source * stride + activationIndex($0)) }
          stream += values
        }
        expected += (kernel.hasNorm ? normed(values, norm, epsilon: push.epsilon) : values)
          .map(MatrixCheck.clampedToHalf)
      }
      let result = [
        Comparison(
          found: outputs.values(&outcome), expected: expected, tolerance: MatrixCheck.halfTolerance)
      ]
      guard kernel.hasAddend else { return result }
      return result + [Comparison("sum", found: foundStream, expected: stream, tolerance: 2e-6)]
    }
  }
}
