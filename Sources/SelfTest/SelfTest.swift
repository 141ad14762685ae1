import Kernels
import Synchronization
import VulkanRuntime

/// What one check found.
package struct SelfTestResult: Sendable {
  /// Kernel, format, shape: "linear q4_k gated silu 66x288, 3 columns, ...".
  package let name: String
  /// `||found - expected|| / ||expected||`, or what `tolerance` bounds instead; infinite where there is no number.
  package let relativeError: Double
  package let tolerance: Double
  package let passed: Bool
  /// Device time of the dispatches; 0 where the device has no clock.
  package let microseconds: Double
  /// Why it failed, where the error alone does not say; else empty.
  package let detail: String
}

/// What a whole self-test found.
package struct SelfTestSummary: Sendable {
  package let device: String
  /// Gives the same inputs again.
  package let seed: UInt64
  package let checkCount: Int
  package let failures: [SelfTestResult]
  /// What a Vulkan validation layer had to say; 0 without one.
  package let validationMessageCount: Int
}

/// Holds every kernel against the reference on one device: the same code for users with a new GPU and for tests.
///
/// Inputs are random. What a kernel should write is filled with NaN before, so that anything left out shows; and
/// every other word of the memory around it must be as it was. Each dispatch runs twice and must give the same bits.
package enum SelfTest {
  /// Runs the checks whose name contains `filter` (nil: all).
  ///
  /// - Parameters:
  ///   - spec: the device, by index or part of its name; nil takes the best.
  ///   - seed: of the random inputs; nil draws one.
  ///   - jobs: checks that run at a time, each on a logical device of its own, as far as there are cores; nil takes
  ///     what suits the device. Most of the time goes to compiling kernels and to the reference, which take a core each.
  ///   - isCancelled: asked before each check: no more are run once it is true.
  ///   - onResult: called with each result as it comes, one at a time.
  /// - Throws: when there is no usable device, or when it is lost; failed checks are results, not errors.
  package static func run(
    device spec: String?, filter: String?, seed: UInt64?, jobs: Int? = nil,
    isCancelled: @escaping @Sendable () -> Bool = { false },
    onResult: (SelfTestResult) -> Void
  ) throws -> SelfTestSummary {
    let instance = try VulkanInstance()
    let physical = try DeviceSelection.select(spec: spec, from: instance.physicalDevices)
    let seed = seed ?? UInt64.random(in: 0...UInt64.max)
    let jobs = max(1, jobs ?? usualJobs(physical))
    return try withoutActuallyEscaping(onResult) { onResult in
      let results = Mutex(())
      // Each is used by one thread at a time.
      nonisolated(unsafe) let benches = try (0..<jobs).map { index in
        let device = try Device(instance: instance, physical: physical, pipelineCacheDirectory: nil)
        return try TestBench(
          device: device, filter: filter, share: TestBench.Share(index: index, count: jobs), seed: seed,
          isCancelled: isCancelled
        ) { result in results.withLock { _ in onResult(result) } }
      }
      let errors = Mutex<[any Error]>([])
      Thread.concurrently(jobs) { index in
        do { try runShare(benches[index]) } catch { errors.withLock { $0.append(error) } }
      }
      if let error = errors.withLock({ $0.first }) { throw error }
      if !isCancelled() {
        try VariantChecks(bench: benches[0], made: benches.flatMap { $0.cache.made.map(\.variant) }).run()
      }
      return SelfTestSummary(
        device: physical.name, seed: seed, checkCount: benches.reduce(0) { $0 + $1.checkCount },
        failures: benches.flatMap(\.failures), validationMessageCount: instance.validationMessageCount)
    }
  }

  /// CPU drivers compute on all cores as it is.
  private static func usualJobs(_ physical: PhysicalDevice) -> Int { physical.kind == .cpu ? 1 : 8 }

  private static func runShare(_ bench: TestBench) throws {
    try RepackChecks(bench: bench).run()
    try RandomChecks(bench: bench).run()
    try ChainChecks(bench: bench).run()
    try LinearChecks(bench: bench).run()
    try NormaliseChecks(bench: bench).run()
    try UnfusedChecks(bench: bench).run()
    try MatrixChecks(bench: bench).run()
    try CombineChecks(bench: bench).run()
    try CacheWriteChecks(bench: bench).run()
    try ExchangeChecks(bench: bench).run()
    try AttentionChecks(bench: bench).run()
    try FlashChecks(bench: bench).run()
    try SamplingChecks(bench: bench).run()
  }
}
