/// A list of counts as an option gives it: "1,2,8".
package struct CountList: Sendable, Hashable {
  package var counts: [Int]

  /// The largest count that any option takes.
  package static let most = 1 << 32

  package init(_ counts: [Int]) {
    self.counts = counts
  }

  /// Nil unless `text` is counts from 0 to `most` with commas between.
  package init?(_ text: String) {
    var counts: [Int] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      // Digits alone: `Int` would take a sign, too.
      guard !part.isEmpty, part.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let count = Int(part),
        count <= Self.most
      else { return nil }
      counts.append(count)
    }
    self.counts = counts
  }
}

extension CountList: CustomStringConvertible {
  package var description: String { counts.map(String.init).joined(separator: ",") }
}
