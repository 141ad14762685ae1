import Dispatch
import Glibc
import Synchronization
import VulkanRuntime

/// Reads units of weights from a model's files into pinned memory, in the order asked for, on a thread of its own with
/// many reads under way, also of several units; a semaphore tells the device which are there.
///
/// Copies that wait for a read must not wait forever: one that fails counts as done, and `failure` says which it was.
/// What follows is not read until `recover`.
final class WeightFileReader: Sendable {
  /// Pinned memory, each slot as large as the largest unit.
  let slots: [Buffer]
  /// Counts reads.
  let done: TimelineSemaphore
  /// How files are read, in a few words.
  let method: String
  /// Bytes a second that the files gave when they were tried; 0 if they were not.
  let rate: Double
  private let state = Mutex(State())
  private let wake = DispatchSemaphore(value: 0)
  private let thread = Mutex<pthread_t?>(nil)

  fileprivate struct Request: Sendable {
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
  }

  init(device: Device, paths: [String], slotBytes: Int, slotCount: Int, options: ReadOptions) throws {
    var files: [WeightFile] = []
    do {
      for path in paths { files.append(try WeightFile(path: path, usesDirect: options.usesDirect)) }
      slots = try (0..<slotCount).map {
        try Self.pinned(device, byteCount: slotBytes, label: "weights read \($0)")
      }
      done = try device.makeSemaphore()
      var worker = try ReadWorker(files: files, slots: slots, options: options)
      rate = try worker.measure()
      method = worker.method
      // The thread holds the reader until `end`.
      let held = Unmanaged.passRetained(Start(reader: self, worker: worker))
      var handle = pthread_t()
      let result = pthread_create(
        &handle, nil,
        { argument in
          if let argument {
            let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
            start.reader.run(start.worker)
          }
          return nil
        }, held.toOpaque())
      guard result == 0 else {
        held.release()
        throw WeightReadError(
          description: "no thread to read weights with: \(String(cString: strerror(result)))")
      }
      let started = handle
      thread.withLock { $0 = started }
    } catch {
      for file in files { file.close() }
      throw error
    }
  }

  private final class Start {
    let reader: WeightFileReader
    let worker: ReadWorker

    init(reader: WeightFileReader, worker: ReadWorker) {
      self.reader = reader
      self.worker = worker
    }
  }

  /// Memory that the device copies from and files are read into. Where the device can import memory it is the process's
  /// own, which the system can read into directly; what a driver maps often is not.
  private static func pinned(_ device: Device, byteCount: Int, label: String) throws -> Buffer {
    if let alignment = device.capabilities.externalMemoryHostAlignment,
      let memory = try? HostMemory(byteCount: byteCount, alignment: Int(clamping: alignment)),
      let buffer = try? device.makeBuffer(importing: memory, label: label)
    {
      return buffer
    }
    return try device.makeBuffer(byteCount: byteCount, memory: .upload, label: label)
  }

  /// Ends the thread, once it has served what it was asked for; when that is so, it holds nothing any more.
  func end() {
    let ending = thread.withLock { thread in
      defer { thread = nil }
      return thread
    }
    guard let ending else { return }
    state.withLock { $0.isEnding = true }
    wake.signal()
    pthread_join(ending, nil)
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

  /// Bytes read so far.
  var readBytes: Int { state.withLock { $0.bytes } }

  // MARK: - The thread

  private func run(_ start: ReadWorker) {
    var worker = start
    // The next unit, while its slot is not free.
    var next: Request?
    var isEnding = false
    defer { worker.close() }
    while true {
      if next == nil {
        if isEnding {
          if worker.isIdle { return }
        } else if worker.isIdle {
          wake.wait()
          (next, isEnding) = takeRequest()
        } else if wake.wait(timeout: .now()) == .success {
          (next, isEnding) = takeRequest()
        }
      }
      if let request = next, isFree(request, waits: worker.isIdle) {
        next = nil
        if state.withLock({ $0.failure == nil }) {
          worker.start(number: request.number, extents: request.extents)
        } else {
          worker.skip(number: request.number)
        }
      }
      guard !worker.isIdle else { continue }
      let outcomes = worker.advance()
      state.withLock { state in
        for outcome in outcomes {
          state.bytes += outcome.bytes
          if let error = outcome.error { state.failure = state.failure ?? (outcome.number, error) }
        }
      }
      for outcome in outcomes { try? done.signal(outcome.number) }
    }
  }

  /// The oldest request; without one, whether the thread is to end.
  private func takeRequest() -> (request: Request?, isEnding: Bool) {
    state.withLock { state in
      state.requests.isEmpty ? (nil, state.isEnding) : (state.requests.removeFirst(), false)
    }
  }

  /// Whether a unit's slot can be read into; with `waits`, once it can.
  private func isFree(_ request: Request, waits: Bool) -> Bool {
    let (semaphore, value) = request.free
    guard value > 0 else { return true }
    // An error is a lost device, of which whoever waits for it hears.
    guard waits else { return ((try? semaphore.value) ?? .max) >= value }
    return (try? semaphore.wait(for: value)) ?? true
  }
}
