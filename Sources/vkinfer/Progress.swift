import Dispatch
import Synchronization

/// A bar on the terminal's last line, while something takes its time; nothing where standard error is no terminal.
final class Progress: Sendable {
  private let isShown: Bool
  private let state = Mutex(State())

  private struct State {
    var lastDrawn: ContinuousClock.Instant?
    var lastLabel = ""
    var isOnScreen = false
  }

  /// - Parameter isWanted: whether to draw at all, given a terminal.
  init(isWanted: Bool = true) {
    isShown = isWanted && Output.errorIsTerminal
  }

  /// Draws what goes on where nobody knows how much is to come; a few times a second at most.
  func draw(_ label: String, detail: @autoclosure () -> String) {
    guard isShown else { return }
    state.withLock { state in
      let now = ContinuousClock.now
      if label == state.lastLabel, let last = state.lastDrawn, now - last < .milliseconds(80) { return }
      state = State(lastDrawn: now, lastLabel: label, isOnScreen: true)
      Output.show("\r\(label)  \(detail())\u{1B}[K")
    }
  }

  /// Draws `done` of `total`; a few times a second at most, but always at the start and the end.
  ///
  /// - Parameter detail: what stands behind the bar.
  func draw(_ label: String, done: Int, total: Int, detail: @autoclosure () -> String) {
    guard isShown, total > 0 else { return }
    state.withLock { state in
      let now = ContinuousClock.now
      if let last = state.lastDrawn, done < total, now - last < .milliseconds(80) { return }
      state = State(lastDrawn: now, lastLabel: label, isOnScreen: true)
      let width = 30
      let fraction = min(max(Double(done) / Double(total), 0), 1)
      let filled = Int(fraction * Double(width))
      let bar = String(repeating: "=", count: filled) + String(repeating: " ", count: width - filled)
      let percent = String(Int(fraction * 100))
      let padding = String(repeating: " ", count: 3 - percent.count)
      Output.show("\r\(label) [\(bar)] \(padding)\(percent) %  \(detail())\u{1B}[K")
    }
  }

  /// Takes the bar away.
  func clear() {
    state.withLock { state in
      guard state.isOnScreen else { return }
      Output.show("\r\u{1B}[K")
      state.isOnScreen = false
    }
  }
}

/// Calls something four times a second on a thread of its own, until it is stopped.
final class Ticker {
  private let timer: any DispatchSourceTimer
  private let queue = DispatchQueue(label: "ticker")

  init(_ body: @escaping @Sendable () -> Void) {
    timer = DispatchSource.makeTimerSource(queue: queue)
    timer.schedule(deadline: .now() + .milliseconds(250), repeating: .milliseconds(250))
    timer.setEventHandler(handler: body)
    timer.activate()
  }

  /// Nothing is called any more when this returns.
  func stop() {
    timer.cancel()
    queue.sync {}
  }
}
