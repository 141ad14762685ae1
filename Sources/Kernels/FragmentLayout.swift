/// Where the elements of a matrix unit's fragments lie in a subgroup's registers: what `DirectMatrixKernel` must know,
/// and Vulkan leaves to the device. `FragmentProbe` finds it out.
///
/// The invocations of a subgroup stand in groups of `sharers`. Invocation `g * sharers + t` holds elements of rows
/// (of A; of B, tokens) `g`, `g + subgroupSize / sharers` and so on. Which of a row's inputs it holds depends on `t`
/// alone, for A and B alike: there are `k / sharers` of them, its slots.
package struct FragmentLayout: Sendable, Hashable {
  /// What is multiplied at a time, float16 into float32: m rows, n tokens, k inputs.
  package let m: Int
  package let n: Int
  package let k: Int
  /// Invocations that share a row.
  package let sharers: Int
  /// For each element of an invocation's part of A: which of its rows it belongs to, times the slots of a row, and
  /// its slot.
  package let weightPlaces: [Int]
  /// The same for B and tokens.
  package let inputPlaces: [Int]

  /// Inputs of a row that an invocation holds.
  package var slots: Int { k / sharers }

  /// An element: its row (of B, its column) and its input.
  package struct Element: Hashable {
    package var row: Int
    package var input: Int

    package init(row: Int, input: Int) {
      self.row = row
      self.input = input
    }
  }

  /// The layout in which each invocation of a subgroup has these elements of A and B, in order; nil where it is none
  /// that the kernel could follow.
  package init?(m: Int, n: Int, k: Int, a: [[Element]], b: [[Element]]) {
    let lanes = a.count
    guard let first = a.first, b.count == lanes, first.count * lanes == m * k, first.count <= 8 else {
      return nil
    }
    let rows = Set(first.map(\.row)).count
    guard rows > 0, (lanes * rows).isMultiple(of: m) else { return nil }
    let sharers = lanes * rows / m
    guard k.isMultiple(of: sharers), [1, 2, 4, 8].contains(k / sharers), (n * sharers).isMultiple(of: lanes)
    else {
      return nil
    }
    let (slots, apart) = (k / sharers, lanes / sharers)
    // The inputs of each sharer's slots, in the order of its elements of A.
    let inputs = a.prefix(sharers).map { elements in
      elements.filter { $0.row == elements[0].row }.map(\.input)
    }
    func places(_ elements: [[Element]]) -> [Int]? {
      var common: [Int]?
      for (lane, elements) in elements.enumerated() {
        var found: [Int] = []
        for element in elements {
          let distance = element.row - lane / sharers
          guard distance >= 0, distance.isMultiple(of: apart),
            let slot = inputs[lane % sharers].firstIndex(of: element.input)
          else { return nil }
          found.append(distance / apart * slots + slot)
        }
        if let common, common != found { return nil }
        common = found
      }
      guard let common, common.allSatisfy({ $0 < 16 }) else { return nil }
      return common
    }
    guard inputs.allSatisfy({ $0.count == slots }), Set(inputs.joined()) == Set(0..<k),
      let weightPlaces = places(a), let inputPlaces = places(b),
      Set(weightPlaces) == Set(0..<m * k / lanes), Set(inputPlaces) == Set(0..<n * k / lanes)
    else { return nil }
    self.m = m
    self.n = n
    self.k = k
    self.sharers = sharers
    self.weightPlaces = weightPlaces
    self.inputPlaces = inputPlaces
  }

  /// Places as kernels take them, up to eight: four bits each, the first lowest.
  static func packed(_ places: [Int]) -> UInt32 {
    places.enumerated().reduce(0) { $0 | UInt32($1.element) << UInt32(4 * $1.offset) }
  }
}
