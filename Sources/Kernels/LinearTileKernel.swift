import CShaderInterface
import Transformer
import VulkanRuntime

/// The product of a `LinearKernel` for many columns, on devices without matrix units: tiles whose sums lie in registers
/// (Shaders/linear/tiles.glsl).
///
/// Inputs and outputs are the linear kernel's, but for norms over more rows than a tile has: what they wait for stays in
/// the scratch, `.residualNorm` for a `CombineKernel` of one part, `.queryKeyValueNorm` for a `HeadNormKernel`.
package struct LinearTileKernel: Sendable, Hashable {
  /// How the work is cut.
  package struct Tiling: Sendable, Hashable {
    /// Invocations of a workgroup.
    package var threads: Int
    /// Rows of a lane, an even number.
    package var rows: Int
    /// Columns of a lane.
    package var columns: Int
    /// Lanes along columns; the others are along rows.
    package var columnLanes: Int

    package init(threads: Int, rows: Int, columns: Int, columnLanes: Int) {
      self.threads = threads
      self.rows = rows
      self.columns = columns
      self.columnLanes = columnLanes
    }

    package var tileRows: Int { threads / columnLanes * rows }
    package var tileColumns: Int { columnLanes * columns }

    /// Bytes of shared memory of a workgroup, whatever the product.
    package var largestBytes: Int {
      // Quads of a step, with one more that keeps banks apart; of bytes, the steps are as large with their scales.
      (tileRows + tileColumns) * 9 * 16 + 6 * tileRows * columnLanes + 4 * columnLanes + 16
    }

    /// Whether a device has room for its workgroups.
    package func fits(_ traits: DeviceTraits) -> Bool {
      threads.isMultiple(of: traits.subgroupSize) && threads <= traits.maxWorkgroupInvocations
        && largestBytes <= traits.sharedMemory
    }

    /// "tile 64x32, lane 4x4".
    package var text: String { "tile \(tileRows)x\(tileColumns), lane \(rows)x\(columns)" }
  }

  package let product: LinearKernel
  package let tiling: Tiling

  /// Whether products of so many columns go in tiles on a device: of fewer, `LinearKernel` reads each weight once for
  /// all of them.
  package static func takes(columnCount: Int, traits: DeviceTraits) -> Bool {
    traits.usesTiles && columnCount > 8
  }

  package init(_ product: LinearKernel, tiling: Tiling) {
    precondition(tiling.tileRows.isMultiple(of: product.rowMultiple))
    self.product = product
    self.tiling = tiling
  }

  /// The kernel for a dispatch of `columnCount` columns; nil where `LinearKernel` takes them.
  package init?(_ product: LinearKernel, columnCount: Int, traits: DeviceTraits) {
    guard Self.takes(columnCount: columnCount, traits: traits), !product.isNaive, !product.lanesAreRows,
      let tiling = Self.tiling(product, columnCount: columnCount, traits: traits)
    else { return nil }
    self.init(product, tiling: tiling)
  }

  /// What pays on some device, the largest first. A lane's sums, and what it multiplies of a step, must fit its
  /// registers: 8 by 8 is as much as pays.
  package static let tilings = [
    Tiling(threads: 128, rows: 8, columns: 8, columnLanes: 8),
    Tiling(threads: 128, rows: 4, columns: 8, columnLanes: 8),
    Tiling(threads: 128, rows: 4, columns: 4, columnLanes: 8),
    Tiling(threads: 128, rows: 4, columns: 4, columnLanes: 4),
    Tiling(threads: 64, rows: 4, columns: 4, columnLanes: 4),
  ]

  /// CPU drivers run them only when they are asked for: small, since they take long to compile.
  private static let onCPU = Tiling(threads: 64, rows: 4, columns: 2, columnLanes: 4)

  /// The largest tile that leaves enough workgroups to fill the device and has no more columns than there are; the
  /// smallest that there is room for, where none does.
  private static func tiling(_ product: LinearKernel, columnCount: Int, traits: DeviceTraits) -> Tiling? {
    let possible = (traits.isCPU ? [onCPU] : tilings).filter {
      $0.fits(traits) && $0.tileRows.isMultiple(of: product.rowMultiple)
    }
    return possible.first { tiling in
      guard tiling.tileColumns < 2 * columnCount else { return false }
      let rowTiles = (product.matrix.rows + tiling.tileRows - 1) / tiling.tileRows
      let columnTiles = (columnCount + tiling.tileColumns - 1) / tiling.tileColumns
      return rowTiles * columnTiles * tiling.threads / traits.subgroupSize >= traits.wantedSubgroups / 4
    } ?? possible.last { $0.tileColumns < 2 * columnCount } ?? possible.last
  }

  /// What is left in the scratch, to be finished by another dispatch behind it.
  private var epilogue: LinearKernel.Epilogue {
    product.epilogue == .residualNorm ? .partial : product.epilogue
  }
  private var next: ProductForm { epilogue == product.epilogue ? product.next : .none }

  /// The shader's name in the library.
  package var shaderName: String {
    (product.inputs == .bytes ? "linear_tiles_bytes." : "linear_tiles.") + product.matrix.format.type.name
  }

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [
      UInt32(tiling.threads), UInt32(tiling.threads / traits.subgroupSize), 1, UInt32(tiling.rows),
      UInt32(tiling.columnLanes), 1, epilogue.rawValue, product.hasNorm ? 1 : 0, product.hasBias ? 1 : 0,
      product.gathersOutputs ? 1 : 0, product.activation.constant,
      next.rawValue, 0, 0, UInt32(tiling.columns),
    ]
  }

  /// Workgroups along rows: as many parts are left of each row's sum of squares.
  package var rowGroups: Int { (product.matrix.rows + tiling.tileRows - 1) / tiling.tileRows }

  /// Records the product. `push.weights`, `columns`, `rows` and `row_offset` are filled in here.
  package func record(
    _ commands: CommandBuffer, push: LinearPush, columnCount: Int, cache: KernelCache
  ) throws {
    try cache.dispatch(
      commands, shaderName, specialization(cache.traits), product.withMatrix(push),
      groups: ((columnCount + tiling.tileColumns - 1) / tiling.tileColumns, rowGroups, 1))
  }
}

extension PlanRecorder {
  /// What products in tiles leave to be done: norms over whole heads or rows.
  ///
  /// - Parameter epilogue: that of the stage's products.
  func finishTiles(
    _ epilogue: LinearKernel.Epilogue, index: Int, _ commands: CommandBuffer, shape: PlanShape, slot: StepSlot
  ) throws {
    switch (epilogue, model.stages[index]) {
    case (.queryKeyValueNorm, _):
      commands.dispatchBarrier()
      try recordHeadNorm(index: index, commands, shape: shape, slot: slot)
    case (.residualNorm, .residualProjection(let weights)):
      commands.dispatchBarrier()
      var push = combinePush(index: index, slot: slot)
      push.parts = workspace.address(.scratch)
      push.part_stride = UInt32(workspace.scratchStride)
      push.post_norm = weights.postNorm
      push.epsilon = weights.stage.postNorm?.epsilon ?? 0
      try CombineKernel(
        addsResidual: true, hasPostNorm: true, next: nextForm(after: index), rankCount: 1
      ).record(
        commands, push: push, rowCount: shape.rows, cache: cache)
    default:
      break
    }
  }

  /// Norms of query and key heads, whose products are in the scratch; those must be visible.
  func recordHeadNorm(index: Int, _ commands: CommandBuffer, shape: PlanShape, slot: StepSlot) throws {
    var push = HeadNormPush()
    push.outputs = workspace.address(.queries)
    push.output_stride = UInt32(workspace.queryStride)
    push.step = slot.stepAddress
    push.extras = extras.address + UInt64(index * MemoryLayout<LinearExtrasData>.stride)
    try HeadNormKernel().record(commands, push: push, rowCount: shape.rows, cache: cache)
  }
}
