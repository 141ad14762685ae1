import ArgumentParser

/// Some of a few choices, by name: "naive,sbi".
struct ChoiceList<Choice: RawRepresentable<String> & Sendable>: ExpressibleByArgument, Sendable {
  var values: [Choice] = []

  init(_ values: [Choice]) {
    self.values = values
  }

  var defaultValueDescription: String { values.map(\.rawValue).joined(separator: ",") }

  init?(argument: String) {
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      guard let value = Choice(rawValue: String(part)) else { return nil }
      values.append(value)
    }
  }
}
