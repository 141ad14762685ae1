/// Where one file stands in a model split over several: what its metadata says, and how its parts are named.
struct SplitPart {
  /// From 0.
  let number: Int
  let count: Int
  /// The path before `-00001-of-00003.gguf`.
  private let prefix: String

  /// Nil when the file is a whole model.
  ///
  /// - Throws: when the metadata makes no sense, or the file's name does not say where the other parts are.
  init?(_ header: GGUFHeader, path: String) throws(ModelFileError) {
    guard let countValue = header.metadata["split.count"] else { return nil }
    // The format keeps both in 16 bits, and the names in five digits.
    guard let count = countValue.int, (0...65535).contains(count),
      let number = header.metadata["split.no"]?.int, number == 0 || (0..<count).contains(number)
    else {
      throw ModelFileError(
        path: path, reason: "corrupt: its metadata split.no and split.count make no sense; download it again")
    }
    guard count > 1 else { return nil }
    let suffix = Self.suffix(number, count)
    guard path.hasSuffix(suffix) else {
      throw ModelFileError(
        path: path,
        reason:
          "is part \(number + 1) of a model of \(count) files but is not named NAME\(suffix), so the others "
          + "cannot be found; give all parts their original names")
    }
    self.number = number
    self.count = count
    prefix = String(path.dropLast(suffix.count))
  }

  /// The path of part `number`, from 0.
  func path(ofPart number: Int) -> String { prefix + Self.suffix(number, count) }

  private static func suffix(_ number: Int, _ count: Int) -> String {
    func digits(_ value: Int) -> String { String(String(100_000 + value).dropFirst()) }
    return "-\(digits(number + 1))-of-\(digits(count)).gguf"
  }
}
