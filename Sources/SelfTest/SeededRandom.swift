import Glibc
import ModelFiles

/// Numbers that are the same for the same seed.
struct SeededRandom: RandomNumberGenerator {
  private var numbers: SplitMix64

  /// The numbers of one check: they depend on its name, not on which checks ran before it.
  init(seed: UInt64, name: String) {
    // FNV-1a: the standard library's hashes differ from run to run.
    numbers = SplitMix64(
      state: name.utf8.reduce(seed ^ 0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 })
  }

  mutating func next() -> UInt64 { numbers.next() }

  /// A normally distributed number with mean 0 and deviation 1 (Box and Muller's method).
  mutating func normal() -> Float {
    let radius = (-2 * log(Double.random(in: 0x1p-53...1, using: &self))).squareRoot()
    return Float(radius * cos(Double.random(in: 0..<2 * Double.pi, using: &self)))
  }

  mutating func normals(_ count: Int) -> [Float] { (0..<count).map { _ in normal() } }
}
