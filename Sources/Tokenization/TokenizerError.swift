/// Why a tokenizer cannot be made from a model's metadata.
package struct TokenizerError: Error, CustomStringConvertible, Equatable {
  /// One line: what is wrong, with which metadata key, and what to do.
  package let description: String

  init(_ description: String) {
    self.description = description
  }
}
