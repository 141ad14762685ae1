/// Why a model file cannot be read or written: one line that names the file, what is wrong, and what to do.
package struct ModelFileError: Error, CustomStringConvertible, Sendable {
  /// The file, as the user named it.
  package let path: String
  /// What is wrong with it and what to do, without the file's name.
  package let reason: String

  package init(path: String, reason: String) {
    self.path = path
    self.reason = reason
  }

  package var description: String { "\(printable(path, limit: 4096)): \(reason)" }
}

/// `text` fit for one line of a message: control characters escaped, and cut at `limit` characters.
///
/// Names inside a hostile file may hold line feeds, terminal escapes or megabytes.
func printable(_ text: String, limit: Int = 120) -> String {
  var result = ""
  var count = 0
  for scalar in text.unicodeScalars {
    if count == limit { return result + "…" }
    switch scalar.properties.generalCategory {
    case .control, .lineSeparator, .paragraphSeparator, .format: result += scalar.escaped(asASCII: true)
    default: result.unicodeScalars.append(scalar)
    }
    count += 1
  }
  return result
}
