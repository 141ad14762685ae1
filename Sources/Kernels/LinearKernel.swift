import CShaderInterface
import Transformer
import VulkanRuntime

/// The small-batch matrix product with a fused norm and epilogue (Shaders/linear/linear.comp): SBI-GeMM of
/// "DeepSpeed Inference", arXiv 2207.00032, section III-C.
package struct LinearKernel: Sendable, Hashable {
  package enum Epilogue: UInt32, Sendable {
    case store = 0
    case residual = 1
    case gated = 2
    case queryKeyValue = 3
    case queryKeyValueNorm = 4
    case residualNorm = 5
  }

  /// How the work is cut.
  package struct Tiling: Sendable, Hashable {
    /// Subgroups of a workgroup.
    package var subgroups: Int
    /// Subgroups that share rows and split the inputs.
    package var split: Int
    /// Rows of a subgroup.
    package var rows: Int
    /// Columns of a workgroup.
    package var columns: Int

    package var groupRows: Int { subgroups / split * rows }
  }

  package var matrix: DeviceMatrix
  package var epilogue: Epilogue
  package var hasNorm: Bool
  package var hasBias: Bool
  /// Whether columns are the step's output rows, not all its rows.
  package var gathersOutputs: Bool
  package var activation: Activation

  package init(
    matrix: DeviceMatrix, epilogue: Epilogue, hasNorm: Bool = false, hasBias: Bool = false,
    gathersOutputs: Bool = false, activation: Activation = .silu
  ) {
    self.matrix = matrix
    self.epilogue = epilogue
    self.hasNorm = hasNorm
    self.hasBias = hasBias
    self.gathersOutputs = gathersOutputs
    self.activation = activation
  }

  /// A sound tiling for `columnCount` columns: enough subgroups to fill the device, else few rows re-reading inputs.
  package func tiling(columnCount: Int, traits: DeviceTraits) -> Tiling {
    let columns = columnCount >= 8 ? 8 : columnCount >= 4 ? 4 : columnCount >= 2 ? 2 : 1
    if traits.isCPU {
      // Loads are gathered lane by lane: each load of inputs must pay for many rows.
      let rows = columns == 1 && epilogue != .queryKeyValueNorm ? 24 : 16
      return Tiling(subgroups: 1, split: 1, rows: rows, columns: columns)
    }
    let columnGroups = (columnCount + columns - 1) / columns
    var rows = columns >= 8 ? 2 : 4
    func subgroupsInAll(_ rows: Int, _ split: Int) -> Int { matrix.rows / rows * split * columnGroups }
    while rows > 1, subgroupsInAll(rows, 1) < traits.wantedSubgroups { rows /= 2 }
    var split = 1
    let chunksPerLane = matrix.columns / matrix.format.chunk / traits.subgroupSize
    while split < 8, subgroupsInAll(rows, split) < traits.wantedSubgroups, chunksPerLane / (2 * split) >= 1 {
      split *= 2
    }
    var subgroups = max(traits.usualSubgroups, split)
    // Pairs of rows stay together.
    while subgroups / split * rows < 2 { subgroups *= 2 }
    // Per-head norms need the workgroup's rows to divide 16.
    while epilogue == .queryKeyValueNorm, subgroups / split * rows > 16 { rows /= 2 }
    while subgroups * traits.subgroupSize > traits.maxWorkgroupInvocations, subgroups > 1 {
      subgroups /= 2
      split = max(1, split / 2)
      if subgroups / split * rows < 2 { rows = 2 }
    }
    return Tiling(subgroups: subgroups, split: split, rows: rows, columns: columns)
  }

  package func pipeline(_ tiling: Tiling, cache: KernelCache, traits: DeviceTraits) throws -> Pipeline {
    try cache.pipeline(
      "linear.\(matrix.format.type.name)",
      specialization: [
        UInt32(tiling.subgroups * traits.subgroupSize), UInt32(tiling.subgroups), UInt32(tiling.split),
        UInt32(tiling.rows), UInt32(tiling.columns), epilogue.rawValue, hasNorm ? 1 : 0, hasBias ? 1 : 0,
        gathersOutputs ? 1 : 0, activation == .silu ? ACTIVATION_SILU : ACTIVATION_GELU_TANH,
      ],
      pushConstantBytes: MemoryLayout<LinearPush>.size, subgroupSize: traits.subgroupSize)
  }

  /// Workgroups for `columnCount` columns.
  package func groups(_ tiling: Tiling, columnCount: Int) -> (Int, Int, Int) {
    (
      (columnCount + tiling.columns - 1) / tiling.columns,
      (matrix.rows + tiling.groupRows - 1) / tiling.groupRows, 1
    )
  }

  /// Records the product. `push.weights`, `columns`, `rows` and `row_offset` are filled in here.
  package func record(
    _ commands: CommandBuffer, push: LinearPush, columnCount: Int, cache: KernelCache, traits: DeviceTraits,
    tiling: Tiling? = nil
  ) throws {
    let tiling = tiling ?? self.tiling(columnCount: columnCount, traits: traits)
    var push = push
    push.weights = matrix.push
    push.columns = UInt32(matrix.columns)
    push.rows = UInt32(matrix.rows)
    push.row_offset = UInt32(matrix.rowOffset)
    commands.dispatch(
      try pipeline(tiling, cache: cache, traits: traits), pushConstants: push,
      groups: groups(tiling, columnCount: columnCount))
  }
}
