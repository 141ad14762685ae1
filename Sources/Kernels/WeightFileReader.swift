import Dispatch
import Glibc
import ModelFiles
import Synchronization
import VulkanRuntime

/// Why weights could not be read while a model ran, in one line.
package struct WeightReadError: Error, CustomStringConvertible, Sendable {
  package let description: String
}

/// Reads units of weights from a model's files into pinned memory, in the order asked for, on a thread of its own with
/// many reads under way; a semaphore tells the device which are there.
///
/// Copies that wait for a read must not wait forever: one that fails counts as done, and `failure` says which it was.
/// What follows is not read until `recover`.
final class WeightFileReader: Sendable {
  /// Pinned memory, each slot as large as the largest unit.
  let slots: [Buffer]
  /// Counts reads.
  let done: TimelineSemaphore
  private let files: [File]
  private let state = Mutex(State())
  private let wake = DispatchSemaphore(value: 0)
  private let ended = DispatchSemaphore(value: 0)
  /// Called before each read of a piece; throws to make it fail: for tests.
  private let fault: (@Sendable () throws -> Void)?

  private struct Request: Sendable {
    var number: UInt64
    var extents: [StreamLayout.Extent]
    /// What must have been copied before the slot is free.
    var free: (semaphore: TimelineSemaphore, value: UInt64)
  }

  private struct State: Sendable {
    var requests: [Request] = []
    var isEnding = false
    var failure: (number: UInt64, error: any Error)?
    var bytes = 0
    var busySeconds = 0.0
  }

  /// An open file, and what it was when it was opened.
  fileprivate struct File: Sendable {
    var path: String
    var descriptor: Int32
    var size: Int
    var modified: timespec

    init(path: String) throws {
      self.path = path
      descriptor = open(path, O_RDONLY | O_CLOEXEC)
      guard descriptor >= 0 else {
        throw WeightReadError(description: "\(path): cannot be opened: \(String(cString: strerror(errno)))")
      }
      var status = stat()
      fstat(descriptor, &status)
      (size, modified) = (Int(status.st_size), status.st_mtim)
    }

    /// Throws if the file is no longer what it was.
    func check() throws {
      var status = stat()
      guard fstat(descriptor, &status) == 0 else {
        throw WeightReadError(description: "\(path): cannot be examined: \(String(cString: strerror(errno)))")
      }
      guard Int(status.st_size) == size, status.st_mtim.tv_sec == modified.tv_sec,
        status.st_mtim.tv_nsec == modified.tv_nsec
      else {
        throw WeightReadError(
          description:
            "\(path): the file was changed while its weights are read from it; load the model again")
      }
    }
  }

  private static let pieceBytes = 2 << 20
  private static let readers = 8

  init(
    device: Device, paths: [String], slotBytes: Int, slotCount: Int, fault: (@Sendable () throws -> Void)?
  ) throws {
    self.fault = fault
    files = try paths.map { try File(path: $0) }
    slots = try (0..<slotCount).map {
      try device.makeBuffer(byteCount: slotBytes, memory: .upload, label: "weights read \($0)")
    }
    done = try device.makeSemaphore()
    // The thread holds the reader until `end`.
    let held = Unmanaged.passRetained(self)
    var handle = pthread_t()
    let result = pthread_create(
      &handle, nil,
      { argument in
        if let argument { Unmanaged<WeightFileReader>.fromOpaque(argument).takeRetainedValue().run() }
        return nil
      }, held.toOpaque())
    guard result == 0 else {
      held.release()
      throw WeightReadError(
        description: "no thread to read weights with: \(String(cString: strerror(result)))")
    }
    pthread_detach(handle)
  }

  deinit {
    for file in files { close(file.descriptor) }
  }

  /// Ends the thread, once it has served what it was asked for.
  func end() {
    state.withLock { $0.isEnding = true }
    wake.signal()
    ended.wait()
  }

  /// Asks for the bytes of a unit: read `number`, into slot `number % slots.count` once that is free.
  func read(_ extents: [StreamLayout.Extent], number: UInt64, free: (TimelineSemaphore, UInt64)) {
    state.withLock { $0.requests.append(Request(number: number, extents: extents, free: free)) }
    wake.signal()
  }

  /// The first read that failed since `recover`, if it is among the first `count` reads.
  func failure(upTo count: UInt64) -> (any Error)? {
    state.withLock { state in state.failure.flatMap { $0.number <= count ? $0.error : nil } }
  }

  /// Forgets a failure, once nothing waits for reads any more.
  func recover() { state.withLock { $0.failure = nil } }

  /// Bytes read so far, and the seconds that took.
  var readings: (bytes: Int, seconds: Double) { state.withLock { ($0.bytes, $0.busySeconds) } }

  private func run() {
    defer { ended.signal() }
    while true {
      wake.wait()
      let (request, isEnding) = state.withLock { state in
        (state.requests.isEmpty ? nil : state.requests.removeFirst(), state.isEnding)
      }
      guard let request else {
        if isEnding { return }
        continue
      }
      do {
        if state.withLock({ $0.failure == nil && !$0.isEnding }) { try serve(request) }
      } catch {
        state.withLock { $0.failure = $0.failure ?? (request.number, error) }
      }
      try? done.signal(request.number)
      if isEnding { wake.signal() }
    }
  }

  private func serve(_ request: Request) throws {
    if request.free.value > 0 { _ = try request.free.semaphore.wait(for: request.free.value) }
    let start = ContinuousClock.now
    let slot = slots[Int(request.number % UInt64(slots.count))]
    guard let base = slot.contents else { throw WeightReadError(description: "pinned memory is not mapped") }
    for file in Set(request.extents.map(\.file)) { try files[file].check() }
    var pieces: [(file: Int, offset: UInt64, count: Int, place: Int)] = []
    for extent in request.extents {
      for run in 0..<extent.byteCount / max(extent.runBytes, 1) {
        let place = extent.place + run * extent.runBytes
        let offset = extent.offset + UInt64(run * extent.stride)
        for start in stride(from: 0, to: extent.runBytes, by: Self.pieceBytes) {
          pieces.append(
            (
              extent.file, offset + UInt64(start), min(Self.pieceBytes, extent.runBytes - start),
              place + start
            ))
        }
      }
    }
    let target = Target(base: base)
    let all = pieces
    let next = Atomic(0)
    let failed = Mutex<(any Error)?>(nil)
    DispatchQueue.concurrentPerform(iterations: min(Self.readers, all.count)) { _ in
      while true {
        let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
        guard index < all.count, failed.withLock({ $0 == nil }) else { return }
        do {
          try fault?()
          try files[all[index].file].read(all[index], to: target.base + all[index].place)
        } catch {
          failed.withLock { $0 = $0 ?? error }
        }
      }
    }
    if let error = failed.withLock({ $0 }) { throw error }
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    state.withLock {
      $0.bytes += all.reduce(0) { $0 + $1.count }
      $0.busySeconds += seconds
    }
  }

  private struct Target: @unchecked Sendable {
    var base: UnsafeMutableRawPointer
  }
}

extension WeightFileReader.File {
  fileprivate func read(
    _ piece: (file: Int, offset: UInt64, count: Int, place: Int), to target: UnsafeMutableRawPointer
  ) throws {
    var done = 0
    while done < piece.count {
      let count = pread(descriptor, target + done, piece.count - done, off_t(piece.offset) + off_t(done))
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else {
        throw WeightReadError(
          description: "\(path): cannot be read at byte \(Int(piece.offset) + done): "
            + "\(String(cString: strerror(errno))); check the disk")
      }
      guard count > 0 else {
        throw WeightReadError(
          description:
            "\(path): ends at byte \(Int(piece.offset) + done): the file was cut short while in use")
      }
      done += count
    }
  }
}
