/// How many units of weights are copied ahead of the one that is computed with.
///
/// As few as keep the device from waiting: it grows as soon as the device waits for copies, and shrinks by one when it
/// has not for some steps. Copies far ahead of their use gain nothing then, and stand before others that want the link.
package struct PrefetchDepth: Sendable, Hashable {
  /// What somebody asked for: it stays so.
  package let isFixed: Bool
  /// As many as the ring has room for.
  package let most: Int
  package private(set) var depth: Int
  /// Steps without waiting after which it shrinks: more each time that this turns out to have been too much.
  private var patience = Self.leastPatience
  private var calmSteps = 0
  private var hasShrunk = false

  private static let leastPatience = 8
  private static let mostPatience = 1024

  /// - Parameters:
  ///   - fixed: the depth to stay at; nil adapts.
  ///   - most: units that the ring has room for beside the one that is computed with, at most.
  package init(fixed: Int?, most: Int) {
    isFixed = fixed != nil
    self.most = max(most, 1)
    depth = fixed ?? self.most
  }

  /// What was seen during about a step.
  ///
  /// - Parameters:
  ///   - looks: how often the device was looked at while it had work.
  ///   - waits: how often it waited for a copy then, or for a read that a copy waits for.
  /// - Returns: whether that was enough to judge by.
  package mutating func note(waits: Int, looks: Int) -> Bool {
    guard looks >= Self.fewestLooks else { return false }
    guard !isFixed else { return true }
    // The first unit of a step that follows no other is always waited for.
    if waits * 10 > looks {
      calmSteps = 0
      guard depth < most else { return true }
      depth += 1
      if hasShrunk { patience = min(2 * patience, Self.mostPatience) }
      hasShrunk = false
    } else {
      calmSteps += 1
      guard calmSteps >= patience, depth > 1 else { return true }
      depth -= 1
      calmSteps = 0
      hasShrunk = true
    }
    return true
  }

  private static let fewestLooks = 4
}

extension StreamLayout {
  /// The most units behind another one whose places in the ring do not overlap its own.
  var mostUnitsAhead: Int {
    units.indices.reduce(0) { most, first in
      let place = units[first].offset..<units[first].offset + units[first].byteCount
      let ahead = units[(first + 1)...].prefix { !place.overlaps($0.offset..<$0.offset + $0.byteCount) }
      return max(most, ahead.count)
    }
  }
}
