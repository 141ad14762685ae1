/// How the stages of a step are computed: as fast as is known, or plainly, which shows what each idea brings and is a
/// second opinion on the results (the ablation of "DeepSpeed Inference", arXiv 2207.00032).
package struct StepMethod: Sendable, Hashable {
  package enum Linear: String, Sendable, Hashable, CaseIterable {
    /// One plain kernel: see Shaders/linear/linear_naive.comp.
    case naive
    /// What the device is fastest with.
    case sbi
  }

  /// How products of many tokens are computed.
  package enum Gemm: String, Sendable, Hashable, CaseIterable {
    /// On the device's matrix units, those of two to 64 tokens without shared memory: `DirectMatrixKernel`.
    case direct
    /// On the device's matrix units, through shared memory: `MatrixKernel`.
    case matrix
    /// The same with weights and inputs as bytes, where the format of the weights has them.
    case bytes
    /// In tiles whose sums lie in registers: see Shaders/linear/tiles.glsl.
    case tiles
    /// As those of few tokens, some columns at a time.
    case columns
  }

  /// Whether what lies between products is done in their dispatches; else each operation is a dispatch of its own,
  /// with a barrier behind it.
  package var fuses: Bool
  /// How products of few tokens are computed.
  package var linear: Linear
  /// How products of many tokens are computed in fused steps with usual products; nil is what the device is fastest with.
  package var gemm: Gemm?

  package init(fuses: Bool = true, linear: Linear = .sbi, gemm: Gemm? = nil) {
    self.fuses = fuses
    self.linear = linear
    self.gemm = gemm
  }

  /// Whether it is what an engine takes when nothing else is asked for.
  package var isUsual: Bool { self == StepMethod() }
  /// Whether its stages may run without barriers between them, and its weights stream.
  package var isFast: Bool { fuses && linear == .sbi }
}
