import Dispatch
import Kernels
import Synchronization
import VulkanRuntime

/// How a device of a mesh learns how far another is: each has a timeline semaphore of its own that follows the other's,
/// moved by a host thread for each device that is followed. Where devices wait by counts in shared memory (`MeshPath`),
/// there are neither threads nor semaphores, and this only ends waits.
///
/// When a device fails, all semaphores jump ahead, so that nobody waits any longer; the mesh must be made anew then.
final class MeshLinks: Sendable {
  /// Which devices follow which.
  struct Follower: Hashable {
    var source: Int
    var observer: Int
  }

  private struct State {
    var values: [UInt64]
    var failure: (any Error)?
    var isStopped = false
  }

  private let mirrors: [Follower: TimelineSemaphore]
  private let state: Mutex<State>
  private let threads = DispatchGroup()
  private let board: MeshBoard?

  /// - Parameters:
  ///   - sources: each device's own count.
  ///   - devices: the devices, which make the semaphores that follow them.
  ///   - followers: none where devices wait by counts in shared memory.
  ///   - board: those counts.
  init(
    sources: [TimelineSemaphore], devices: [Device], followers: Set<Follower>, board: MeshBoard? = nil
  ) throws {
    self.board = board
    var mirrors: [Follower: TimelineSemaphore] = [:]
    for follower in followers { mirrors[follower] = try devices[follower.observer].makeSemaphore() }
    self.mirrors = mirrors
    state = Mutex(State(values: sources.map { _ in 0 }))
    for (index, source) in sources.enumerated() where followers.contains(where: { $0.source == index }) {
      let queue = DispatchQueue(label: "device \(index)", qos: .userInteractive)
      queue.async(group: threads) { self.follow(source, index: index) }
    }
  }

  /// The semaphore of `observer` that follows the count of `source`.
  func semaphore(of source: Int, on observer: Int) -> TimelineSemaphore? {
    mirrors[Follower(source: source, observer: observer)]
  }

  /// Why a device failed, if one did.
  var failure: (any Error)? { state.withLock { $0.failure } }

  /// Ends all waits: a device failed.
  func fail(_ error: any Error) {
    state.withLock { state in
      guard state.failure == nil else { return }
      state.failure = error
      release(&state)
    }
  }

  /// Ends all waits and the threads.
  func stop() {
    state.withLock { state in
      state.isStopped = true
      release(&state)
    }
    threads.wait()
  }

  private func release(_ state: inout State) {
    board?.abandon()
    for index in state.values.indices { state.values[index] += 1 << 30 }
    for (follower, mirror) in mirrors { try? mirror.signal(state.values[follower.source]) }
  }

  private func follow(_ source: TimelineSemaphore, index: Int) {
    let own = mirrors.filter { $0.key.source == index }.map(\.value)
    var last: UInt64 = 0
    while state.withLock({ $0.failure == nil && !$0.isStopped }) {
      do {
        guard try source.wait(for: last + 1, timeoutNanoseconds: 50_000_000) else { continue }
        last = try source.value
        let value = last
        try state.withLock { state in
          guard value > state.values[index] else { return }
          state.values[index] = value
          for mirror in own { try mirror.signal(value) }
        }
      } catch {
        fail(error)
      }
    }
  }
}
