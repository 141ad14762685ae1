import CShaderInterface
import ShaderLibrary
import VulkanRuntime

/// Finds out how a device lays out fragments: it loads some whose elements are their own indices, and looks what each
/// invocation holds (Shaders/probe/fragments.comp).
package enum FragmentProbe {
  /// The layout of the units with the fewest tokens that `DirectMatrixKernel` can follow; nil where there are none.
  package static func layout(device: Device, subgroupSize: Int) throws -> FragmentLayout? {
    let capabilities = device.capabilities
    guard capabilities.float16, subgroupSize <= 64, let spirv = ShaderLibrary.spirv("fragments") else {
      return nil
    }
    let shapes = capabilities.cooperativeMatrix.filter {
      $0.scope == .subgroup && !$0.saturates && $0.a == .float16 && $0.b == .float16 && $0.c == .float32
        && $0.result == .float32 && $0.m * $0.k <= 8 * subgroupSize && $0.n * $0.k <= 8 * subgroupSize
        && ($0.m * $0.k).isMultiple(of: subgroupSize) && ($0.n * $0.k).isMultiple(of: subgroupSize)
    }
    for shape in shapes.sorted(by: { ($0.n, -$0.m, -$0.k) < ($1.n, -$1.m, -$1.k) }) {
      if let layout = try layout(shape, device: device, spirv: spirv, subgroupSize: subgroupSize) {
        return layout
      }
    }
    return nil
  }

  private static func layout(
    _ shape: CooperativeMatrixShape, device: Device, spirv: [UInt32], subgroupSize: Int
  ) throws -> FragmentLayout? {
    let (m, n, k) = (shape.m, shape.n, shape.k)
    let pipeline = try device.makePipeline(
      name: "fragments", spirv: spirv,
      specialization: [UInt32(subgroupSize), UInt32(m), UInt32(n), UInt32(k)],
      pushConstantBytes: MemoryLayout<FragmentProbePush>.size, subgroupSize: subgroupSize)
    guard let words = try answers(of: pipeline, on: device) else { return nil }
    let count = words.count
    // A device may hold more than one copy of an element: not what the kernel could follow.
    guard words[count - 2] == UInt32(m * k / subgroupSize), words[count - 1] == UInt32(n * k / subgroupSize)
    else {
      return nil
    }
    let most = Int(FRAGMENT_PROBE_ELEMENTS)
    func held(_ first: Int, _ each: Int) -> [[FragmentLayout.Element]] {
      (0..<subgroupSize).map { lane in
        (0..<each).map { element in
          let index = Int(words[lane * 2 * most + first + element])
          return FragmentLayout.Element(row: index / k, input: index % k)
        }
      }
    }
    return FragmentLayout(
      m: m, n: n, k: k, a: held(0, m * k / subgroupSize), b: held(most, n * k / subgroupSize))
  }

  /// The device's matrix units for bytes, with the layout of their sums; nil where there are none that the matrix kernel
  /// can follow.
  package static func byteUnits(device: Device, subgroupSize: Int) throws -> MatrixUnits? {
    guard var units = MatrixUnits(device.capabilities, inputs: .bytes),
      let spirv = ShaderLibrary.spirv("sums")
    else { return nil }
    let (m, n) = (units.m, units.n)
    guard (m * n).isMultiple(of: subgroupSize), m * n <= 8 * subgroupSize, subgroupSize <= 64 else {
      return nil
    }
    let pipeline = try device.makePipeline(
      name: "sums", spirv: spirv, specialization: [UInt32(subgroupSize), UInt32(m), UInt32(n)],
      pushConstantBytes: MemoryLayout<FragmentProbePush>.size, subgroupSize: subgroupSize)
    guard let words = try answers(of: pipeline, on: device),
      words[words.count - 2] == UInt32(m * n / subgroupSize)
    else { return nil }
    let held = (0..<subgroupSize).map { lane in
      (0..<m * n / subgroupSize).map { Int(words[lane * Int(FRAGMENT_PROBE_ELEMENTS) + $0]) }
    }
    units.sums = SumLayout(m: m, n: n, held: held)
    return units.sums == nil ? nil : units
  }

  /// What a probe tells: the elements that invocations hold, then two lengths; nil without memory that the host reads.
  private static func answers(of pipeline: Pipeline, on device: Device) throws -> [UInt32]? {
    let count = Int(FRAGMENT_PROBE_LENGTHS) + 2
    let elements = try device.makeBuffer(byteCount: 4 * count, memory: .download, label: "fragments")
    guard let words = elements.contents?.assumingMemoryBound(to: UInt32.self) else { return nil }
    for index in 0..<count { words[index] = .max }
    try device.run { commands in
      commands.keepAlive([elements])
      var push = FragmentProbePush()
      push.elements = elements.address
      commands.dispatch(pipeline, pushConstants: push, groups: (1, 1, 1))
      commands.barrierToHost()
    }
    return (0..<count).map { words[$0] }
  }
}
