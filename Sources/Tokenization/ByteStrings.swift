/// A list of byte strings, one after another in a single allocation.
struct ByteStrings: Sendable {
  private var bytes: [UInt8] = []
  private var ends: [Int] = []

  var count: Int { ends.count }

  mutating func reserveCapacity(_ count: Int) {
    ends.reserveCapacity(count)
  }

  mutating func append(_ string: some Sequence<UInt8>) {
    bytes.append(contentsOf: string)
    ends.append(bytes.count)
  }

  /// Where string `index` lies.
  @inline(__always)
  private func bounds(_ index: Int) -> Range<Int> {
    (index == 0 ? 0 : ends[index - 1])..<ends[index]
  }

  subscript(index: Int) -> ArraySlice<UInt8> {
    bytes[bounds(index)]
  }

  /// Whether string `index` equals `other`.
  @inline(__always)
  func equals(_ index: Int, _ other: UnsafeBufferPointer<UInt8>) -> Bool {
    let bounds = bounds(index)
    guard bounds.count == other.count else { return false }
    return bytes.withUnsafeBufferPointer { bytes in
      for offset in 0..<other.count where bytes[bounds.lowerBound + offset] != other[offset] { return false }
      return true
    }
  }
}

/// An index of some of the strings of a `ByteStrings`: from the bytes to the number of the string.
///
/// The lowest number wins where strings are equal. The strings themselves are passed to each call, since the caller
/// owns them.
struct ByteStringIndex: Sendable {
  private let slots: [Int32]
  private let mask: Int
  /// The length of the longest indexed string, in bytes: longer ones need not be looked up.
  let longest: Int

  /// Indexes the strings for which `isIncluded` holds, leaving out empty ones.
  init(_ strings: ByteStrings, where isIncluded: (Int) -> Bool) {
    var size = 16
    while size / 2 < strings.count { size *= 2 }
    let mask = size - 1
    var slots = [Int32](repeating: -1, count: size)
    var longest = 0
    for index in 0..<strings.count where isIncluded(index) {
      strings[index].withUnsafeBufferPointer { string in
        guard !string.isEmpty else { return }
        let slot = Self.slot(of: string, in: strings, slots: slots, mask: mask)
        if slots[slot] < 0 { slots[slot] = Int32(index) }
        longest = max(longest, string.count)
      }
    }
    self.slots = slots
    self.mask = mask
    self.longest = longest
  }

  /// The number of the string that equals `string`, or nil.
  @inline(__always)
  func find(_ string: UnsafeBufferPointer<UInt8>, in strings: ByteStrings) -> Int32? {
    guard string.count <= longest else { return nil }
    let value = slots[Self.slot(of: string, in: strings, slots: slots, mask: mask)]
    return value < 0 ? nil : value
  }

  /// The slot that names a string equal to `string`, or the empty one where it belongs.
  @inline(__always)
  private static func slot(
    of string: UnsafeBufferPointer<UInt8>, in strings: ByteStrings, slots: [Int32], mask: Int
  ) -> Int {
    var index = Int(truncatingIfNeeded: hash(string)) & mask
    while slots[index] >= 0 && !strings.equals(Int(slots[index]), string) {
      index = (index + 1) & mask
    }
    return index
  }

  /// Eight bytes at a time, each mixed into the whole.
  @inline(__always)
  private static func hash(_ string: UnsafeBufferPointer<UInt8>) -> UInt64 {
    let raw = UnsafeRawBufferPointer(string)
    var hash = UInt64(raw.count)
    var offset = 0
    while offset + 8 <= raw.count {
      hash = mixed(hash ^ raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      offset += 8
    }
    var rest: UInt64 = 0
    while offset < raw.count {
      rest = rest << 8 | UInt64(raw[offset])
      offset += 1
    }
    return mixed(hash ^ rest)
  }
}
