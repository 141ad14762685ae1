/// How long steps take, as measured: from it follows how much of prompts may enter beside running texts.
///
/// A step is modelled as what its texts take, known from steps that have nothing else, and so much for each token of a
/// prompt. Medians of the last steps, since the first step of a shape compiles or records what later ones replay.
struct StepPace: Sendable {
  /// A step with text may take so many times what it takes without prompts. Whoever waits for a token is to see less
  /// than three times the usual gap, with a margin for what the model does not know.
  static let mostStretch = 2.5
  /// Prompts always go on by so many tokens: fewer cost a device about as much.
  static let leastTokens = 16
  private static let remembered = 15
  /// Medians of fewer are chance.
  private static let needed = 5

  /// Seconds of the last steps of nothing but texts.
  private var textSeconds = Recent()
  /// Seconds that each token of a prompt added to the last steps that had some.
  private var promptTokenSeconds = Recent()

  private struct Recent: Sendable {
    var values: [Double] = []
    var oldest = 0

    mutating func add(_ value: Double) {
      if values.count < StepPace.remembered {
        values.append(value)
      } else {
        values[oldest] = value
        oldest = (oldest + 1) % StepPace.remembered
      }
    }

    var median: Double? {
      values.count < StepPace.needed ? nil : values.sorted()[values.count / 2]
    }
  }

  /// A step with so many single tokens of texts, and tokens of prompts, took so long.
  mutating func note(texts: Int, promptTokens: Int, seconds: Double) {
    if promptTokens == 0 {
      textSeconds.add(seconds)
    } else if texts == 0 {
      promptTokenSeconds.add(seconds / Double(promptTokens))
    } else if let text = textSeconds.median {
      promptTokenSeconds.add(max(0, seconds - text) / Double(promptTokens))
    }
  }

  /// Tokens of prompts that a step with texts may have; nil before enough is measured.
  var promptTokensBesideText: Int? {
    guard let text = textSeconds.median, let each = promptTokenSeconds.median else { return nil }
    guard each > 0 else { return Int.max }
    let count = text * (Self.mostStretch - 1) / each
    return max(Self.leastTokens, Int(min(count, 1e9)))
  }
}
