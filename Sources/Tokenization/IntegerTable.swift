/// A map from 64-bit keys to non-negative 32-bit values: open addressing with linear probing, filled once.
///
/// Merge pairs and trie edges are looked up once per byte of text, where `Dictionary` is several times slower.
struct IntegerTable: Sendable {
  private struct Slot {
    var key: UInt64
    var value: Int32
  }
  private static let empty: Int32 = -1

  private var slots: [Slot]
  private var mask: Int
  private(set) var count = 0

  /// A table with room for `capacity` entries; it grows past that by itself.
  init(capacity: Int) {
    let size = Self.slotCount(for: capacity)
    slots = Array(repeating: Slot(key: 0, value: Self.empty), count: size)
    mask = size - 1
  }

  /// A power of two at most half filled by `capacity` entries.
  private static func slotCount(for capacity: Int) -> Int {
    var size = 16
    while size / 2 < capacity { size *= 2 }
    return size
  }

  /// The slot that holds `key`, or the empty one where it belongs.
  @inline(__always)
  private func slot(of key: UInt64) -> Int {
    var index = Int(truncatingIfNeeded: mixed(key)) & mask
    while slots[index].value != Self.empty && slots[index].key != key {
      index = (index + 1) & mask
    }
    return index
  }

  /// The value of `key`, or nil.
  @inline(__always)
  subscript(key: UInt64) -> Int32? {
    let value = slots[slot(of: key)].value
    return value == Self.empty ? nil : value
  }

  /// Gives `key` the value `value` (0 or more) unless it has one.
  mutating func insertIfAbsent(_ key: UInt64, _ value: Int32) {
    precondition(value >= 0)
    if (count + 1) * 2 > slots.count { grow() }
    let index = slot(of: key)
    guard slots[index].value == Self.empty else { return }
    slots[index] = Slot(key: key, value: value)
    count += 1
  }

  private mutating func grow() {
    let old = slots
    slots = Array(repeating: Slot(key: 0, value: Self.empty), count: old.count * 2)
    mask = slots.count - 1
    for entry in old where entry.value != Self.empty {
      slots[slot(of: entry.key)] = entry
    }
  }
}

/// Spreads a key over 64 bits (the finalizer of MurmurHash3), so that a table may take its low bits.
@inline(__always)
func mixed(_ key: UInt64) -> UInt64 {
  var hash = key
  hash = (hash ^ (hash >> 33)) &* 0xff51_afd7_ed55_8ccd
  hash = (hash ^ (hash >> 33)) &* 0xc4ce_b9fe_1a85_ec53
  return hash ^ (hash >> 33)
}
