import Glibc
import Synchronization

/// A thread of this process, which whoever starts it waits for in the end: threads that a queue keeps for later would run
/// on in a library that was unloaded. Its stack is large enough for compilers of drivers, whatever the caller has, and
/// signals are blocked: they are for the program's own threads.
package struct Thread: Sendable {
  private let handle: pthread_t

  private final class Body {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
  }

  private static let stackBytes = 16 << 20

  /// - Throws: one line when the system has no room for it.
  package init(_ run: @escaping () -> Void) throws {
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
      throw VulkanError(
        kind: .outOfHostMemory,
        description:
          "no thread can be started: \(String(cString: strerror(code))); end some, or raise the limit")
    }
    handle = thread
  }

  /// Waits for its end: once for each thread.
  package func join() { pthread_join(handle, nil) }

  package var isCurrent: Bool { pthread_equal(handle, pthread_self()) != 0 }

  /// Runs `body` on a thread of its own and waits for it.
  package static func run<Result>(_ body: () throws -> Result) throws -> Result {
    var result: Swift.Result<Result, any Error>?
    try withoutActuallyEscaping(body) { body in
      try Thread { result = Swift.Result(catching: body) }.join()
    }
    guard let result else {
      throw VulkanError(kind: .outOfHostMemory, description: "a thread gave no result")
    }
    return try result.get()
  }

  /// Runs `body` for each number below `count`, several at a time, on as many threads as there are cores; the caller is
  /// one of them.
  package static func concurrently(_ count: Int, _ body: @Sendable (Int) -> Void) {
    let next = Atomic(0)
    let work = {
      while true {
        let number = next.add(1, ordering: .relaxed).oldValue
        guard number < count else { return }
        body(number)
      }
    }
    withoutActuallyEscaping(work) { work in
      let others = min(count, sysconf(Int32(_SC_NPROCESSORS_ONLN))) - 1
      // With fewer threads it takes longer, nothing else.
      let threads = (0..<max(0, others)).compactMap { _ in try? Thread(work) }
      work()
      for thread in threads { thread.join() }
    }
  }
}
