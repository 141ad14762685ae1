import ShaderLibrary
import Synchronization
import VulkanRuntime

/// The pipelines of one device, made when first asked for.
package final class KernelCache: Sendable {
  package let device: Device
  package let traits: DeviceTraits
  /// How the linear kernel cuts its work on this device.
  package let tuning: LinearTuning
  private let pipelines = Mutex<[Variant: Pipeline]>([:])

  /// What tells one pipeline from another.
  package struct Variant: Hashable, Sendable {
    package var shader: String
    package var specialization: [UInt32]
    package var subgroupSize: Int?
  }

  /// - Parameter method: how steps are computed with these pipelines.
  package init(device: Device, method: StepMethod = StepMethod()) {
    self.device = device
    var traits = DeviceTraits(device.physical, method: method)
    if traits.matrixUnits != nil, method.gemm != .matrix, method.gemm != .bytes {
      // A device that cannot tell goes without.
      traits.fragments = try? FragmentProbe.layout(device: device, subgroupSize: traits.subgroupSize)
    }
    if traits.matrixUnits != nil, method.gemm == .bytes {
      traits.byteUnits = try? FragmentProbe.byteUnits(device: device, subgroupSize: traits.subgroupSize)
    }
    self.traits = traits
    tuning = LinearTuning(device: device)
  }

  /// Whether the device can compute products of many tokens in the way that was asked for.
  ///
  /// - Throws: `KernelError.unsupported` where it lacks what they are to be computed on.
  package func checkMethod() throws {
    guard let gemm = traits.method.gemm, [.direct, .matrix, .bytes].contains(gemm) else { return }
    let name = device.physical.name
    guard traits.matrixUnits != nil else {
      throw KernelError.unsupported(
        "--gemm \(gemm): \(name) has no matrix units that vkinfer can use; leave \(gemm) out")
    }
    guard gemm != .bytes || traits.byteUnits != nil else {
      throw KernelError.unsupported(
        "--gemm bytes: the matrix units of \(name) multiply no signed bytes that vkinfer can use; leave bytes out"
      )
    }
    guard gemm != .direct || traits.fragments != nil else {
      throw KernelError.unsupported(
        "--gemm direct: the matrix units of \(name) hold their elements where no kernel can put them; leave direct out"
      )
    }
  }

  /// The pipeline of a shader with these specialization constants (index i is `constant_id` i).
  ///
  /// - Parameter subgroupSize: the size to pin, where the device can; nil leaves it to the driver.
  package func pipeline(
    _ shader: String, specialization: [UInt32], pushConstantBytes: Int, subgroupSize: Int?
  ) throws -> Pipeline {
    let variant = Variant(shader: shader, specialization: specialization, subgroupSize: subgroupSize)
    if let known = pipelines.withLock({ $0[variant] }) { return known }
    guard let spirv = ShaderLibrary.spirv(shader) else { throw KernelError.missingShader(shader) }
    let made = try device.makePipeline(
      name: shader, spirv: spirv, specialization: specialization, pushConstantBytes: pushConstantBytes,
      subgroupSize: subgroupSize)
    pipelines.withLock { $0[variant] = made }
    return made
  }

  /// Records a dispatch of a shader with these specialization constants, its subgroups of the size that the device's
  /// traits say.
  package func dispatch<Constants: BitwiseCopyable>(
    _ commands: CommandBuffer, _ shader: String, _ specialization: [UInt32], _ pushConstants: Constants,
    groups: (Int, Int, Int)
  ) throws {
    let pipeline = try pipeline(
      shader, specialization: specialization, pushConstantBytes: MemoryLayout<Constants>.size,
      subgroupSize: traits.subgroupSize)
    commands.dispatch(pipeline, pushConstants: pushConstants, groups: groups)
  }

  /// Every variant made so far, with its pipeline, sorted by name.
  package var made: [(variant: Variant, pipeline: Pipeline)] {
    pipelines.withLock { $0.map { (variant: $0.key, pipeline: $0.value) } }
      .sorted {
        ($0.variant.shader, $0.variant.specialization.count) < (
          $1.variant.shader, $1.variant.specialization.count
        )
      }
  }
}

/// What kernels cannot do.
package enum KernelError: Error, CustomStringConvertible, Sendable {
  case missingShader(String)
  case unsupported(String)

  package var description: String {
    switch self {
    case .missingShader(let name):
      "shader \(name) is not in this build: it was compiled with a GLSL compiler too old for it"
    case .unsupported(let what):
      what
    }
  }
}
