import Synchronization

/// Makes allocations of memory fail as on a device that is full, where a test wants them to, and counts what buffers hold
/// however long their device lives.
package final class AllocationFaults: Sendable {
  private struct State: Sendable {
    var attempts = 0
    var local = 0
    var host = 0
    var failing: Set<Int> = []
  }

  private let state = Mutex(State())

  /// Allocations fail whose numbers, from 0 on, are among `failing`.
  package init(failing: Set<Int> = []) { state.withLock { $0.failing = failing } }

  /// Allocations so far, those among them that failed.
  package var attempts: Int { state.withLock(\.attempts) }

  /// Bytes that buffers hold now of the device's memory and of the host's.
  package var held: (device: Int, host: Int) { state.withLock { ($0.local, $0.host) } }

  /// Whether the allocation that comes now fails.
  func next() -> Bool {
    state.withLock { state in
      defer { state.attempts += 1 }
      return state.failing.contains(state.attempts)
    }
  }

  func count(local: Int, host: Int) {
    state.withLock { state in
      state.local += local
      state.host += host
    }
  }
}
