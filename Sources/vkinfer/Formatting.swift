/// How numbers and texts from files look on a terminal.
enum Format {
  /// "12.34": `value` with that many decimals.
  static func decimal(_ value: Double, _ decimals: Int) -> String {
    guard value.isFinite, value.magnitude < 1e15 else { return "\(value)" }
    var scale = 1.0
    for _ in 0..<decimals { scale *= 10 }
    guard value.magnitude * scale < 9e18 else { return "\(value)" }
    let digits = String(Int((value.magnitude * scale).rounded()))
    let padded = String(repeating: "0", count: max(0, decimals + 1 - digits.count)) + digits
    let sign = value < 0 && padded.contains { $0 != "0" } ? "-" : ""
    guard decimals > 0 else { return sign + padded }
    return sign + padded.dropLast(decimals) + "." + padded.suffix(decimals)
  }

  /// "138 MB", "4.7 GB": decimal units, as memory plans use them.
  static func bytes(_ count: Int) -> String {
    let value = Double(count)
    if value < 1000 { return "\(count) bytes" }
    if value < 1e6 { return decimal(value / 1e3, 0) + " kB" }
    if value < 1e9 { return decimal(value / 1e6, value < 1e7 ? 1 : 0) + " MB" }
    return decimal(value / 1e9, 1) + " GB"
  }

  /// "1,234,567".
  static func grouped(_ count: Int) -> String {
    let digits = String(count.magnitude)
    var result = ""
    for (index, digit) in digits.enumerated() {
      if index > 0, (digits.count - index).isMultiple(of: 3) { result += "," }
      result.append(digit)
    }
    return (count < 0 ? "-" : "") + result
  }

  /// "1 token", "2 tokens".
  static func count(_ count: Int, _ noun: String) -> String {
    "\(grouped(count)) \(noun)\(count == 1 ? "" : "s")"
  }

  /// `text` with spaces to `width` characters.
  static func pad(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }

  static func padLeft(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  /// Text from a file on one line: control characters escaped, cut at `limit`.
  static func oneLine(_ text: String, limit: Int) -> String {
    var result = ""
    var count = 0
    for scalar in text.unicodeScalars {
      if count == limit { return result + "…" }
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned:
        result += scalar.escaped(asASCII: true)
      default: result.unicodeScalars.append(scalar)
      }
      count += 1
    }
    return result
  }
}
