/// Where the elements of a matrix unit's fragments of sums lie in a subgroup's registers: how far each is from the
/// first one that the same invocation holds. The matrix kernel in bytes must know, and Vulkan leaves it to the device;
/// `FragmentProbe` finds it out.
package struct SumLayout: Sendable, Hashable {
  /// Rows from an invocation's first element to each.
  package let rowPlaces: [Int]
  /// The same for tokens.
  package let tokenPlaces: [Int]

  /// The layout in which each invocation of a subgroup has the elements of these indices, row * n + token, in order; nil
  /// where it is none that the kernel could follow.
  package init?(m: Int, n: Int, held: [[Int]]) {
    guard let first = held.first, let origin = first.first, first.count <= 8,
      held.joined().sorted() == Array(0..<m * n)
    else { return nil }
    rowPlaces = first.map { $0 / n - origin / n }
    tokenPlaces = first.map { $0 % n - origin % n }
    guard rowPlaces.allSatisfy({ (0..<16).contains($0) }), tokenPlaces.allSatisfy({ (0..<16).contains($0) })
    else { return nil }
    for elements in held {
      guard elements.map({ $0 / n - elements[0] / n }) == rowPlaces,
        elements.map({ $0 % n - elements[0] % n }) == tokenPlaces
      else { return nil }
    }
  }

  /// A layout of so many elements that no device need have: for compiling where nothing runs.
  package init(elements: Int) {
    rowPlaces = (0..<elements).map { 2 * $0 }
    tokenPlaces = rowPlaces.map { _ in 0 }
  }
}
