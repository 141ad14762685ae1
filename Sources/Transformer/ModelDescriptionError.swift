/// Why a model cannot be run: one line that names the metadata key or tensor, what is wrong, and what to do.
package struct ModelDescriptionError: Error, CustomStringConvertible, Sendable, Hashable {
  package let description: String

  init(_ description: String) {
    self.description = description
  }
}

/// `text` from a file, fit for one line of a message: anything but printable ASCII becomes "?", and a long text is cut.
func oneLine(_ text: String) -> String {
  var result = ""
  for scalar in text.unicodeScalars.prefix(64) {
    result.unicodeScalars.append((" "..."~").contains(scalar) ? scalar : "?")
  }
  return result
}
