import ModelFiles

extension SyntheticShape {
  /// A shape by name, or by numbers: "layers=32,width=4096,heads=32,kv-heads=8,head-size=128,ff=14336,
  /// vocabulary=128256,tied".
  ///
  /// `kv-heads` is `heads` and `head-size` is `width / heads` where they are not given.
  ///
  /// - Throws: the first name that is not known or number that is missing or out of range.
  package init(text: String) throws(ModelDescriptionError) {
    guard text.contains("=") else {
      self = try SyntheticShape.named(text)
      return
    }
    var numbers: [Substring: Int] = [:]
    var tied = false
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      if part == "tied" {
        tied = true
        continue
      }
      let sides = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard sides.count == 2, Self.keys.contains(String(sides[0])) else {
        throw ModelDescriptionError(
          "\"\(oneLine(String(part)))\" is no part of a shape: use "
            + Self.keys.map { "\($0)=NUMBER" }.joined(separator: ", ") + " and tied")
      }
      let most = sides[0] == "layers" ? 1 << 16 : 1 << 24
      guard let number = Int(sides[1]), (1...most).contains(number) else {
        throw ModelDescriptionError(
          "\"\(oneLine(String(part)))\" in the shape: the number must be from 1 to \(most)")
      }
      guard numbers.updateValue(number, forKey: sides[0]) == nil else {
        throw ModelDescriptionError("the shape gives \(sides[0]) twice")
      }
    }
    func number(_ key: Substring) throws(ModelDescriptionError) -> Int {
      guard let number = numbers[key] else {
        throw ModelDescriptionError("the shape lacks \(key)=NUMBER")
      }
      return number
    }
    let width = try number("width")
    let heads = try number("heads")
    let kvHeads = numbers["kv-heads"] ?? heads
    guard heads.isMultiple(of: kvHeads) else {
      throw ModelDescriptionError("kv-heads=\(kvHeads) in the shape does not divide heads=\(heads)")
    }
    let headSize = numbers["head-size"] ?? width / heads
    guard headSize.isMultiple(of: 16), (16...256).contains(headSize) else {
      throw ModelDescriptionError(
        "heads of \(headSize) elements in the shape: head-size must be a multiple of 16, from 16 to 256")
    }
    let feedForward = try number("ff")
    for (key, count) in [("width", width), ("ff", feedForward)] where !count.isMultiple(of: 32) {
      throw ModelDescriptionError("\(key)=\(count) in the shape: the number must be a multiple of 32")
    }
    self.init(
      name: text, layerCount: try number("layers"), width: width,
      heads: HeadLayout(headCount: heads, kvHeadCount: kvHeads, headSize: headSize),
      feedForwardWidth: feedForward, vocabularySize: try number("vocabulary"), tiesEmbeddings: tied,
      contextLength: 131072)
  }

  private static let keys = ["layers", "width", "heads", "kv-heads", "head-size", "ff", "vocabulary"]
}
