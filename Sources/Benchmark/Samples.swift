/// Repeated measurements of one thing: the median is what is reported, the ends are how far to trust it.
package struct Samples: Sendable, Hashable {
  /// Ascending; never empty.
  package let sorted: [Double]

  /// - Precondition: there is at least one value.
  package init(_ values: [Double]) {
    precondition(!values.isEmpty, "no measurement")
    sorted = values.sorted()
  }

  package var least: Double { sorted[0] }
  package var most: Double { sorted[sorted.count - 1] }

  /// The middle value, or the mean of the two in the middle.
  package var median: Double {
    let middle = sorted.count / 2
    return sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
  }

  /// The least value that so large a part of all, from 0 to 1, does not exceed (nearest rank).
  package func percentile(_ part: Double) -> Double {
    sorted[min(max(Int((part * Double(sorted.count)).rounded(.up)) - 1, 0), sorted.count - 1)]
  }

  /// Each value through `body`: from seconds to tokens a second, for one.
  package func map(_ body: (Double) -> Double) -> Samples { Samples(sorted.map(body)) }
}
