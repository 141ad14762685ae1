/// A JSON value that keeps the order of its keys.
enum JSON {
  case null
  case bool(Bool)
  case int(Int)
  /// An unsigned number beyond `Int`, such as a seed.
  case unsigned(UInt64)
  /// Infinities and NaN, which JSON lacks, become null.
  case double(Double)
  case string(String)
  case array([JSON])
  case object([(String, JSON)])

  static func optional(_ value: Int?) -> JSON { value.map(JSON.int) ?? .null }
  static func optional(_ value: Double?) -> JSON { value.map(JSON.double) ?? .null }
  static func optional(_ value: String?) -> JSON { value.map(JSON.string) ?? .null }

  /// The value on one line.
  var text: String {
    var text = ""
    write(to: &text)
    return text
  }

  private func write(to text: inout String) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .int(let value): text += String(value)
    case .unsigned(let value): text += String(value)
    case .double(let value): text += value.isFinite ? "\(value)" : "null"
    case .string(let value): Self.quote(value, into: &text)
    case .array(let values):
      text += "["
      for (index, value) in values.enumerated() {
        if index > 0 { text += ", " }
        value.write(to: &text)
      }
      text += "]"
    case .object(let members):
      text += "{"
      for (index, (key, value)) in members.enumerated() {
        if index > 0 { text += ", " }
        Self.quote(key, into: &text)
        text += ": "
        value.write(to: &text)
      }
      text += "}"
    }
  }

  /// RFC 8259, section 7.
  private static func quote(_ string: String, into text: inout String) {
    text += "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      case "\0"..." ", "\u{7F}":
        // The space itself needs no escape.
        if scalar == " " {
          text += " "
        } else {
          let digits = String(scalar.value, radix: 16)
          text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}
