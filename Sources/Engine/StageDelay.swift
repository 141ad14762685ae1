import Dispatch
import Glibc
import Synchronization
import VulkanRuntime

/// How much longer than its commands a step takes on a device: as long as such a device would read weights, or compute.
///
/// Measurements of schedules need stages that take a known time and do not contend for the cores of a CPU driver.
package struct StageDelay: Sendable, Hashable {
  /// Seconds that a step takes at least, as long as weights are read.
  package var fixed: Double
  /// Seconds for each token, which count where they are more.
  package var perToken: Double

  package init(fixed: Double, perToken: Double = 0) {
    self.fixed = fixed
    self.perToken = perToken
  }

  package func seconds(tokens: Int) -> Double { max(fixed, perToken * Double(tokens)) }
}

/// Holds the end of each step of a device back for a while, on a host thread that sleeps.
final class StagePad: Sendable {
  private struct State: Sendable {
    var waiting: [(number: UInt64, done: (TimelineSemaphore, UInt64), seconds: Double)] = []
    var count: UInt64 = 0
    /// What the steps were in fact held back.
    var seconds: [UInt64: Double] = [:]
    var isStopped = false
  }

  let delay: StageDelay
  private let worked: TimelineSemaphore
  private let state = Mutex(State())
  private let wake = DispatchSemaphore(value: 0)
  private let ended = DispatchSemaphore(value: 0)

  init(_ delay: StageDelay, device: Device) throws {
    self.delay = delay
    worked = try device.makeSemaphore()
    DispatchQueue(label: "stage delay", qos: .userInteractive).async { self.run() }
  }

  /// What the commands of the next step set in place of `done`, which is set when its time is over.
  func extend(_ done: (TimelineSemaphore, UInt64), tokens: Int) -> (TimelineSemaphore, UInt64) {
    let number = state.withLock { state in
      state.count += 1
      state.waiting.append((state.count, done, delay.seconds(tokens: tokens)))
      return state.count
    }
    wake.signal()
    return (worked, number)
  }

  /// Steps so far.
  var count: UInt64 { state.withLock(\.count) }

  /// What a step was held back, in seconds.
  func seconds(_ number: UInt64) -> Double { state.withLock { $0.seconds[number] ?? 0 } }

  /// Ends the thread; nothing may be in flight.
  func stop() {
    state.withLock { $0.isStopped = true }
    wake.signal()
    ended.wait()
  }

  private func run() {
    defer { ended.signal() }
    while true {
      wake.wait()
      guard let step = state.withLock({ $0.waiting.isEmpty ? nil : $0.waiting.removeFirst() }) else {
        if state.withLock(\.isStopped) { return }
        continue
      }
      // An error is a lost device's, whose waits end otherwise.
      guard (try? worked.wait(for: step.number)) == true else { return }
      let start = ContinuousClock.now
      usleep(UInt32(min(step.seconds, 4000) * 1e6))
      state.withLock { $0.seconds[step.number] = (ContinuousClock.now - start) / .seconds(1) }
      try? step.done.0.signal(step.done.1)
    }
  }
}
