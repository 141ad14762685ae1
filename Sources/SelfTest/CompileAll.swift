import Kernels
import VulkanRuntime

/// What the driver's compiler made of one pipeline.
package struct CompileResult: Sendable {
  /// The shader and what its constants stand for.
  package let name: String
  /// The driver's own list: registers, spills, shared memory, code size.
  package let statistics: [(name: String, value: Double)]
  /// Registers went to memory: the kernel is slower than it need be.
  package let spills: Bool
  /// Why there is no pipeline; nil if there is.
  package let failure: String?
}

/// What came of all pipelines.
package struct CompileSummary: Sendable {
  package let device: String
  package let pipelineCount: Int
  package let spillCount: Int
  package let failureCount: Int
  /// Whether the driver tells anything: without statistics, no spill shows.
  package let hasStatistics: Bool
}

extension SelfTest {
  /// Compiles every pipeline that the engine can choose on a device. Nothing is allocated or run there, so that a
  /// driver's compiler is enough, without its hardware.
  ///
  /// - Throws: when there is no usable device; pipelines that do not compile are results, not errors.
  package static func compileAll(
    device spec: String?, isCancelled: () -> Bool = { false }, onResult: (CompileResult) -> Void
  ) throws -> CompileSummary {
    let instance = try VulkanInstance()
    let physical = try DeviceSelection.select(spec: spec, from: instance.physicalDevices)
    let device = try Device(
      instance: instance, physical: physical, pipelineCacheDirectory: nil, captureStatistics: true)
    let cache = KernelCache(device: device)
    let traits = cache.traits
    var (pipelines, spills, failures, statistics) = (0, 0, 0, 0)
    for variant in PipelineVariants(
      traits: traits, units: traits.matrixUnits, byteUnits: Self.byteUnits(device, traits)
    ).all {
      if isCancelled() { break }
      let result = compile(variant, cache: cache, traits: traits)
      pipelines += 1
      if result.spills { spills += 1 }
      if result.failure != nil { failures += 1 }
      if !result.statistics.isEmpty { statistics += 1 }
      onResult(result)
    }
    return CompileSummary(
      device: physical.name, pipelineCount: pipelines, spillCount: spills, failureCount: failures,
      hasStatistics: statistics > 0)
  }

  /// The units for products in bytes, whose sums may lie anywhere: nothing runs that could tell.
  private static func byteUnits(_ device: Device, _ traits: DeviceTraits) -> MatrixUnits? {
    guard traits.matrixUnits != nil, var units = MatrixUnits(device.capabilities, inputs: .bytes) else {
      return nil
    }
    units.sums = SumLayout(elements: units.m * units.n / traits.subgroupSize)
    return units
  }

  private static func compile(
    _ variant: PipelineVariant, cache: KernelCache, traits: DeviceTraits
  ) -> CompileResult {
    let name = variant.text.isEmpty ? variant.shader : "\(variant.shader) \(variant.text)"
    do {
      let pipeline = try cache.pipeline(
        variant.shader, specialization: variant.specialization, pushConstantBytes: variant.pushConstantBytes,
        subgroupSize: traits.subgroupSize)
      let statistics = try cache.device.executableStatistics(of: pipeline)
        .map { (name: $0.statistic, value: $0.value) }
      return CompileResult(
        name: name, statistics: statistics, spills: statistics.contains { isSpill($0.name) && $0.value > 0 },
        failure: nil)
    } catch {
      return CompileResult(name: name, statistics: [], spills: false, failure: String(describing: error))
    }
  }

  /// Drivers name them "Spilled VGPRs", "Scratch size", "Spill count" and the like.
  private static func isSpill(_ statistic: String) -> Bool {
    let name = statistic.lowercased()
    return name.contains("spill") || name.contains("scratch")
  }
}
