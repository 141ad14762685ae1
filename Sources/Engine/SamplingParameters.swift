import CShaderInterface

/// How tokens are chosen. Filters apply in this order: penalties, temperature, top-k, top-p, min-p.
public struct SamplingParameters: Sendable, Hashable {
  /// Divides the logits; 0 always takes the best token.
  public var temperature: Float = 0
  /// Only this many best tokens are kept; 0 keeps all.
  public var topK: Int = 0
  /// Only the best tokens that together have this probability are kept; 1 keeps all.
  public var topP: Float = 1
  /// Only tokens at least this fraction as probable as the best are kept; 0 keeps all.
  public var minP: Float = 0
  /// Logits of tokens in the prompt or the text so far are divided by this if positive, else multiplied.
  public var repeatPenalty: Float = 1
  /// Subtracted from the logits of tokens generated before.
  public var presencePenalty: Float = 0
  /// Subtracted for each time that the token was generated before.
  public var frequencyPenalty: Float = 0
  /// With the position, determines every random number.
  public var seed: UInt64 = 0

  public init() {}

  var hasPenalties: Bool { repeatPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0 }

  /// Throws one line that names the first value out of its range.
  public func validate() throws {
    func check(_ name: String, _ value: Float, _ range: ClosedRange<Float>) throws {
      guard range.contains(value) else {
        throw EngineError(
          .option, "\(name) \(value) is out of range: use \(range.lowerBound) to \(range.upperBound)")
      }
    }
    try check("temperature", temperature, 0...100)
    try check("top-p", topP, 0...1)
    try check("min-p", minP, 0...1)
    try check("repeat penalty", repeatPenalty, 0.01...100)
    try check("presence penalty", presencePenalty, -100...100)
    try check("frequency penalty", frequencyPenalty, -100...100)
    guard topK >= 0 else { throw EngineError(.option, "top-k \(topK) is negative: use 0 to keep all tokens") }
  }

  /// What the sampling kernel reads for the token that will stand at `position`.
  func device(sequence: Int, position: Int, target: Int32 = 0) -> SampleParameters {
    SampleParameters(
      temperature: temperature, top_p: topP, min_p: minP, repeat_penalty: repeatPenalty,
      presence_penalty: presencePenalty, frequency_penalty: frequencyPenalty,
      top_k: UInt32(clamping: topK), sequence: UInt32(sequence), seed_low: UInt32(truncatingIfNeeded: seed),
      seed_high: UInt32(truncatingIfNeeded: seed >> 32), position: UInt32(position),
      target: UInt32(bitPattern: target))
  }
}
