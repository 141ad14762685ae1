import CShaderInterface
import Kernels
import ModelFiles
import Transformer

/// Random weights made on the device: in every format finite numbers of the spread that was asked for.
struct RandomChecks {
  let bench: TestBench

  private static let rows = 128
  private static let columns = 768

  func run() throws {
    for type in TensorType.allCases {
      let name = "random \(type.name) \(Self.rows)x\(Self.columns)"
      guard bench.wants(name) else { continue }
      try bench.report(name) {
        try check(type, name: name)
        return ([], 0, "")
      }
    }
  }

  private func check(_ type: TensorType, name: String) throws {
    var random = bench.random(name)
    guard let tensor = TensorInfo(name: "table", shape: [Self.columns, Self.rows], type: type) else {
      preconditionFailure("\(Self.columns) columns are whole blocks of every format")
    }
    let model = try DeviceModel(
      program: Program(
        width: Self.columns, layerCount: 1, heads: HeadLayout(headCount: 1, kvHeadCount: 1, headSize: 16),
        feedForwardWidth: 32, vocabularySize: Self.rows,
        stages: [.embed(EmbedStage(table: TensorSlice(tensor), scale: 1))]),
      source: RandomTensorSource(tensors: [tensor], seed: random.next(), hasRecipes: true),
      cache: bench.cache, onProgress: { _ in })
    guard case .embed(let table, _, _) = model.stages[0] else { return }

    var image = bench.newImage()
    let stride = activationStride(Self.columns)
    let outputs = image.addPoisoned(Self.rows * stride)
    var push = EmbedPush()
    push.step =
      image.addStep(
        (0..<Self.rows).map { StepRow(token: UInt32($0), position: 0, sequence: 0, output_row: 0) }
      ).address
    push.outputs = outputs.address
    push.output_stride = UInt32(stride)
    try bench.check(name, image: image) { commands in
      try EmbedKernel(table: table, scale: 1, next: .none).record(
        commands, push: push, rowCount: Self.rows, cache: bench.cache)
    } compare: { outcome in
      let rows = (0..<Self.rows).map { row in
        (0..<Self.columns).map { outcome.float(outputs, row * stride + activationIndex($0)) }
      }
      let count = Double(Self.rows * Self.columns)
      let mean = rows.joined().reduce(0, +) / count
      let deviation = (rows.joined().reduce(0) { $0 + $1 * $1 } / count).squareRoot()
      let expected = 1 / Double(Self.columns).squareRoot()
      return [
        // The scales of mxfp4 are powers of two.
        Comparison("spread", value: abs(deviation / expected - 1), tolerance: type == .mxfp4 ? 0.45 : 0.1),
        Comparison("mean", value: abs(mean) / expected, tolerance: 0.05),
        Comparison("rows alike", value: Double(Self.rows - Set(rows).count), tolerance: 0),
      ]
    }
    withExtendedLifetime(model) {}
  }
}
