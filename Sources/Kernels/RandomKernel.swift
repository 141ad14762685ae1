import CShaderInterface
import ModelFiles
import VulkanRuntime

/// Random blocks, made on the device in the layout of a file (Shaders/random/random.comp).
package struct RandomKernel: Sendable, Hashable {
  package var recipe: RandomRecipe

  package init(recipe: RandomRecipe) {
    self.recipe = recipe
  }

  /// Where a block has no such place.
  private static let none = UInt32.max

  package func pipeline(cache: KernelCache) throws -> Pipeline {
    try cache.pipeline(
      "random", specialization: Self.specialization(recipe.type, traits: cache.traits),
      pushConstantBytes: MemoryLayout<RandomPush>.size, subgroupSize: cache.traits.subgroupSize)
  }

  /// The specialization constants for blocks of `type`.
  package static func specialization(_ type: TensorType, traits: DeviceTraits) -> [UInt32] {
    let scales = RandomScales(of: type)
    let kind: UInt32 =
      switch type {
      case .f32: 0
      case .f16: 1
      case .bf16: 2
      default: 3
      }
    func place(_ offset: Int?) -> UInt32 { offset.map { UInt32($0) } ?? none }
    func start(_ range: Range<Int>) -> UInt32 { range.isEmpty ? none : UInt32(range.lowerBound) }
    return [
      UInt32(traits.invocations(traits.isCPU ? 64 : 256)), kind, UInt32(type.blockBytes), place(scales.scale),
      place(scales.minimum?.offset), scales.isSigned ? 1 : 0, start(scales.copied), start(scales.doubled),
      UInt32(scales.doubled.upperBound), scales.hasExponent ? 1 : 0,
    ]
  }

  /// Records the making of `byteCount` bytes (rounded up to whole words) at `destination`, a multiple of 4.
  ///
  /// - Parameter firstBlock: the number of the first block there, so that a tensor may be made in pieces.
  package func record(
    _ commands: CommandBuffer, destination: UInt64, byteCount: Int, firstBlock: Int, cache: KernelCache
  ) throws {
    let pipeline = try pipeline(cache: cache)
    var push = RandomPush()
    push.destination = destination
    push.word_count = UInt32((byteCount + 3) / 4)
    push.first_block = UInt32(truncatingIfNeeded: firstBlock)
    push.seed = recipe.seed
    push.center = recipe.center
    push.width = recipe.width
    push.minimum_ratio = RandomScales(of: recipe.type).minimum?.ratio ?? 0
    push.exponent = recipe.exponent
    let groups = (Int(push.word_count) + pipeline.workgroupSize.x - 1) / pipeline.workgroupSize.x
    commands.dispatch(pipeline, pushConstants: push, groups: (min(max(groups, 1), 65535), 1, 1))
  }
}
