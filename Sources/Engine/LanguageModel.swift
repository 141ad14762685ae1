import ModelFiles
import Tokenization
import Transformer

/// A model file, opened and checked: metadata, tensors, tokenizer. No device is involved yet.
public final class LanguageModel: Sendable {
  public let path: String
  package let source: any TensorSource
  package let metadata: [String: MetadataValue]
  package let tokenizer: Tokenizer?
  package let description: ModelDescription
  package let program: Program
  /// The GGUF file; nil for a synthetic model.
  package let file: GGUFFile?

  /// Opens a GGUF file (any part of a split one).
  ///
  /// - Throws: one line on what is wrong with the file, the model or its tokenizer.
  public init(path: String) throws {
    let file = try GGUFFile(path: path)
    self.path = path
    self.file = file
    source = file
    metadata = file.metadata
    do {
      description = try ModelDescription(metadata: file.metadata, tensors: file.tensors)
      program = try Program(description, source: file)
      tokenizer = try Tokenizer(metadata: file.metadata)
    } catch {
      throw EngineError(.model, "\(path): \(error)")
    }
    if let tokenizer, tokenizer.vocabularySize > description.vocabularySize {
      throw EngineError(
        .model,
        "\(path): the tokenizer has \(tokenizer.vocabularySize) tokens but the embedding table only "
          + "\(description.vocabularySize) rows; the file is damaged")
    }
  }

  /// Opens a file for its weights alone: it needs no tokenizer.
  package init(weightsOf path: String) throws {
    let file = try GGUFFile(path: path)
    self.path = path
    self.file = file
    source = file
    metadata = file.metadata
    description = try ModelDescription(metadata: file.metadata, tensors: file.tensors)
    program = try Program(description, source: file)
    tokenizer = nil
  }

  /// A model of a well-known shape with random weights, for measuring speed.
  package init(shape: SyntheticShape, weights: TensorType, seed: UInt64) throws {
    path = "\(shape.name) \(weights.name)"
    file = nil
    metadata = [:]
    tokenizer = nil
    description = try ModelDescription.synthetic(shape: shape, weights: weights)
    let random = RandomTensorSource(tensors: description.tensors, seed: seed, hasRecipes: true)
    source = random
    program = try Program(description, source: random)
  }

  /// The stages of a run whose KV cache is of that type.
  ///
  /// - Throws: one line where the model's heads are no whole blocks of it.
  package func program(cacheType: KVCacheType) throws -> Program {
    do {
      return try program.keeping(cacheType)
    } catch {
      throw EngineError(.option, "\(path): \(error)")
    }
  }

  /// Positions that the model was trained for.
  public var contextLength: Int { description.contextLength }

  /// Tokens that it knows: ids are below, and so many logits come with each token.
  public var vocabularySize: Int { program.vocabularySize }

  /// Token ids of a text, with the model's beginning-of-sequence token where it expects one.
  ///
  /// - Parameter parseSpecial: whether special tokens written out in the text become those tokens.
  public func tokens(of text: String, addSpecial: Bool = true, parseSpecial: Bool = true) throws -> [Int32] {
    guard let tokenizer else { throw EngineError(.model, "\(path) has no tokenizer") }
    return tokenizer.encode(text, addSpecial: addSpecial, parseSpecial: parseSpecial)
  }

  /// The text of tokens; special tokens have none unless it `showsSpecial` ones by name.
  public func text(of tokens: [Int32], showsSpecial: Bool = false) throws -> String {
    guard let tokenizer else { throw EngineError(.model, "\(path) has no tokenizer") }
    return tokenizer.decode(tokens, special: showsSpecial)
  }
}
