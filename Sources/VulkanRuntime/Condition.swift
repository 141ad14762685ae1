import Glibc

/// Something that threads wait for.
package final class Condition: @unchecked Sendable {
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  package init() {
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(condition)
    condition.deallocate()
  }

  /// Waits with `lock` held; false when the time is over.
  package func wait(_ lock: Lock, until deadline: Deadline = .never) -> Bool {
    switch deadline {
    case .never: return pthread_cond_wait(condition, lock.mutex) == 0
    case .at(var time): return pthread_cond_timedwait(condition, lock.mutex, &time) == 0
    }
  }

  package func signal() { pthread_cond_signal(condition) }
  package func broadcast() { pthread_cond_broadcast(condition) }
}

/// When to stop waiting.
package enum Deadline {
  case never
  case at(timespec)

  /// - Parameter milliseconds: from now; negative for never.
  package init(milliseconds: Int32) {
    guard milliseconds >= 0 else {
      self = .never
      return
    }
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    let nanoseconds = time.tv_nsec + Int(milliseconds % 1000) * 1_000_000
    time.tv_sec += Int(milliseconds / 1000) + nanoseconds / 1_000_000_000
    time.tv_nsec = nanoseconds % 1_000_000_000
    self = .at(time)
  }
}
