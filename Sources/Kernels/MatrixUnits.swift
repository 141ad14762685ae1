import VulkanRuntime

/// What a device's matrix units multiply at a time: `result[m, n] += a[m, k] * b[k, n]`, held by a subgroup
/// (VK_KHR_cooperative_matrix).
package struct MatrixUnits: Sendable, Hashable {
  /// What they multiply, and what into.
  package enum Inputs: Sendable, Hashable {
    /// float16, into float32.
    case halves
    /// Signed bytes, into 32-bit integers.
    case bytes

    /// Bytes of one.
    package var byteCount: Int { self == .halves ? 2 : 1 }
  }

  package let inputs: Inputs
  package var m: Int
  package var n: Int
  package var k: Int
  /// Whether a result of this shape may be float16 too: flash attention hands results on as inputs.
  package var hasHalfResults: Bool
  /// Of units for bytes, where the elements of their sums lie, once that is known.
  package var sums: SumLayout?

  /// The shape to use, or nil for a device without such matrix units.
  package init?(_ capabilities: DeviceCapabilities, inputs: Inputs = .halves) {
    // Inputs of both come as float16.
    guard capabilities.float16, inputs == .halves || capabilities.int8 else { return nil }
    let input: CooperativeMatrixShape.Component = inputs == .halves ? .float16 : .int8
    func multiplies(_ shape: CooperativeMatrixShape, into result: CooperativeMatrixShape.Component) -> Bool {
      shape.scope == .subgroup && !shape.saturates && shape.a == input && shape.b == input
        && shape.c == result && shape.result == result
    }
    // Shared memory is read and written in 16 bytes, and steps of 32 inputs are whole fragments.
    let usable = capabilities.cooperativeMatrix.filter {
      multiplies($0, into: inputs == .halves ? .float32 : .int32) && $0.m % 8 == 0 && $0.n % 8 == 0
        && [8, 16, 32].contains($0.k)
        && $0.m <= 32 && $0.n <= 32
    }
    guard
      let shape = usable.max(by: { ($0.m * $0.n * $0.k, $0.m) < ($1.m * $1.n * $1.k, $1.m) })
    else { return nil }
    self.inputs = inputs
    m = shape.m
    n = shape.n
    k = shape.k
    hasHalfResults = capabilities.cooperativeMatrix.contains {
      multiplies($0, into: .float16) && $0.m == shape.m && $0.n == shape.n && $0.k == shape.k
    }
  }
}
