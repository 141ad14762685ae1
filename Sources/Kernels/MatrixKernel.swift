import CShaderInterface
import Transformer
import VulkanRuntime

/// The matrix product for many tokens with a fused epilogue, on the matrix units: in float16
/// (Shaders/matrix/matrix.comp) or in bytes (Shaders/matrix/matrix_bytes.comp), as the units say.
///
/// Inputs are float16 rows, as `NormaliseKernel`, `FlashAttentionKernel` and the gated epilogue leave them; in bytes,
/// those that `QuantiseRowsKernel` makes of them. Outputs are
/// those of `LinearKernel`, but for two: gated ones are float16 rows times `HIDDEN_SCALE`, so the product that takes
/// them has `push.scale` 1 / `HIDDEN_SCALE`; and what a norm over many rows waits for stays in the scratch, for
/// `HeadNormKernel` and for a `NormaliseKernel` with an addend.
package struct MatrixKernel: Sendable, Hashable {
  package var matrix: DeviceMatrix
  package var units: MatrixUnits
  package var epilogue: LinearKernel.Epilogue
  package var hasBias: Bool
  /// Whether tokens are the step's output rows, gathered by the `NormaliseKernel` before, not all its rows.
  package var gathersOutputs: Bool
  package var activation: Activation

  package init(
    matrix: DeviceMatrix, units: MatrixUnits, epilogue: LinearKernel.Epilogue, hasBias: Bool = false,
    gathersOutputs: Bool = false, activation: Activation = .silu
  ) {
    self.matrix = matrix
    self.units = units
    self.epilogue = epilogue
    self.hasBias = hasBias
    self.gathersOutputs = gathersOutputs
    self.activation = activation
  }

  /// The same product in bytes; nil where the device or the format of the weights has none.
  package func inBytes(_ traits: DeviceTraits) -> MatrixKernel? {
    guard let units = traits.byteUnits, Self.multipliesBytes(matrix.format) else { return nil }
    var kernel = self
    kernel.units = units
    return kernel
  }

  /// Whether weights of a format can be multiplied in bytes: they are small integers, with a scale for 32 of them.
  package static func multipliesBytes(_ format: WeightFormat) -> Bool {
    [.q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q4_k, .q5_k].contains(format.type) && format.rowInterleave == 1
  }

  /// A sound tiling for `tokenCount` tokens.
  package func tiling(tokenCount: Int, traits: DeviceTraits) -> MatrixTiling {
    MatrixTilingChoice(format: matrix.format, units: units, traits: traits).tiling(
      rows: matrix.rows, columns: matrix.columns, tokenCount: tokenCount)
  }

  /// Workgroups for `tokenCount` tokens.
  package func groups(_ tiling: MatrixTiling, tokenCount: Int) -> (Int, Int, Int) {
    let rowTiles = (matrix.rows + tiling.tileRows(units) - 1) / tiling.tileRows(units)
    let tokenTiles = (tokenCount + tiling.tileTokens(units) - 1) / tiling.tileTokens(units)
    return (rowTiles * tiling.band, (tokenTiles + tiling.band - 1) / tiling.band, tiling.split)
  }

  /// Floats at `push.partials` that workgroups sharing inputs leave for the last of them.
  package func partialCount(_ tiling: MatrixTiling, tokenCount: Int) -> Int {
    guard tiling.split > 1 else { return 0 }
    let (x, y, z) = groups(tiling, tokenCount: tokenCount)
    return x * y * z * tiling.tileRows(units) * tiling.tileTokens(units)
  }

  /// Counters needed at `push.counters`.
  package func counterCount(_ tiling: MatrixTiling, tokenCount: Int) -> Int {
    guard tiling.split > 1 else { return 0 }
    let (x, y, _) = groups(tiling, tokenCount: tokenCount)
    return x * y
  }

  /// The shader's name in the library.
  package var shaderName: String {
    "matrix\(units.inputs == .bytes ? "_bytes" : "").\(matrix.format.type.name)"
  }

  /// The shader's specialization constants.
  package func specialization(_ tiling: MatrixTiling, traits: DeviceTraits) -> [UInt32] {
    [
      UInt32(tiling.subgroups * traits.subgroupSize), UInt32(tiling.rowSubgroups),
      UInt32(tiling.tokenSubgroups), UInt32(tiling.rowFragments), UInt32(tiling.tokenFragments),
      UInt32(units.m), UInt32(units.n), UInt32(units.k), UInt32(tiling.step), UInt32(tiling.split),
      UInt32(tiling.band), epilogue.rawValue, hasBias ? 1 : 0, gathersOutputs ? 1 : 0,
      activation.constant,
    ]
      + (units.sums.map { [FragmentLayout.packed($0.rowPlaces), FragmentLayout.packed($0.tokenPlaces)] } ?? [])
  }

  /// - Throws: `KernelError.unsupported` for a tiling that the device has no room for.
  package func pipeline(_ tiling: MatrixTiling, cache: KernelCache) throws -> Pipeline {
    guard tiling.fits(units, cache.traits) else {
      throw KernelError.unsupported(
        "\(shaderName): workgroups of \(tiling.subgroups) subgroups and \(tiling.sharedBytes(units)) bytes of shared "
          + "memory are more than the device has room for")
    }
    return try cache.pipeline(
      shaderName, specialization: specialization(tiling, traits: cache.traits),
      pushConstantBytes: MemoryLayout<MatrixPush>.size, subgroupSize: cache.traits.subgroupSize)
  }

  /// Records the product. `push.weights`, `columns`, `rows` and `row_offset` are filled in here; `push.scale` is 1, or
  /// 1 / `HIDDEN_SCALE` for inputs that the gated epilogue made.
  package func record(
    _ commands: CommandBuffer, push: MatrixPush, tokenCount: Int, cache: KernelCache,
    tiling: MatrixTiling? = nil
  ) throws {
    let tiling = tiling ?? self.tiling(tokenCount: tokenCount, traits: cache.traits)
    commands.dispatch(
      try pipeline(tiling, cache: cache), pushConstants: withMatrix(push),
      groups: groups(tiling, tokenCount: tokenCount))
  }

  /// `push` with what the matrix gives: `weights`, `columns`, `rows` and `row_offset`.
  func withMatrix(_ push: MatrixPush) -> MatrixPush {
    var push = push
    push.weights = matrix.push
    push.columns = UInt32(matrix.columns)
    push.rows = UInt32(matrix.rows)
    push.row_offset = UInt32(matrix.rowOffset)
    return push
  }
}
