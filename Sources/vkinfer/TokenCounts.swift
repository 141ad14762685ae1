import Engine
import Synchronization

/// Counts the tokens of requests, and notes when all of them have one.
final class TokenCounts: Sendable {
  private struct State {
    var counts: [Int]
    var start: (time: ContinuousClock.Instant, tokens: Int)?
    var failures: [any Error] = []
  }
  private let state: Mutex<State>

  init(_ requests: Int) {
    state = Mutex(State(counts: Array(repeating: 0, count: requests)))
  }

  func take(_ event: GenerationEvent, index: Int) {
    state.withLock { state in
      switch event {
      case .token:
        state.counts[index] += 1
        if state.start == nil, state.counts.allSatisfy({ $0 > 0 }) {
          state.start = (.now, state.counts.reduce(0, +))
        }
      case .failed(let error): state.failures.append(error)
      case .prompt, .finished: break
      }
    }
  }

  var failure: (any Error)? { state.withLock { $0.failures.last } }
  var failureCount: Int { state.withLock { $0.failures.count } }

  /// The time at which each had a token, and how many there were then.
  var whenAllHadStarted: (ContinuousClock.Instant, Int) {
    state.withLock { $0.start ?? (.now, 0) }
  }
}
