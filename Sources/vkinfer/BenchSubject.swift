import ArgumentParser
import Engine
import ModelFiles
import Transformer

/// What a benchmark measures: a model file, or random weights of some shape.
struct BenchSubject: ParsableArguments {
  @Option(name: .shortAndLong, help: ArgumentHelp("The model: a GGUF file.", valueName: "file"))
  var model: String?

  @Option(help: ArgumentHelp("Random weights of this shape.", valueName: "shape"))
  var shape: String?

  func validate() throws {
    guard (model == nil) != (shape == nil) else {
      throw ValidationError("give a model file with -m, or a shape with --shape")
    }
  }

  /// The model, not loaded; `type` is the format of random weights.
  func open(_ type: TensorType) throws -> LanguageModel {
    if let model { return try LanguageModel(path: model) }
    return try LanguageModel(shape: SyntheticShape(text: shape ?? ""), weights: type, seed: 1)
  }
}
