import Glibc

/// A small generator that gives the same numbers for the same seed (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators").
struct SeededRandom: RandomNumberGenerator {
  private var state: UInt64

  /// The numbers of one check: they depend on its name, not on which checks ran before it.
  init(seed: UInt64, name: String) {
    // FNV-1a: the standard library's hashes differ from run to run.
    state = name.utf8.reduce(seed ^ 0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return mixed ^ mixed >> 31
  }

  /// A normally distributed number with mean 0 and deviation 1 (Box and Muller's method).
  mutating func normal() -> Float {
    let radius = (-2 * log(Double.random(in: 0x1p-53...1, using: &self))).squareRoot()
    return Float(radius * cos(Double.random(in: 0..<2 * Double.pi, using: &self)))
  }

  mutating func normals(_ count: Int) -> [Float] { (0..<count).map { _ in normal() } }
}
