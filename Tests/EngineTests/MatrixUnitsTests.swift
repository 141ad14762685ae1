import Kernels
import ModelFiles
import Testing
import Transformer

@testable import Engine

/// Prompts on matrix units, in every way there is, against the same model in columns.
@Suite(.enabled(if: TestModels.hasMatrixUnits, "needs matrix units"), .serialized)
struct MatrixUnitsTests {
  /// A way, a format of weights, and how far logits may be apart.
  struct Case: Sendable, CustomTestStringConvertible {
    var gemm: StepMethod.Gemm
    var weights: TensorType
    var tolerance: Double

    var testDescription: String { "\(gemm), \(weights.name)" }
  }

  // Inputs of products are rounded to float16, or to bytes.
  static let cases = [
    Case(gemm: .matrix, weights: .q4_k, tolerance: 5e-3), Case(gemm: .direct, weights: .f16, tolerance: 2e-3),
    Case(gemm: .direct, weights: .q8_0, tolerance: 2e-3), Case(gemm: .bytes, weights: .q8_0, tolerance: 3e-2),
  ]

  @Test(arguments: cases)
  func promptsEqualThoseInColumns(_ subject: Case) throws {
    let shape = try SyntheticShape(
      text: "layers=2,width=256,ff=512,heads=4,kv-heads=2,head-size=64,vocabulary=320")
    let model = try LanguageModel(shape: shape, weights: subject.weights, seed: 1)
    let tokens = (0..<17).map { Int32($0 * 7 % 320) }
    func logits(_ gemm: StepMethod.Gemm) throws -> [Float] {
      var options = EngineOptions()
      options.contextLength = 32
      options.promptChunk = tokens.count
      options.maxOutputs = tokens.count
      options.method.gemm = gemm
      return try Engine(model: model, options: options).logits(of: tokens, last: tokens.count).flatMap(\.self)
    }
    let error = ArchitectureTests.relativeError(try logits(subject.gemm), try logits(.columns))
    #expect(error < subject.tolerance)
    // It was another kernel.
    #expect(error > 0)
  }
}
