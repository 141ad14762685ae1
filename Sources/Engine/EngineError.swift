/// What the engine cannot do, in one line: what, where, what to do about it.
public struct EngineError: Error, CustomStringConvertible, Sendable {
  public enum Kind: Sendable, Hashable {
    /// The prompt has no tokens, or more than the context holds.
    case prompt
    /// An option out of its range.
    case option
    /// The model cannot do what was asked.
    case model
    /// The device gave no answer.
    case device
  }

  public let kind: Kind
  public let description: String

  init(_ kind: Kind, _ description: String) {
    self.kind = kind
    self.description = description
  }
}
