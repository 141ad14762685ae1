import CShaderInterface
import Kernels
import ModelFiles

/// All the memory that one check's dispatches may touch, as the host sees it before they run: arrays with guards
/// between them. Its words are copied to the device as they are, so they may hold addresses of one another.
struct MemoryImage {
  /// NaN as a float32 and as two halves: what is still there was not written.
  static let poison: UInt32 = 0x7fff_7fff
  /// Other NaNs, between arrays: reading them shows in the results, writing them in the comparison.
  static let guardWord: UInt32 = 0x7ffd_7ffd
  private static let alignment = 64

  /// Neighbouring words of the image.
  struct Region {
    let start: Int
    let count: Int
    let address: UInt64
  }

  private let base: UInt64
  private(set) var words: [UInt32]

  /// - Parameter base: the device address where the image will lie.
  init(base: UInt64) {
    self.base = base
    words = [UInt32](repeating: Self.guardWord, count: Self.alignment)
  }

  /// Appends an array, aligned to 256 bytes, with a guard of at least 256 bytes behind it.
  mutating func add(_ contents: [UInt32]) -> Region {
    let start = words.count
    words.append(contentsOf: contents)
    let padded = (contents.count + Self.alignment - 1) / Self.alignment * Self.alignment + Self.alignment
    words.append(contentsOf: repeatElement(Self.guardWord, count: padded - contents.count))
    return Region(start: start, count: contents.count, address: base + UInt64(4 * start))
  }

  mutating func add(_ contents: [Float]) -> Region { add(contents.map(\.bitPattern)) }

  mutating func add<Element: BitwiseCopyable>(structs: [Element]) -> Region {
    structs.withUnsafeBytes { bytes in add(Array(bytes.bindMemory(to: UInt32.self))) }
  }

  /// An array that the dispatches are to fill.
  mutating func addPoisoned(_ count: Int) -> Region { add([UInt32](repeating: Self.poison, count: count)) }

  /// Rows of `width` numbers in activation layout; padding is poisoned, as no kernel may use it.
  mutating func addActivations(_ rows: [Float], width: Int) -> Region {
    let stride = activationStride(width)
    var laidOut = [UInt32](repeating: Self.poison, count: rows.count / width * stride)
    for (index, value) in rows.enumerated() {
      laidOut[index / width * stride + activationIndex(index % width)] = value.bitPattern
    }
    return add(laidOut)
  }

  /// The step that kernels read: its header and its rows.
  mutating func addStep(_ rows: [StepRow], outputCount: Int = 0, tileCount: Int = 0) -> Region {
    let header = [UInt32(rows.count), UInt32(outputCount), UInt32(tileCount), 0]
    return add(header + rows.flatMap { [$0.token, $0.position, $0.sequence, $0.output_row] })
  }
}

/// What the device left of a `MemoryImage`.
struct Outcome {
  private let before: [UInt32]
  private let after: [UInt32]
  private var mayChange: [Bool]
  let microseconds: Double

  init(before: MemoryImage, after: [UInt32], microseconds: Double) {
    self.before = before.words
    self.after = after
    self.microseconds = microseconds
    mayChange = [Bool](repeating: false, count: after.count)
  }

  /// A word that the dispatches were to write.
  mutating func word(_ region: MemoryImage.Region, _ index: Int) -> UInt32 {
    precondition(index < region.count)
    mayChange[region.start + index] = true
    return after[region.start + index]
  }

  /// A float32 that the dispatches were to write.
  mutating func float(_ region: MemoryImage.Region, _ index: Int) -> Double {
    Double(Float(bitPattern: word(region, index)))
  }

  /// A float16 that the dispatches were to write; `index` counts halves.
  mutating func half(_ region: MemoryImage.Region, _ index: Int) -> Double {
    Double(Float(half: halfBits(region, index)))
  }

  mutating func halfBits(_ region: MemoryImage.Region, _ index: Int) -> UInt16 {
    UInt16(truncatingIfNeeded: word(region, index / 2) >> UInt32(16 * (index % 2)))
  }

  /// A signed byte that the dispatches were to write; `index` counts bytes.
  mutating func byte(_ region: MemoryImage.Region, _ index: Int) -> Int8 {
    Int8(truncatingIfNeeded: word(region, index / 4) >> UInt32(8 * (index % 4)))
  }

  /// The dispatches may leave anything in `region`.
  mutating func ignore(_ region: MemoryImage.Region) {
    for index in region.start..<region.start + region.count { mayChange[index] = true }
  }

  mutating func ignore(_ regions: [MemoryImage.Region]) { for region in regions { ignore(region) } }

  /// How many words changed that were not to be written.
  var strayWrites: Int {
    var count = 0
    for index in after.indices where before[index] != after[index] && !mayChange[index] { count += 1 }
    return count
  }
}

/// Names a struct's conformance in this module. Swift 6.3.1, building with tests, does not find that of an imported
/// struct when only code inlined from another module needs it, and crashes.
func plain<Value: BitwiseCopyable>(_ value: Value) -> Value { value }
