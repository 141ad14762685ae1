import Glibc

/// A mutex of the system: unlike the standard library's, threads can wait on a condition with it, and the thread
/// sanitizer sees it.
package final class Lock: @unchecked Sendable {
  package let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)

  package init() { pthread_mutex_init(mutex, nil) }

  deinit {
    pthread_mutex_destroy(mutex)
    mutex.deallocate()
  }

  package func withLock<Result>(_ body: () throws -> Result) rethrows -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body()
  }
}

/// A value that one thread at a time gets at.
package final class Guarded<Value: ~Copyable>: @unchecked Sendable {
  private let lock = Lock()
  private var value: Value

  package init(_ value: consuming Value) { self.value = value }

  package func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
    try lock.withLock { try body(&value) }
  }
}
