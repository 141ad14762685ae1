import CVKInfer
import Engine
import Glibc

/// Something that threads wait for.
final class Condition: @unchecked Sendable {
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init() {
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
  func wait(_ lock: Lock, until deadline: Deadline = .never) -> Bool {
    switch deadline {
    case .never: return pthread_cond_wait(condition, lock.mutex) == 0
    case .at(var time): return pthread_cond_timedwait(condition, lock.mutex, &time) == 0
    }
  }

  func signal() { pthread_cond_signal(condition) }
  func broadcast() { pthread_cond_broadcast(condition) }
}

/// When to stop waiting.
enum Deadline {
  case never
  case at(timespec)

  /// - Parameter milliseconds: from now; negative for never.
  init(milliseconds: Int32) {
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

/// A thread of the library: with a stack that compilers of drivers are content with, whatever the caller has, and
/// without signals, which are for the program's own threads.
struct Thread {
  private let handle: pthread_t

  private final class Body {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
  }

  static let stackBytes = 16 << 20

  init(_ run: @escaping () -> Void) throws {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setstacksize(&attributes, Self.stackBytes)
    var all = sigset_t()
    var before = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    var thread = pthread_t()
    let body = Unmanaged.passRetained(Body(run))
    let code = pthread_create(
      &thread, &attributes,
      { context in
        if let context { Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run() }
        return nil
      }, body.toOpaque())
    guard code == 0 else {
      body.release()
      throw Failure(VKINFER_ERROR_MEMORY, "no thread can be started: \(String(cString: strerror(code)))")
    }
    handle = thread
  }

  func join() { pthread_join(handle, nil) }

  var isCurrent: Bool { pthread_equal(handle, pthread_self()) != 0 }

  /// Runs `body` on a thread of its own and waits for it.
  static func run<Result>(_ body: @escaping () throws -> Result) throws -> Result {
    var result: Swift.Result<Result, any Error>?
    try Thread { result = Swift.Result(catching: body) }.join()
    guard let result else { throw Failure(VKINFER_ERROR_INTERNAL, "a thread ended without a result") }
    return try result.get()
  }
}
