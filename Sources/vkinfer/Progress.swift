/// A bar on the terminal's last line, while something takes its time; nothing where standard error is no terminal.
final class Progress {
  private let isShown: Bool
  private var lastDrawn: ContinuousClock.Instant?
  private var lastLabel = ""
  private var isOnScreen = false

  /// - Parameter isWanted: whether to draw at all, given a terminal.
  init(isWanted: Bool = true) {
    isShown = isWanted && Output.errorIsTerminal
  }

  /// Draws what goes on where nobody knows how much is to come; a few times a second at most.
  func draw(_ label: String, detail: @autoclosure () -> String) {
    guard isShown else { return }
    let now = ContinuousClock.now
    if label == lastLabel, let lastDrawn, now - lastDrawn < .milliseconds(80) { return }
    lastDrawn = now
    lastLabel = label
    Output.show("\r\(label)  \(detail())\u{1B}[K")
    isOnScreen = true
  }

  /// Draws `done` of `total`; a few times a second at most, but always at the start and the end.
  ///
  /// - Parameter detail: what stands behind the bar.
  func draw(_ label: String, done: Int, total: Int, detail: @autoclosure () -> String) {
    guard isShown, total > 0 else { return }
    let now = ContinuousClock.now
    if let lastDrawn, done < total, now - lastDrawn < .milliseconds(80) { return }
    lastDrawn = now
    lastLabel = label
    let width = 30
    let fraction = min(max(Double(done) / Double(total), 0), 1)
    let filled = Int(fraction * Double(width))
    let bar = String(repeating: "=", count: filled) + String(repeating: " ", count: width - filled)
    let percent = String(Int(fraction * 100))
    let padding = String(repeating: " ", count: 3 - percent.count)
    Output.show("\r\(label) [\(bar)] \(padding)\(percent) %  \(detail())\u{1B}[K")
    isOnScreen = true
  }

  /// Takes the bar away.
  func clear() {
    guard isOnScreen else { return }
    Output.show("\r\u{1B}[K")
    isOnScreen = false
  }
}
