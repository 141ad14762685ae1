/// A value of a model's metadata, in the type that the file gave it.
///
/// Arrays are kept flat in their element's own type: a vocabulary is a `[String]`, its scores a `[Float]`. Writers
/// choose widths freely, so readers ask through the accessors, which convert whatever can be held exactly.
package enum MetadataValue: Sendable, Hashable {
  case uint8(UInt8)
  case int8(Int8)
  case uint16(UInt16)
  case int16(Int16)
  case uint32(UInt32)
  case int32(Int32)
  case uint64(UInt64)
  case int64(Int64)
  case float32(Float)
  case float64(Double)
  case bool(Bool)
  case string(String)

  case uint8Array([UInt8])
  case int8Array([Int8])
  case uint16Array([UInt16])
  case int16Array([Int16])
  case uint32Array([UInt32])
  case int32Array([Int32])
  case uint64Array([UInt64])
  case int64Array([Int64])
  case float32Array([Float])
  case float64Array([Double])
  case boolArray([Bool])
  case stringArray([String])
}

// MARK: - Scalars

extension MetadataValue {
  /// The integer, from any integer type that holds one an `Int` can hold; nil for every other type.
  package var int: Int? {
    switch self {
    case .uint8(let value): Int(value)
    case .int8(let value): Int(value)
    case .uint16(let value): Int(value)
    case .int16(let value): Int(value)
    case .uint32(let value): Int(value)
    case .int32(let value): Int(value)
    case .uint64(let value): Int(exactly: value)
    case .int64(let value): Int(exactly: value)
    default: nil
    }
  }

  /// The number, from a float or an integer of any width; nil for every other type.
  package var double: Double? {
    switch self {
    case .float32(let value): Double(value)
    case .float64(let value): value
    case .uint64(let value): Double(value)
    default: int.map(Double.init)
    }
  }

  /// The truth value; nil for every other type.
  package var bool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  /// The text; nil for every other type.
  package var string: String? {
    if case .string(let value) = self { value } else { nil }
  }
}

// MARK: - Arrays

extension MetadataValue {
  /// The integers of an array of any integer type; nil for every other type or when one does not fit an `Int`.
  package var ints: [Int]? {
    switch self {
    case .uint8Array(let values): values.map(Int.init)
    case .int8Array(let values): values.map(Int.init)
    case .uint16Array(let values): values.map(Int.init)
    case .int16Array(let values): values.map(Int.init)
    case .uint32Array(let values): values.map(Int.init)
    case .int32Array(let values): values.map(Int.init)
    case .uint64Array(let values): exact(values)
    case .int64Array(let values): exact(values)
    default: nil
    }
  }

  /// The integers of an array of any integer type, as `Int32`; nil for every other type or when one does not fit.
  package var int32s: [Int32]? {
    if case .int32Array(let values) = self { return values }
    return ints.flatMap(exact)
  }

  /// The numbers of an array of floats or integers of any width; nil for every other type.
  package var doubles: [Double]? {
    switch self {
    case .float32Array(let values): values.map(Double.init)
    case .float64Array(let values): values
    // Spelled out: `Double.init` alone may mean the bit pattern.
    case .uint64Array(let values): values.map { Double($0) }
    default: ints?.map(Double.init)
    }
  }

  /// The numbers of an array of floats or integers, rounded to `Float`; nil for every other type.
  package var floats: [Float]? {
    if case .float32Array(let values) = self { return values }
    return doubles?.map { Float($0) }
  }

  /// The truth values of an array of them; nil for every other type.
  package var bools: [Bool]? {
    if case .boolArray(let values) = self { values } else { nil }
  }

  /// The texts of an array of them; nil for every other type.
  package var strings: [String]? {
    if case .stringArray(let values) = self { values } else { nil }
  }

  /// Elements of an array; nil for a scalar.
  package var count: Int? {
    switch self {
    case .uint8Array(let values): values.count
    case .int8Array(let values): values.count
    case .uint16Array(let values): values.count
    case .int16Array(let values): values.count
    case .uint32Array(let values): values.count
    case .int32Array(let values): values.count
    case .uint64Array(let values): values.count
    case .int64Array(let values): values.count
    case .float32Array(let values): values.count
    case .float64Array(let values): values.count
    case .boolArray(let values): values.count
    case .stringArray(let values): values.count
    default: nil
    }
  }
}

/// `values` in a narrower type, or nil when one does not fit.
private func exact<From: BinaryInteger, To: FixedWidthInteger>(_ values: [From]) -> [To]? {
  var result: [To] = []
  result.reserveCapacity(values.count)
  for value in values {
    guard let converted = To(exactly: value) else { return nil }
    result.append(converted)
  }
  return result
}
