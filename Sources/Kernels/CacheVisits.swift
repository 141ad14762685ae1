/// The order of visits: every time that a step comes to a layer whose keys and values are brought for it. Visits have
/// numbers from 1 on, in the order in which they are computed.
struct CacheVisits {
  /// The last visit.
  private(set) var count: UInt64 = 0
  /// The last one whose pages return; 0 for none.
  private(set) var lastReturn: UInt64 = 0
  private let places: [Int?]
  /// The last visit of each place of the ring whose pages return.
  private var lastOfPlace: [UInt64]

  init(_ residency: CacheResidency) {
    places = residency.places
    lastOfPlace = Array(repeating: 0, count: residency.ringLayers)
  }

  /// The visit whose pages must have returned before those of the next visit, of that layer, may come; 0 for none. Then
  /// its place in the ring is free, and its pages at home are what the step before has left: it has always the same place.
  func returnBeforeNext(_ layer: Int) -> UInt64 { places[layer].map { lastOfPlace[$0] } ?? 0 }

  /// Pages of the layer come, in a new visit.
  mutating func begin() { count += 1 }

  /// What the last visit has written returns. Visits that never come to that are waited for by none.
  mutating func end(_ layer: Int) {
    guard let place = places[layer] else { return }
    lastReturn = count
    lastOfPlace[place] = count
  }
}
