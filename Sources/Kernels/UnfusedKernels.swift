import CShaderInterface
import Transformer
import VulkanRuntime

/// A norm by itself (Shaders/unfused/norm.comp).
package struct NormKernel: Sendable, Hashable {
  /// Whether vectors are heads, with a weight in plain order that all share.
  package var ofHeads: Bool

  package init(ofHeads: Bool) {
    self.ofHeads = ofHeads
  }

  /// The shader's specialization constants, for vectors of `width`.
  package func specialization(width: Int, traits: DeviceTraits) -> [UInt32] {
    let threads = traits.invocations(traits.isCPU ? traits.subgroupSize : min(256, width))
    return [UInt32(threads), ofHeads ? 1 : 0]
  }

  /// Records it for `rowCount` tokens of `count` vectors each. Every field of `push` is the caller's.
  package func record(
    _ commands: CommandBuffer, push: OperationPush, count: Int = 1, rowCount: Int, cache: KernelCache
  ) throws {
    try cache.dispatch(
      commands, "norm", specialization(width: Int(push.width), traits: cache.traits), push,
      groups: (rowCount, count, 1))
  }
}

/// An operation on every element of a vector (Shaders/unfused/elementwise.comp).
package struct ElementwiseKernel: Sendable, Hashable {
  package enum Operation: UInt32, Sendable, Hashable, CaseIterable {
    case add = 0
    case multiply = 1
    case bias = 2
    case activate = 3
    case softcap = 4
  }

  package var operation: Operation
  package var activation: Activation

  package init(_ operation: Operation, activation: Activation = .silu) {
    self.operation = operation
    self.activation = activation
  }

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [
      UInt32(traits.invocations(traits.isCPU ? 64 : 256)), operation.rawValue,
      activation.constant,
    ]
  }

  /// Records it for `rowCount` tokens. Every field of `push` that the operation uses is the caller's.
  package func record(
    _ commands: CommandBuffer, push: OperationPush, rowCount: Int, cache: KernelCache
  ) throws {
    let constants = specialization(cache.traits)
    let threads = Int(constants[0])
    try cache.dispatch(
      commands, "elementwise", constants, push,
      groups: ((Int(push.width) + threads - 1) / threads, rowCount, 1))
  }
}

/// Rope, and the copy of heads to where attention reads them (Shaders/unfused/heads.comp).
package struct HeadsKernel: Sendable, Hashable {
  package var rotates: Bool
  package var stores: Bool

  package init(rotates: Bool, stores: Bool) {
    self.rotates = rotates
    self.stores = stores
  }

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [UInt32(traits.invocations(traits.isCPU ? 64 : 256)), rotates ? 1 : 0, stores ? 1 : 0]
  }

  /// Records it for `rowCount` tokens. Every field of `push` is the caller's.
  package func record(
    _ commands: CommandBuffer, push: HeadsPush, headSize: Int, rowCount: Int, cache: KernelCache
  ) throws {
    let constants = specialization(cache.traits)
    let threads = Int(constants[0])
    let pairs = Int(push.head_count) * headSize / 2
    try cache.dispatch(
      commands, "heads", constants, push, groups: ((pairs + threads - 1) / threads, rowCount, 1))
  }
}

/// Inputs of products in blocks of bytes (Shaders/unfused/quantise.comp).
package struct QuantiseKernel: Sendable, Hashable {
  package init() {}

  /// The shader's specialization constants.
  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [UInt32(traits.invocations(traits.isCPU ? traits.subgroupSize : 256))]
  }

  /// Records it for `rowCount` tokens. Every field of `push` is the caller's.
  package func record(
    _ commands: CommandBuffer, push: QuantisePush, rowCount: Int, cache: KernelCache
  ) throws {
    let constants = specialization(cache.traits)
    let subgroups = Int(constants[0]) / cache.traits.subgroupSize
    try cache.dispatch(
      commands, "quantise", constants, push,
      groups: ((Int(push.blocks) + subgroups - 1) / subgroups, rowCount, 1))
  }
}
