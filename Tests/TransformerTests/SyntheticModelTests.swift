import ModelFiles
import Testing
import Transformer

@Suite struct SyntheticModelTests {
  @Test(arguments: SyntheticShape.all)
  func everyShapeIsAProgram(shape: SyntheticShape) throws {
    let description = try ModelDescription.synthetic(shape: shape, weights: .f16)
    let program = try Program(description, source: ConstantSource(tensors: description.tensors, value: 1))
    #expect(program.layerCount == shape.layerCount && program.heads == shape.heads)
    #expect(program.vocabularySize == shape.vocabularySize)
  }

  /// The bytes that a token must read, as measured for these models: everything but an untied embedding table.
  @Test(arguments: [
    ("llama-3.2-1b", TensorType.bf16, 2.47), ("llama-3.2-1b", .q8_0, 1.31), ("llama-3.2-1b", .q4_k, 0.76),
    ("llama-3.1-8b", .f16, 15.0), ("llama-3.1-8b", .q8_0, 7.97), ("llama-3.1-8b", .q4_k, 4.36),
    ("smollm2-135m", .q4_1, 0.10),
  ])
  func bytesOfAToken(name: String, weights: TensorType, gigabytes: Double) throws {
    let shape = try SyntheticShape.named(name)
    let description = try ModelDescription.synthetic(shape: shape, weights: weights)
    let read = description.tensors.filter { shape.tiesEmbeddings || $0.name != "token_embd.weight" }
    let bytes = Double(read.reduce(0) { $0 + $1.byteCount })
    #expect(abs(bytes / 1e9 - gigabytes) < 0.01 * gigabytes + 0.005)
  }

  @Test func formatThatDoesNotFitIsAnError() throws {
    let shape = try SyntheticShape.named("smollm2-135m")
    #expect(throws: ModelDescriptionError.self) {
      try ModelDescription.synthetic(shape: shape, weights: .q4_k)
    }
    #expect(throws: ModelDescriptionError.self) { try SyntheticShape.named("gpt-5") }
  }
}
