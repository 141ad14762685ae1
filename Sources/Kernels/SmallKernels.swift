import CShaderInterface
import VulkanRuntime

/// Rows of the embedding table into the residual stream (Shaders/embed/embed.comp).
package struct EmbedKernel: Sendable, Hashable {
  package var table: DeviceMatrix
  package var scale: Float
  package var next: ProductForm
  /// The token of the table's first row; those that are not in the table become 0.
  package var firstToken: Int

  package init(table: DeviceMatrix, scale: Float, next: ProductForm, firstToken: Int = 0) {
    self.table = table
    self.scale = scale
    self.firstToken = firstToken
    self.next = next
  }

  /// Parts of the sum of squares that it leaves of each row.
  package var squareCount: Int { table.columns / 32 }

  /// Records the look-up of `rowCount` tokens. `push.weights`, `columns`, `scale`, `vocabulary` and
  /// `row_interleave` and `first_token` are filled in.
  package func record(
    _ commands: CommandBuffer, push: EmbedPush, rowCount: Int, cache: KernelCache
  ) throws {
    var push = push
    push.weights = table.push
    push.columns = UInt32(table.columns)
    push.scale = scale
    push.vocabulary = UInt32(table.rows)
    push.row_interleave = UInt32(table.format.rowInterleave)
    push.first_token = UInt32(firstToken)
    let threads = cache.traits.invocations(32)
    try cache.dispatch(
      commands, "embed.\(table.format.type.name)", [UInt32(threads), next.rawValue], push,
      groups: ((table.columns / 32 + threads - 1) / threads, rowCount, 1))
  }
}

/// What is done with a step's logits.
package enum OutputKernel: String, Sendable, Hashable {
  /// A token is chosen for each output (Shaders/sampling/sample.comp).
  case sample
  /// The log-probability of a given token (Shaders/sampling/score.comp).
  case score

  package func record(
    _ commands: CommandBuffer, push: SamplePush, outputCount: Int, cache: KernelCache
  ) throws {
    let threads = cache.traits.invocations(cache.traits.isCPU ? 32 : 1024)
    try cache.dispatch(
      commands, rawValue, [UInt32(threads), UInt32(threads / cache.traits.subgroupSize)], push,
      groups: (outputCount, 1, 1))
  }
}
