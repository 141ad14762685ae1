import Kernels
import VulkanRuntime

/// One number that a check compares, or several in norm.
struct Comparison {
  /// What is compared, where a check has several; else empty.
  var part = ""
  var relativeError: Double
  var tolerance: Double

  /// - Parameters: `found` and `expected` have the same length; NaN in either gives an infinite error.
  init(_ part: String = "", found: [Double], expected: [Double], tolerance: Double) {
    self.part = part
    self.tolerance = tolerance
    var difference = 0.0
    var size = 0.0
    for (found, expected) in zip(found, expected) {
      difference += (found - expected) * (found - expected)
      size += expected * expected
    }
    let error = size > 0 ? (difference / size).squareRoot() : difference == 0 ? 0 : .infinity
    relativeError = found.count == expected.count && error.isFinite ? error : .infinity
  }

  /// A number that must not be above `tolerance`.
  init(_ part: String, value: Double, tolerance: Double) {
    self.part = part
    relativeError = value.isFinite ? value : .infinity
    self.tolerance = tolerance
  }
}

/// Runs checks on a device: copies a memory image there, runs what is recorded, copies it back, compares.
final class TestBench {
  let device: Device
  let cache: KernelCache
  var traits: DeviceTraits { cache.traits }
  let seed: UInt64
  private(set) var checkCount = 0
  private(set) var failures: [SelfTestResult] = []

  private let filter: String?
  private let share: Share
  private let isCancelled: @Sendable () -> Bool
  private let onResult: (SelfTestResult) -> Void
  private let memory: Buffer
  private let upload: Buffer
  private let download: Buffer
  private let commands: CommandBuffer
  private let done: TimelineSemaphore
  private var submissions: UInt64 = 0
  private let timestamps: TimestampPool?

  /// Bytes of the largest image.
  private static let capacity = 48 << 20

  /// One of several that share out the checks by their names.
  struct Share {
    var index = 0
    var count = 1

    func has(_ name: String) -> Bool {
      // The same in every run.
      var random = SeededRandom(seed: 0, name: name)
      return random.next() % UInt64(count) == UInt64(index)
    }
  }

  init(
    device: Device, filter: String?, share: Share = Share(), seed: UInt64,
    isCancelled: @escaping @Sendable () -> Bool = { false },
    onResult: @escaping (SelfTestResult) -> Void
  ) throws {
    self.device = device
    self.filter = filter
    self.share = share
    self.seed = seed
    self.isCancelled = isCancelled
    self.onResult = onResult
    cache = KernelCache(device: device)
    memory = try device.makeBuffer(byteCount: Self.capacity, memory: .device, label: "self-test image")
    upload = try device.makeBuffer(byteCount: Self.capacity, memory: .upload, label: "self-test upload")
    download = try device.makeBuffer(byteCount: Self.capacity, memory: .download, label: "self-test download")
    commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: true)
    done = try device.makeSemaphore()
    timestamps = device.capabilities.timestampBits > 0 ? try device.makeTimestampPool(count: 2) : nil
  }

  /// Whether a check of this name, or one whose name starts with it, was asked for, and is this one's to do.
  func wants(_ name: String) -> Bool { matches(name) && share.has(name) }

  /// Whether a check of this name, or one whose name starts with it, was asked for.
  func matches(_ name: String) -> Bool {
    if isCancelled() { return false }
    guard let filter else { return true }
    return name.contains(filter) || filter.hasPrefix(name)
  }

  /// Random numbers for the check of this name.
  func random(_ name: String) -> SeededRandom { SeededRandom(seed: seed, name: name) }

  func newImage() -> MemoryImage { MemoryImage(base: memory.address) }

  /// Runs `record` on `image` twice and reports what `compare` makes of the first outcome.
  func check(
    _ name: String, image: MemoryImage, record: (CommandBuffer) throws -> Void,
    compare: (inout Outcome) throws -> [Comparison]
  ) throws {
    try report(name) {
      let (first, microseconds) = try execute(image, record: record)
      let (second, _) = try execute(image, record: record)
      var outcome = Outcome(before: image, after: first, microseconds: microseconds)
      let comparisons = try compare(&outcome)
      let stray = outcome.strayWrites
      var details: [String] = []
      if stray > 0 { details.append("\(stray) words were written that should not be") }
      if first != second { details.append("the same dispatch gave other bits the second time") }
      return (comparisons, microseconds, details.joined(separator: "; "))
    }
  }

  /// Reports what `body` returns: comparisons, microseconds, and what else is wrong (empty: nothing).
  func report(_ name: String, _ body: () throws -> ([Comparison], Double, String)) throws {
    do {
      let (comparisons, microseconds, detail) = try body()
      for comparison in comparisons {
        emit(
          SelfTestResult(
            name: comparison.part.isEmpty ? name : "\(name), \(comparison.part)",
            relativeError: comparison.relativeError, tolerance: comparison.tolerance,
            passed: comparison.relativeError <= comparison.tolerance && detail.isEmpty,
            microseconds: microseconds, detail: detail))
      }
    } catch let error as VulkanError where error.kind == .deviceLost {
      throw error
    } catch {
      emit(
        SelfTestResult(
          name: name, relativeError: .infinity, tolerance: 0, passed: false, microseconds: 0,
          detail: String(describing: error)))
    }
  }

  private func emit(_ result: SelfTestResult) {
    checkCount += 1
    if !result.passed { failures.append(result) }
    onResult(result)
  }

  private func execute(
    _ image: MemoryImage, record: (CommandBuffer) throws -> Void
  ) throws -> (after: [UInt32], microseconds: Double) {
    let byteCount = image.words.count * 4
    guard byteCount <= Self.capacity, let source = upload.contents, let target = download.contents else {
      throw KernelError.unsupported("a check's memory of \(byteCount) bytes cannot be mapped")
    }
    image.words.withUnsafeBytes { source.copyMemory(from: $0.baseAddress!, byteCount: byteCount) }
    try commands.begin()
    commands.copy(from: upload, offset: 0, to: memory, offset: 0, byteCount: byteCount)
    commands.barrier()
    if let timestamps {
      commands.resetTimestamps(timestamps)
      commands.writeTimestamp(timestamps, index: 0)
    }
    try record(commands)
    if let timestamps { commands.writeTimestamp(timestamps, index: 1) }
    commands.barrier()
    commands.copy(from: memory, offset: 0, to: download, offset: 0, byteCount: byteCount)
    commands.barrierToHost()
    try commands.end()
    submissions += 1
    try device.computeQueue.submit([commands], signal: [(done, submissions)])
    guard try done.wait(for: submissions, timeoutNanoseconds: 120_000_000_000) else {
      throw VulkanError(
        kind: .deviceLost, description: "the device did not finish a check within two minutes")
    }
    let after = Array(
      UnsafeBufferPointer(start: target.assumingMemoryBound(to: UInt32.self), count: image.words.count))
    return (after, try timestamps.map { try $0.read()[1] / 1000 } ?? 0)
  }
}
