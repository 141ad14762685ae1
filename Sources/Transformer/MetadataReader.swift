import ModelFiles

/// Reads the hyperparameters of one architecture from a model's metadata, every value checked.
struct MetadataReader {
  let metadata: [String: MetadataValue]
  /// The architecture's name, which prefixes its keys.
  let prefix: String

  /// The integer of `key`, which must lie in `range`; nil where the key is absent.
  ///
  /// An array (a value for each layer) is accepted where all its elements are equal.
  func integer(_ key: String, in range: ClosedRange<Int>) throws(ModelDescriptionError) -> Int? {
    guard let value = metadata["\(prefix).\(key)"] else { return nil }
    if let values = value.ints {
      guard let first = values.first, values.allSatisfy({ $0 == first }) else {
        throw ModelDescriptionError(
          "metadata \(prefix).\(key) differs from layer to layer, which is not supported")
      }
      return try checked(first, key, range)
    }
    guard let integer = value.int else { throw wrong(key, "is not an integer") }
    return try checked(integer, key, range)
  }

  /// The same, for a key that must be there.
  func requiredInteger(_ key: String, in range: ClosedRange<Int>) throws(ModelDescriptionError) -> Int {
    guard let value = try integer(key, in: range) else { throw missing(key) }
    return value
  }

  /// The number of `key`, finite and in `range`; nil where the key is absent.
  func number(_ key: String, in range: ClosedRange<Float>) throws(ModelDescriptionError) -> Float? {
    guard let value = metadata["\(prefix).\(key)"] else { return nil }
    guard let number = value.double.map({ Float($0) }) else { throw wrong(key, "is not a number") }
    guard range.contains(number) else {
      throw wrong(key, "is \(number), outside \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// The same, for a key that must be there.
  func requiredNumber(_ key: String, in range: ClosedRange<Float>) throws(ModelDescriptionError) -> Float {
    guard let value = try number(key, in: range) else { throw missing(key) }
    return value
  }

  /// The text of `key`; nil where the key is absent.
  func string(_ key: String) throws(ModelDescriptionError) -> String? {
    guard let value = metadata["\(prefix).\(key)"] else { return nil }
    guard let string = value.string else { throw wrong(key, "is not a string") }
    return string
  }

  /// The truth values of `key`; nil where the key is absent or no array of them.
  func flags(_ key: String) -> [Bool]? {
    metadata["\(prefix).\(key)"]?.bools
  }

  func missing(_ key: String) -> ModelDescriptionError {
    ModelDescriptionError(
      "metadata \(prefix).\(key) is missing: the file is incomplete; convert the model again")
  }

  func wrong(_ key: String, _ what: String) -> ModelDescriptionError {
    ModelDescriptionError("metadata \(prefix).\(key) \(what): the file is damaged or not for this program")
  }

  private func checked(
    _ value: Int, _ key: String, _ range: ClosedRange<Int>
  ) throws(ModelDescriptionError) -> Int {
    guard range.contains(value) else {
      throw wrong(key, "is \(value), outside \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }
}
