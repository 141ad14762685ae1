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
    case partial = 6
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
    /// Chunks of a row whose loads are under way at once.
    package var unroll: Int

    package init(subgroups: Int, split: Int, rows: Int, columns: Int, unroll: Int) {
      self.subgroups = subgroups
      self.split = split
      self.rows = rows
      self.columns = columns
      self.unroll = unroll
    }

    package var groupRows: Int { subgroups / split * rows }
  }

  package var matrix: DeviceMatrix
  package var epilogue: Epilogue
  package var hasNorm: Bool
  package var hasBias: Bool
  /// Whether columns are the step's output rows, not all its rows.
  package var gathersOutputs: Bool
  package var activation: Activation
  /// How the inputs come, and how what follows wants the outputs.
  package var inputs: ProductForm
  package var next: ProductForm
  /// Whether it is computed plainly, for comparison: inputs are floats then, and rows are not interleaved.
  package var isNaive = false

  package init(
    matrix: DeviceMatrix, epilogue: Epilogue, hasNorm: Bool = false, hasBias: Bool = false,
    gathersOutputs: Bool = false, activation: Activation = .silu, inputs: ProductForm = .floats,
    next: ProductForm = .none
  ) {
    self.matrix = matrix
    self.epilogue = epilogue
    self.hasNorm = hasNorm
    self.hasBias = hasBias
    self.gathersOutputs = gathersOutputs
    self.activation = activation
    self.inputs = inputs
    self.next = next
  }

  /// Rows that a workgroup must have a multiple of: outputs in blocks of 32 bytes are made by one workgroup.
  package var rowMultiple: Int {
    guard next == .bytes else { return 2 }
    return epilogue == .gated ? 64 : epilogue == .residual ? 32 : 2
  }

  /// A sound tiling for `columnCount` columns: enough subgroups to fill the device, else few rows re-reading inputs.
  ///
  /// - Parameter isChained: whether it runs in a chain of stages without barriers.
  package func tiling(columnCount: Int, isChained: Bool = false, traits: DeviceTraits) -> Tiling {
    if isNaive {
      // A workgroup for two rows of one column; for more where that would be more workgroups than devices allow.
      let subgroups = traits.isCPU ? 1 : max(1, traits.invocations(128) / traits.subgroupSize)
      return Tiling(
        subgroups: subgroups, split: subgroups, rows: matrix.rows > 2 * 65535 ? 8 : 2, columns: 1, unroll: 1)
    }
    let columns = columnCount >= 8 ? 8 : columnCount >= 4 ? 4 : columnCount >= 2 ? 2 : 1
    if lanesAreRows {
      // The same rows for any number of columns: sums of squares then do not depend on who shares a step.
      // Pairs of rows are in one lane.
      var rows = epilogue == .queryKeyValueNorm ? 16 : max(rowMultiple, 4 * traits.subgroupSize)
      rows = max(rows / (2 * traits.subgroupSize), 1) * 2 * traits.subgroupSize
      return Tiling(subgroups: 1, split: 1, rows: rows, columns: columns, unroll: 1)
    }
    if traits.isCPU {
      // Matrices as GPUs have them, which models on CPU drivers do not: small, since such drivers compile slowly.
      let rows = rowMultiple > 2 ? rowMultiple : 16
      return Tiling(
        subgroups: 1, split: 1, rows: rows, columns: columns, unroll: max(1, 32 / matrix.format.chunk))
    }
    let most = max(1, traits.maxWorkgroupInvocations / traits.subgroupSize)
    let columnGroups = (columnCount + columns - 1) / columns
    let chunksPerLane = matrix.columns / matrix.format.chunk / traits.subgroupSize
    func subgroupsInAll(_ rows: Int, _ split: Int) -> Int { matrix.rows / rows * split * columnGroups }
    if isChained, columns == 1, inputs == .floats {
      // Every workgroup waits for the stage before and keeps inputs of its own: few and large ones, each lane with
      // eight chunks under way.
      let isMany = subgroupsInAll(4, 1) >= traits.wantedSubgroups / 3
      let rows = isMany && matrix.format.chunk <= 8 && epilogue != .queryKeyValueNorm ? 4 : 2
      var unroll = 4
      while unroll > 1, rows * unroll * matrix.format.chunk > 64 || unroll > max(1, chunksPerLane) {
        unroll /= 2
      }
      let subgroups = max(8, rowMultiple / rows)
      // A device of small workgroups goes by the rule below.
      if subgroups <= most {
        return Tiling(subgroups: subgroups, split: 1, rows: rows, columns: 1, unroll: unroll)
      }
    }
    var rows: Int
    var split = 1
    var groupRows: Int
    if inputs == .bytes && columns < 4 {
      // Rows share the loads of inputs; few rows are spread out instead.
      rows = 4
      while rows > 1, subgroupsInAll(rows, 1) < traits.wantedSubgroups { rows /= 2 }
      groupRows = max(rowMultiple, 16)
    } else {
      // Inputs weigh as much as the weights of a row. Two subgroups that share two rows are the smallest workgroup
      // that pays: as one ends another starts, and no gap is left in what is under way.
      rows = 2
      if chunksPerLane >= 4 { split = 2 }
      while split < 4, subgroupsInAll(rows, split) < traits.wantedSubgroups / 2, chunksPerLane >= 4 * split {
        split *= 2
      }
      // Workgroups of these leave something each for the next stage to go through.
      groupRows = (epilogue == .residual && next != .none) || epilogue == .store ? 8 : 2
    }
    // No more invocations than can have all the registers that a lane can use.
    while inputs != .bytes, groupRows > 2, groupRows / rows * split * traits.subgroupSize > 256 {
      groupRows /= 2
    }
    groupRows = max(rowMultiple, groupRows)
    var subgroups = max(1, groupRows / rows) * split
    while subgroups > most {
      if split > 1 { split /= 2 } else { rows *= 2 }
      subgroups /= 2
    }
    var unroll = 1
    if inputs == .bytes {
      // Compilers do as well by themselves, but where a subgroup has but one row in a large workgroup.
      unroll = rows > 1 ? min(2, max(1, chunksPerLane)) : rowMultiple > 2 && chunksPerLane >= 4 ? 4 : 1
    } else {
      // Unpacked weights of all chunks under way may lie in registers at once.
      while unroll < 4, rows * unroll * matrix.format.chunk <= 32, chunksPerLane / split >= 2 * unroll {
        unroll *= 2
      }
    }
    if columns > 2 { unroll = min(unroll, 2) }
    return Tiling(subgroups: subgroups, split: split, rows: rows, columns: columns, unroll: unroll)
  }

  /// Tilings that are worth measuring for `columnCount` columns, the default first: those that were the best for
  /// some product on some device, or near it.
  package func candidates(columnCount: Int, isChained: Bool = false, traits: DeviceTraits) -> [Tiling] {
    let standard = tiling(columnCount: columnCount, isChained: isChained, traits: traits)
    if isNaive { return [standard] }
    let chunksPerLane = matrix.columns / matrix.format.chunk / traits.subgroupSize
    // Subgroups, split, rows, unroll.
    let cuts =
      columnCount > 1
      ? [
        (4, 1, 4, 1), (8, 1, 4, 1), (8, 1, 2, 2), (8, 1, 2, 1), (16, 1, 2, 1), (16, 1, 4, 1), (8, 2, 4, 1),
        (4, 1, 2, 2), (16, 2, 2, 1), (16, 1, 1, 2), (16, 2, 4, 1), (4, 1, 8, 1),
      ]
      : inputs == .bytes
        ? [
          (16, 1, 1, 1), (16, 1, 1, 4), (32, 1, 1, 4), (32, 1, 1, 1), (32, 1, 1, 8), (4, 2, 2, 4),
          (8, 2, 2, 4),
          (16, 2, 2, 4), (16, 1, 2, 2), (16, 1, 2, 4), (8, 1, 4, 1), (32, 2, 2, 2), (16, 1, 4, 2),
          (16, 1, 4, 1),
          (32, 1, 2, 2), (8, 1, 8, 2), (32, 2, 4, 1), (4, 1, 4, 2), (8, 1, 2, 2),
        ]
        : isChained
          ? [
            (8, 1, 4, 2), (8, 1, 2, 4), (16, 1, 2, 4), (16, 2, 4, 2), (16, 2, 2, 4), (16, 1, 4, 2),
            (8, 2, 2, 4),
            (16, 1, 1, 8), (4, 1, 4, 2), (8, 1, 4, 4), (16, 4, 2, 2), (16, 4, 2, 4), (8, 4, 2, 4),
            (4, 2, 2, 4),
          ]
          : [
            (2, 2, 2, 2), (2, 2, 2, 4), (4, 2, 2, 4), (4, 4, 2, 2), (8, 4, 2, 2), (8, 4, 2, 4), (8, 2, 2, 4),
            (16, 4, 2, 2), (8, 1, 2, 4), (4, 1, 4, 2), (16, 1, 1, 8), (16, 2, 2, 4), (16, 4, 2, 4),
            (8, 1, 4, 2), (16, 2, 4, 2),
            (16, 1, 2, 4),
          ]
    // Parts that workgroups leave for the next stage to go through must not be many.
    let leaves = (epilogue == .residual && next != .none) || epilogue == .store
    let fewestRows = leaves ? 8 : 2
    let others = cuts.map {
      Tiling(subgroups: $0.0, split: $0.1, rows: $0.2, columns: standard.columns, unroll: $0.3)
    }.filter { tiling in
      tiling != standard && tiling.subgroups * traits.subgroupSize <= traits.maxWorkgroupInvocations
        && tiling.groupRows >= fewestRows && tiling.groupRows.isMultiple(of: rowMultiple)
        && (epilogue != .queryKeyValueNorm || 16.isMultiple(of: tiling.groupRows))
        && tiling.rows * tiling.columns <= 32 && chunksPerLane >= tiling.split
        && (inputs == .bytes || tiling.rows * tiling.unroll * matrix.format.chunk <= 64)
    }
    return [standard] + others
  }

  /// Whether each lane has rows of its own, as interleaved matrices want it; their inputs are floats.
  package var lanesAreRows: Bool { matrix.format.rowInterleave > 1 }

  /// The shader's name in the library.
  package func shaderName(_ traits: DeviceTraits) -> String {
    let rows = traits.loadsWords64 ? "linear_rows_wide." : "linear_rows."
    return (isNaive ? "linear_naive." : lanesAreRows ? rows : inputs == .bytes ? "linear_bytes." : "linear.")
      + matrix.format.type.name
  }

  /// The shader's specialization constants.
  package func specialization(_ tiling: Tiling, isChained: Bool = false, traits: DeviceTraits) -> [UInt32] {
    [
      UInt32(tiling.subgroups * traits.subgroupSize), UInt32(tiling.subgroups), UInt32(tiling.split),
      UInt32(tiling.rows), UInt32(tiling.columns), UInt32(tiling.unroll), epilogue.rawValue,
      hasNorm ? 1 : 0, hasBias ? 1 : 0, gathersOutputs ? 1 : 0,
      activation.constant, next.rawValue,
      isChained ? 1 : 0, isChained ? UInt32(stagedBytes(tiling, traits: traits) / 16) : 0,
    ]
  }

  /// Bytes of inputs that a workgroup of a chained stage keeps in shared memory; 0 where there is no room, or no need.
  private func stagedBytes(_ tiling: Tiling, traits: DeviceTraits) -> Int {
    let bytes = 4 * activationStride(matrix.columns)
    guard inputs == .floats, tiling.columns == 1, bytes <= min(traits.sharedMemory, 48 << 10) * 2 / 3 else {
      return 0
    }
    return bytes
  }

  package func pipeline(
    _ tiling: Tiling, isChained: Bool = false, cache: KernelCache
  ) throws -> Pipeline {
    try cache.pipeline(
      shaderName(cache.traits),
      specialization: specialization(tiling, isChained: isChained, traits: cache.traits),
      pushConstantBytes: MemoryLayout<LinearPush>.size, subgroupSize: cache.traits.subgroupSize)
  }

  /// Workgroups for `columnCount` columns.
  package func groups(_ tiling: Tiling, columnCount: Int) -> (Int, Int, Int) {
    (
      (columnCount + tiling.columns - 1) / tiling.columns,
      (matrix.rows + tiling.groupRows - 1) / tiling.groupRows, 1
    )
  }

  /// `push` with what the matrix gives: `weights`, `columns`, `rows` and `row_offset`.
  func withMatrix(_ push: LinearPush) -> LinearPush {
    var push = push
    push.weights = matrix.push
    push.columns = UInt32(matrix.columns)
    push.rows = UInt32(matrix.rows)
    push.row_offset = UInt32(matrix.rowOffset)
    return push
  }

  /// Records the product. `push.weights`, `columns`, `rows` and `row_offset` are filled in here.
  ///
  /// - Parameter chain: where the stages around it run without barriers; the caller ends the stage.
  package func record(
    _ commands: CommandBuffer, push: LinearPush, columnCount: Int, cache: KernelCache,
    tiling: Tiling? = nil, chain: StageChain? = nil
  ) throws {
    let tiling = tiling ?? self.tiling(columnCount: columnCount, traits: cache.traits)
    precondition(tiling.groupRows % rowMultiple == 0)
    var push = withMatrix(push)
    push.chain = chain?.address ?? 0
    let groups = groups(tiling, columnCount: columnCount)
    chain?.add(groups)
    commands.dispatch(
      try pipeline(tiling, isChained: chain != nil, cache: cache), pushConstants: push,
      groups: groups)
  }
}

extension Activation {
  /// What kernels are told.
  var constant: UInt32 { self == .silu ? ACTIVATION_SILU : ACTIVATION_GELU_TANH }
}
