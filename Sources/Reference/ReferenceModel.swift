import ModelFiles
import Transformer

/// Runs a whole `Program` on the CPU in double precision, one sequence, with a KV cache of its own.
///
/// Weights are converted anew in every call, so memory stays small; give it many tokens at once.
package struct ReferenceModel: Sendable {
  package let program: Program
  /// Tokens run so far: the position of the next one.
  package private(set) var length = 0
  private let weights: WeightReader
  /// Of each layer, [positions, kvHeads * headSize].
  private var keys: [[Double]]
  private var values: [[Double]]

  package init(program: Program, source: any TensorSource) {
    self.program = program
    weights = WeightReader(source)
    keys = Array(repeating: [], count: program.layerCount)
    values = keys
  }

  /// Appends `tokens` to the sequence.
  ///
  /// - Returns: logits [vocabulary] after each of the tokens, or after the last one only.
  /// - Throws: a token outside the vocabulary, a tensor that cannot be read.
  package mutating func run(_ tokens: [Int32], lastLogitsOnly: Bool = false) throws -> [[Double]] {
    guard !tokens.isEmpty, case .logits(let stage) = program.stages.last else { return [] }
    let x = try stream(tokens)
    let wanted = lastLogitsOnly ? Array(x.suffix(program.width)) : x
    let logits = try ReferenceStages.logits(stage, x: wanted, weights: weights)
    return Self.rows(of: logits, width: program.vocabularySize)
  }

  /// Appends `tokens` to the sequence.
  ///
  /// - Returns: the state of each [width] after the last layer and the output norm.
  package mutating func states(_ tokens: [Int32]) throws -> [[Double]] {
    guard !tokens.isEmpty, case .logits(let stage) = program.stages.last else { return [] }
    let normed = try ReferenceStages.norm(stream(tokens), stage.norm, weights: weights)
    return Self.rows(of: normed, width: program.width)
  }

  private static func rows(of values: [Double], width: Int) -> [[Double]] {
    stride(from: 0, to: values.count, by: width).map { Array(values[$0..<$0 + width]) }
  }

  /// The residual stream after the last layer.
  private mutating func stream(_ tokens: [Int32]) throws -> [Double] {
    let positions = Array(length..<length + tokens.count)
    var x: [Double] = []
    var queries: [Double] = []
    var attended: [Double] = []
    var hidden: [Double] = []
    for stage in program.stages {
      switch stage {
      case .embed(let stage):
        x = try ReferenceStages.embed(stage, tokens: tokens, weights: weights)
      case .queryKeyValue(let stage):
        let made = try ReferenceStages.queryKeyValue(stage, x: x, positions: positions, weights: weights)
        queries = made.queries
        // A failed run leaves no half-written positions behind.
        let kvWidth = stage.heads.kvHeadCount * stage.heads.headSize
        keys[stage.layer] = keys[stage.layer].prefix(length * kvWidth) + made.keys
        values[stage.layer] = values[stage.layer].prefix(length * kvWidth) + made.values
      case .attention(let stage):
        attended = ReferenceStages.attention(
          stage, queries: queries, positions: positions, keys: keys[stage.layer], values: values[stage.layer])
      case .residualProjection(let stage):
        let input = stage.input == .attention ? attended : hidden
        x = try ReferenceStages.residualProjection(stage, x: x, input: input, weights: weights)
      case .gatedFeedForward(let stage):
        hidden = try ReferenceStages.gatedFeedForward(stage, x: x, weights: weights)
      case .logits: break
      case .collective:
        preconditionFailure("the reference runs whole models")
      }
    }
    length += tokens.count
    return x
  }
}
