import CShaderInterface
import VulkanRuntime

/// Blocks as a file holds them into the planes of a matrix (Shaders/layout/repack.comp).
package struct RepackKernel: Sendable, Hashable {
  package var matrix: DeviceMatrix

  package init(matrix: DeviceMatrix) {
    self.matrix = matrix
  }

  /// Records the unpacking of `push.row_count` rows. The planes, `blocks_per_row` and `row_interleave` are
  /// filled in here.
  package func record(
    _ commands: CommandBuffer, push: RepackPush, cache: KernelCache
  ) throws {
    let blocksPerRow = matrix.columns / matrix.format.repackBlock
    let planes = matrix.push
    var push = push
    push.plane0 = planes.plane0
    push.plane1 = planes.plane1
    push.plane2 = planes.plane2
    push.plane3 = planes.plane3
    push.blocks_per_row = UInt32(blocksPerRow)
    push.row_interleave = UInt32(matrix.format.rowInterleave)
    let threads = cache.traits.invocations(64)
    try cache.dispatch(
      commands, "repack.\(matrix.format.type.name)", [UInt32(threads)], push,
      groups: ((blocksPerRow + threads - 1) / threads, Int(push.row_count), 1))
  }
}
