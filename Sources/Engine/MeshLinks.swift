import Kernels
import Synchronization
import Transformer
import VulkanRuntime

/// How a device of a mesh learns how far another is: each has a timeline semaphore of its own that follows the other's,
/// moved by a host thread for each device that is followed. Where devices wait by counts in shared memory (`MeshPath`),
/// there are neither threads nor semaphores, and this only ends waits; where devices can share semaphores, no threads.
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
    /// What shared semaphores were set to, to end all waits.
    var targets: [UInt64] = []
  }

  private let mirrors: [Follower: TimelineSemaphore]
  private let state: Mutex<State>
  private let threads = Mutex<[Thread]>([])
  private let board: MeshBoard?
  /// Each device's count again, where others wait for that very semaphore.
  private let shared: [TimelineSemaphore]

  /// - Parameters:
  ///   - sources: each device's own count.
  ///   - devices: the devices, which make the semaphores that follow them.
  ///   - followers: none where devices wait by counts in shared memory.
  ///   - board: those counts.
  init(
    path: MeshPath, sources: [TimelineSemaphore], devices: [Device], followers: Set<Follower>,
    board: MeshBoard?
  ) throws {
    self.board = path == .flags ? board : nil
    if path == .semaphores {
      guard devices.allSatisfy({ $0.canShareSemaphores(with: devices[0]) }) else {
        throw EngineError(.device, "the devices are not one, or its driver does not share semaphores")
      }
      shared = try devices.map { try $0.makeSemaphore(sharedWith: devices) }
    } else {
      shared = []
    }
    let shared = self.shared
    var mirrors: [Follower: TimelineSemaphore] = [:]
    for follower in followers where path != .flags {
      let device = devices[follower.observer]
      mirrors[follower] =
        path == .semaphores
        ? try device.makeSemaphore(sharing: shared[follower.source]) : try device.makeSemaphore()
    }
    self.mirrors = mirrors
    state = Mutex(State(values: sources.map { _ in 0 }))
    for (index, source) in sources.enumerated()
    where path == .threads && followers.contains(where: { $0.source == index }) {
      do {
        let thread = try Thread { [self] in follow(source, index: index) }
        threads.withLock { $0.append(thread) }
      } catch {
        stop()
        throw error
      }
    }
  }

  /// The semaphore of `observer` that follows the count of `source`.
  func semaphore(of source: Int, on observer: Int) -> TimelineSemaphore? {
    mirrors[Follower(source: source, observer: observer)]
  }

  /// What a device signals beside its own count, with the same values.
  func signals(of device: Int, _ value: UInt64) -> [(TimelineSemaphore, UInt64)] {
    shared.isEmpty ? [] : [(shared[device], value)]
  }

  /// Ends waits once more: a device that had yet to signal a shared semaphore has set it back.
  func releaseAgain() {
    state.withLock { state in
      guard state.failure != nil || state.isStopped else { return }
      for (semaphore, target) in zip(shared, state.targets) {
        if let value = try? semaphore.value, value < target { try? semaphore.signal(target) }
      }
    }
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
    let ending = threads.withLock { threads in
      defer { threads = [] }
      return threads
    }
    for thread in ending { thread.join() }
  }

  private func release(_ state: inout State) {
    board?.abandon()
    for index in state.values.indices { state.values[index] += 1 << 30 }
    for semaphore in shared where state.targets.count < shared.count {
      let target = ((try? semaphore.value) ?? 0) + 1 << 30
      state.targets.append(target)
      try? semaphore.signal(target)
    }
    for (follower, mirror) in mirrors where shared.isEmpty {
      try? mirror.signal(state.values[follower.source])
    }
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
