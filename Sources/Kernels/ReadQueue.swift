import CReadRing
import Glibc
import VulkanRuntime

/// How files are read while a model runs; all but the defaults is for tests.
package struct ReadOptions: Sendable {
  /// Whether io_uring is used where the system allows it.
  package var usesRing = true
  /// Whether the page cache is passed by where the file system can.
  package var usesDirect = true
  /// Asked for each read that is done, with the bytes that it gave: what it gives instead, a negative error number or a
  /// number of bytes, or nil.
  package var fault: (@Sendable (_ result: Int) -> Int?)?

  package init() {}
}

/// Reads from files into memory, many under way at a time for one thread: by io_uring, or where the system forbids or
/// lacks it by threads that wait for one read each. One thread at a time uses it.
final class ReadQueue: @unchecked Sendable {
  enum Method: String, Sendable {
    case ring = "io_uring"
    case threads = "threads"
  }

  struct Read {
    var file: Int32
    var offset: UInt64
    var byteCount: Int
    var target: UnsafeMutableRawPointer
  }

  /// Reads that may be under way.
  let depth: Int
  let method: Method
  private(set) var underWay = 0
  private let buffers: [UnsafeMutableRawBufferPointer]
  private let isRegistered: Bool
  private let ring: OpaquePointer?
  private let readers = Readers()

  private static let ringDepth = 64
  private static let threadCount = 16

  /// - Parameter buffers: memory that reads go into.
  init(buffers: [UnsafeMutableRawBufferPointer], usesRing: Bool) {
    var opened: OpaquePointer?
    self.buffers = buffers
    if usesRing, read_ring_open(UInt32(Self.ringDepth), &opened) == 0, let opened {
      ring = opened
      let bases = buffers.map { $0.baseAddress }
      let sizes = buffers.map { $0.count }
      // There may be a limit on such memory; it is only faster.
      isRegistered = read_ring_register(opened, bases, sizes, UInt32(buffers.count)) == 0
      method = .ring
      depth = Self.ringDepth
    } else {
      ring = nil
      isRegistered = false
      method = .threads
      depth = Self.threadCount
    }
  }

  /// No read may be under way.
  deinit {
    if let ring { read_ring_close(ring) }
    readers.end()
  }

  /// Starts a read; no more than `depth` may be under way.
  func add(_ read: Read, tag: Int) {
    precondition(underWay < depth)
    underWay += 1
    if let ring {
      let buffer =
        isRegistered
        ? buffers.firstIndex { buffer in
          guard let base = buffer.baseAddress else { return false }
          return read.target >= base && read.target + read.byteCount <= base + buffer.count
        } : nil
      read_ring_add(
        ring, read.file, read.target, UInt32(read.byteCount), read.offset, Int32(buffer ?? -1), UInt64(tag))
      return
    }
    readers.add(read, tag: tag, threads: underWay)
  }

  /// Waits until a read is done, if any is under way, and returns all that are: the bytes of each, or a negative error
  /// number.
  func wait() throws -> [(tag: Int, result: Int)] {
    guard underWay > 0 else { return [] }
    var done: [(tag: Int, result: Int)] = []
    if let ring {
      let error = read_ring_wait(ring)
      guard error == 0 else {
        throw WeightReadError(description: "io_uring failed: \(String(cString: strerror(error)))")
      }
      var (tag, result) = (UInt64(0), Int32(0))
      while read_ring_take(ring, &tag, &result) { done.append((Int(tag), Int(result))) }
    } else {
      done = readers.wait()
    }
    underWay -= done.count
    return done
  }
}

/// Threads that wait for one read each.
private final class Readers: @unchecked Sendable {
  private let lock = Lock()
  private let work = Condition()
  private let arrival = Condition()

  // Under the lock.
  private var waiting: [(read: ReadQueue.Read, tag: Int)] = []
  private var results: [(tag: Int, result: Int)] = []
  private var isEnding = false

  private var threads: [Thread] = []

  /// - Parameter threads: how many there should be by now.
  func add(_ read: ReadQueue.Read, tag: Int, threads count: Int) {
    lock.withLock {
      waiting.append((read, tag))
      work.signal()
    }
    if threads.count < count, let thread = try? Thread({ [self] in run() }) { threads.append(thread) }
    // Without any it is read here.
    if threads.isEmpty { run(waits: false) }
  }

  /// Waits for a result, and gives all that there are.
  func wait() -> [(tag: Int, result: Int)] {
    lock.withLock {
      while results.isEmpty { _ = arrival.wait(lock) }
      defer { results = [] }
      return results
    }
  }

  /// Ends the threads.
  func end() {
    lock.withLock {
      isEnding = true
      work.broadcast()
    }
    for thread in threads { thread.join() }
  }

  private func run(waits: Bool = true) {
    while let next = next(waits: waits) {
      let (read, tag) = next
      let count = pread(read.file, read.target, read.byteCount, off_t(read.offset))
      let result = count < 0 ? -Int(errno) : count
      lock.withLock {
        results.append((tag, result))
        arrival.signal()
      }
    }
  }

  private func next(waits: Bool) -> (read: ReadQueue.Read, tag: Int)? {
    lock.withLock {
      while waiting.isEmpty, waits, !isEnding { _ = work.wait(lock) }
      return waiting.isEmpty ? nil : waiting.removeFirst()
    }
  }
}
