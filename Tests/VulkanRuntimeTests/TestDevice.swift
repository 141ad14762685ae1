import Foundation
import Testing
import VulkanRuntime

/// The best device of this machine, or why there is none; every test here needs one.
enum TestDevice {
  static let instance = Result { try VulkanInstance() }

  /// Why the tests of this machine's device are skipped; nil when it has one.
  static var absence: String? {
    do {
      _ = try DeviceSelection.select(spec: environmentSpec, from: instance.get().physicalDevices)
      return nil
    } catch {
      return "no usable Vulkan device: \(error)"
    }
  }

  /// `VKINFER_DEVICE` picks the device by index or name.
  static var environmentSpec: String? { ProcessInfo.processInfo.environment["VKINFER_DEVICE"] }

  static func open(
    pipelineCacheDirectory: String? = nil, captureStatistics: Bool = false
  ) throws -> Device {
    let instance = try instance.get()
    let physical = try DeviceSelection.select(spec: environmentSpec, from: instance.physicalDevices)
    return try Device(
      instance: instance, physical: physical, pipelineCacheDirectory: pipelineCacheDirectory,
      captureStatistics: captureStatistics)
  }
}

/// Skips a test on a machine without a usable device, and fails it when the validation layer (if the environment asks
/// for one) has anything to say by its end.
struct OnDevice: TestTrait, SuiteTrait, TestScoping {
  let isRecursive = true

  func prepare(for test: Test) async throws {
    if let absence = TestDevice.absence { try Test.cancel(Comment(rawValue: absence)) }
  }

  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    try await function()
    if testCase != nil { #expect(try TestDevice.instance.get().validationMessageCount == 0) }
  }
}

extension Trait where Self == OnDevice {
  static var onDevice: OnDevice { OnDevice() }
}

/// The push constants of `scaleKernel`.
struct ScaleConstants: BitwiseCopyable {
  var source: UInt64
  var destination: UInt64
  var count: UInt32
  var addend: UInt32
}

extension Device {
  /// `scaleKernel` with workgroups of `width` and the given factor.
  func scalePipeline(width: UInt32 = 64, factor: UInt32) throws -> Pipeline {
    try makePipeline(
      name: "scale", spirv: scaleKernel, specialization: [width, factor],
      pushConstantBytes: MemoryLayout<ScaleConstants>.size, subgroupSize: nil)
  }

  /// Records `body`, runs it on `queue`, and waits for it.
  func run(on queue: Queue? = nil, _ body: (CommandBuffer) throws -> Void) throws {
    let queue = queue ?? computeQueue
    let commands = try makeCommandBuffer(queue: queue, reusable: false)
    try commands.begin()
    try body(commands)
    commands.barrierToHost()
    try commands.end()
    let done = try makeSemaphore()
    try queue.submit([commands], signal: [(done, 1)])
    #expect(try done.wait(for: 1, timeoutNanoseconds: 60_000_000_000))
  }
}

extension Buffer {
  /// The first `count` 32-bit words of a mapped buffer.
  func words(_ count: Int) -> [UInt32] {
    Array(UnsafeBufferPointer(start: contents!.assumingMemoryBound(to: UInt32.self), count: count))
  }

  func write(_ words: [UInt32]) {
    contents!.assumingMemoryBound(to: UInt32.self).update(from: words, count: words.count)
  }
}
