import Kernels
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
  ///   - onResult: called with each result as it comes.
  /// - Throws: when there is no usable device, or when it is lost; failed checks are results, not errors.
  package static func run(
    device spec: String?, filter: String?, seed: UInt64?, onResult: (SelfTestResult) -> Void
  ) throws -> SelfTestSummary {
    let instance = try VulkanInstance()
    let physical = try DeviceSelection.select(spec: spec, from: instance.physicalDevices)
    let device = try Device(instance: instance, physical: physical, pipelineCacheDirectory: nil)
    let seed = seed ?? UInt64.random(in: 0...UInt64.max)
    return try withoutActuallyEscaping(onResult) { onResult in
      let bench = try TestBench(device: device, filter: filter, seed: seed, onResult: onResult)
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
      try VariantChecks(bench: bench).run()
      return SelfTestSummary(
        device: physical.name, seed: seed, checkCount: bench.checkCount, failures: bench.failures,
        validationMessageCount: instance.validationMessageCount)
    }
  }
}
