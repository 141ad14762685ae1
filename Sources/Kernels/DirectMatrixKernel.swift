import CShaderInterface
import Transformer
import VulkanRuntime

/// The product of a `MatrixKernel` for few tokens: weights and inputs go from memory straight into the fragments of
/// the matrix units (Shaders/matrix/matrix_direct.comp), on devices whose `FragmentLayout` is known.
///
/// Inputs and outputs are the matrix kernel's.
package struct DirectMatrixKernel: Sendable, Hashable {
  /// How the work is cut.
  package struct Tiling: Sendable, Hashable {
    /// Subgroups along rows.
    package var rowSubgroups: Int
    /// Subgroups that share rows and split the inputs.
    package var split: Int
    /// Fragments of a subgroup, along rows and along tokens.
    package var rowFragments: Int
    package var tokenFragments: Int
    /// Chunks of a row whose loads are under way at once.
    package var unroll: Int

    package init(rowSubgroups: Int, split: Int, rowFragments: Int, tokenFragments: Int, unroll: Int) {
      self.rowSubgroups = rowSubgroups
      self.split = split
      self.rowFragments = rowFragments
      self.tokenFragments = tokenFragments
      self.unroll = unroll
    }

    package var subgroups: Int { rowSubgroups * split }

    /// "direct, subgroups 2x4, fragments 1x2, unroll 1".
    package var text: String {
      "direct, subgroups \(rowSubgroups)x\(split), fragments \(rowFragments)x\(tokenFragments), unroll \(unroll)"
    }
  }

  package let product: MatrixKernel
  package let layout: FragmentLayout
  package var tiling: Tiling

  /// Tokens up to which it is the faster kernel: weights are then what takes the time.
  package static let mostTokens = 64

  package init(_ product: MatrixKernel, layout: FragmentLayout, tiling: Tiling) {
    self.product = product
    self.layout = layout
    self.tiling = tiling
  }

  /// The kernel for a dispatch of `tokenCount` tokens; nil where `MatrixKernel` takes them.
  package init?(_ product: MatrixKernel, tokenCount: Int, traits: DeviceTraits) {
    guard let layout = traits.fragments, tokenCount <= Self.mostTokens, Self.takes(product.matrix.format)
    else {
      return nil
    }
    let tiling = Self.tiling(product.matrix, layout: layout, tokenCount: tokenCount, traits: traits)
    guard Self.fits(tiling, layout, traits) else { return nil }
    self.init(product, layout: layout, tiling: tiling)
  }

  /// Tilings worth a look, the kernel's own choice first: for comparisons.
  package func candidates(tokenCount: Int, traits: DeviceTraits) -> [Tiling] {
    var result = [tiling]
    let chunk = product.matrix.format.chunk
    for subgroups in [4, 8, 16] {
      for split in [1, 2, 4, 8] where split <= subgroups {
        for rowFragments in [1, 2] {
          for unroll in chunk <= 8 ? [1, 2, 4] : [1, 2] {
            let other = Tiling(
              rowSubgroups: subgroups / split, split: split, rowFragments: rowFragments,
              tokenFragments: tiling.tokenFragments, unroll: unroll)
            // What is loaded ahead and multiplied, and the sums, lie in registers.
            let registers =
              rowFragments * (8 * unroll + chunk + 4 * other.tokenFragments) + 8 * other.tokenFragments
            guard other != tiling, Self.fits(other, layout, traits), registers <= 224,
              product.matrix.columns / chunk >= 2 * layout.sharers * unroll * split
            else { continue }
            result.append(other)
          }
        }
      }
    }
    return result
  }

  /// Whether there is a kernel for a format: chunks have eight weights or more.
  package static func takes(_ format: WeightFormat) -> Bool { format.chunk >= 8 }

  /// Whether a device has room for its workgroups.
  package static func fits(_ tiling: Tiling, _ layout: FragmentLayout, _ traits: DeviceTraits) -> Bool {
    tiling.subgroups * traits.subgroupSize <= traits.maxWorkgroupInvocations
      && sharedBytes(tiling, layout, round: 1) <= traits.sharedMemory
  }

  /// Bytes of shared memory where `round` fragments along tokens are finished at once.
  private static func sharedBytes(_ tiling: Tiling, _ layout: FragmentLayout, round: Int) -> Int {
    16 * tiling.subgroups * round * layout.n * (tiling.rowFragments * layout.m / 4 + 1)
  }

  /// As many as half of the shared memory holds: two workgroups or more are at work on a core.
  private func round(_ traits: DeviceTraits) -> Int {
    var round = tiling.tokenFragments
    while round > 1, Self.sharedBytes(tiling, layout, round: round) > traits.sharedMemory / 2 { round -= 1 }
    return round
  }

  private static func tiling(
    _ matrix: DeviceMatrix, layout: FragmentLayout, tokenCount: Int, traits: DeviceTraits
  ) -> Tiling {
    let tokenFragments = (tokenCount + layout.n - 1) / layout.n
    if traits.isCPU {
      // A CPU's registers hold few fragments, and compiling many costs seconds.
      return Tiling(
        rowSubgroups: 1, split: 2, rowFragments: 1, tokenFragments: min(2, tokenFragments), unroll: 1)
    }
    // What follows was measured on an H200: few tokens want many loads under way, many want their inputs read once for
    // many rows.
    let unpacks = matrix.format.chunk > 8
    let isWide = matrix.rows / (2 * layout.m) >= traits.wantedSubgroups / 6
    let sharesInputs: Bool =
      switch tokenCount {
      case ...8: false
      case ...16: matrix.format.chunk > 16 || !unpacks && !isWide
      case ...32: unpacks || isWide
      default: true
      }
    let rowFragments = sharesInputs ? 2 : 1
    let wanted =
      rowFragments == 1
      ? (tokenCount <= 8 ? traits.wantedSubgroups : traits.wantedSubgroups / 2)
      : tokenCount <= 32 && unpacks ? traits.wantedSubgroups / 4 : traits.wantedSubgroups / 6
    let rowParts = (matrix.rows + rowFragments * layout.m - 1) / (rowFragments * layout.m)
    // Subgroups that share rows each go through four rounds of loads or more, or one where there are few.
    let rounds = max(1, matrix.columns / matrix.format.chunk / layout.sharers)
    var split = 1
    while split < 8, rowParts * split < wanted,
      2 * split <= (rowParts * split < traits.wantedSubgroups / 8 ? rounds : rounds / 4)
    {
      split *= 2
    }
    let unroll = unpacks ? (split == 8 ? 2 : 1) : rowFragments == 2 && tokenCount <= 32 && isWide ? 4 : 2
    var rowSubgroups = split >= 4 ? 1 : unpacks ? 8 : 4 / split
    // A workgroup for each core before any has more rows.
    while rowSubgroups > 1, rowParts / rowSubgroups < traits.wantedSubgroups / 32 { rowSubgroups /= 2 }
    return Tiling(
      rowSubgroups: rowSubgroups, split: split, rowFragments: rowFragments,
      tokenFragments: min(tokenFragments, mostTokens / layout.n), unroll: unroll)
  }

  /// The shader's name in the library.
  package var shaderName: String { "matrix_direct.\(product.matrix.format.type.name)" }

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    let chunks = product.matrix.columns / product.matrix.format.chunk
    return [
      UInt32(tiling.subgroups * traits.subgroupSize), UInt32(tiling.rowSubgroups), UInt32(tiling.split),
      UInt32(tiling.rowFragments), UInt32(tiling.tokenFragments), UInt32(layout.m), UInt32(layout.n),
      UInt32(layout.k), UInt32(layout.sharers), FragmentLayout.packed(layout.weightPlaces),
      FragmentLayout.packed(layout.inputPlaces), product.epilogue.rawValue, product.hasBias ? 1 : 0,
      product.gathersOutputs ? 1 : 0, product.activation.constant, UInt32(tiling.unroll),
      chunks.isMultiple(of: layout.sharers * tiling.unroll) ? 0 : 1, UInt32(round(traits)),
    ]
  }

  /// Workgroups for `tokenCount` tokens.
  package func groups(tokenCount: Int) -> (Int, Int, Int) {
    let tileRows = tiling.rowSubgroups * tiling.rowFragments * layout.m
    let tileTokens = tiling.tokenFragments * layout.n
    return (
      (product.matrix.rows + tileRows - 1) / tileRows, (tokenCount + tileTokens - 1) / tileTokens, 1
    )
  }

  package func pipeline(cache: KernelCache) throws -> Pipeline {
    try cache.pipeline(
      shaderName, specialization: specialization(cache.traits),
      pushConstantBytes: MemoryLayout<MatrixPush>.size,
      subgroupSize: cache.traits.subgroupSize)
  }

  /// Records the product. `push.weights`, `columns`, `rows` and `row_offset` are filled in here.
  package func record(
    _ commands: CommandBuffer, push: MatrixPush, tokenCount: Int, cache: KernelCache
  ) throws {
    try cache.dispatch(
      commands, shaderName, specialization(cache.traits), product.withMatrix(push),
      groups: groups(tokenCount: tokenCount))
  }
}
