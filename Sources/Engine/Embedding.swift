import Reference
import Transformer

/// What a text's embedding is made of: the states of its tokens after the last layer and the output norm, which the
/// logits are products of.
public enum Pooling: Sendable {
  /// That of the last token, which has seen all others.
  case last
  /// The mean over all tokens.
  case mean
}

/// The norm after the last layer, on the host: exact, and nothing beside a step.
struct OutputNorm: Sendable {
  private let weight: [Double]
  private let epsilon: Double

  init(_ model: LanguageModel) throws {
    guard case .logits(let stage) = model.program.stages.last else {
      throw EngineError(.model, "\(model.path): the model does not end with logits and gives no embeddings")
    }
    weight = try WeightReader(model.source).vector(stage.norm.weight)
    epsilon = Double(stage.norm.epsilon)
  }

  /// - Parameter state: of one token in the residual stream, `width` numbers.
  func callAsFunction(_ state: [Float]) -> [Double] {
    let squares = state.reduce(0) { $0 + Double($1) * Double($1) }
    let scale = 1 / (squares / Double(weight.count) + epsilon).squareRoot()
    return zip(state, weight).map { Double($0) * scale * $1 }
  }
}

/// The embedding of a text while its tokens' states come.
struct PooledStates: Sendable {
  let pooling: Pooling
  private let norm: OutputNorm
  private var sum: [Double] = []
  private var count = 0

  init(_ pooling: Pooling, norm: OutputNorm) {
    self.pooling = pooling
    self.norm = norm
  }

  /// The text is computed from its beginning.
  mutating func reset() {
    sum = []
    count = 0
  }

  /// The states of the next tokens of which any are wanted.
  mutating func add(_ states: [[Float]]) {
    for state in states {
      let state = norm(state)
      sum = sum.isEmpty ? state : zip(sum, state).map { $0 + $1 }
      count += 1
    }
  }

  /// `width` numbers.
  var embedding: [Float] { sum.map { Float($0 / Double(count)) } }
}

extension LanguageModel {
  /// Numbers of an embedding.
  public var width: Int { program.width }

  /// How the model's file says that embeddings are made; nil if it does not.
  public var pooling: Pooling? {
    // As llama.cpp numbers them.
    switch metadata["\(description.architecture.name).pooling_type"]?.int {
    case 1: .mean
    case 3: .last
    default: nil
    }
  }
}
