import CShaderInterface
import Transformer
import VulkanRuntime

/// Attention of single tokens over the paged KV cache (Shaders/attention/attention_decode.comp).
package struct AttentionDecodeKernel: Sendable, Hashable {
  package var heads: HeadLayout
  /// Query heads of one kv head that a workgroup takes.
  package var group: Int
  /// Workgroups that may share the positions of one token.
  package var splits: Int
  package var subgroups: Int
  /// How the octets of keys and values are dealt out among lanes.
  package var lanes: Lanes
  /// Rounds of a split before there is another one, which has to be joined.
  package var leastRounds: Int
  /// Whether the step has but one token: with several, one may attend to another, whose keys the stage before has yet
  /// to write.
  package var isAlone: Bool
  /// How the output projection wants its inputs.
  package var next: ProductForm

  /// What a lane does in a round.
  package struct Lanes: Sendable, Hashable {
    /// Lanes that share the keys of a position.
    package var keyLanes = 1
    /// Key octets whose loads are under way at once.
    package var batch = 2
    /// Value octets, likewise.
    package var valueBatch = 4
    /// Whether a round's loads start in the round before.
    package var isAhead = false

    init(batch: Int) { self.batch = batch }

    /// All that a lane has of a round at once; nil where octets cannot be dealt out evenly, or registers would not do.
    ///
    /// - Parameters:
    ///   - isSingle: whether a single token has the device for itself, so that latency counts more than what a round
    ///     costs.
    ///   - isAhead: whether loads start a round ahead, where two rounds' are to be held.
    package init?(_ heads: HeadLayout, group: Int, isSingle: Bool, isAhead: Bool, subgroupSize: Int) {
      let octets = heads.headSize / 8
      guard octets & (octets - 1) == 0, octets >= 8, octets <= subgroupSize, group <= 4 else { return nil }
      // Four octets of a lane leave registers for two rounds of them.
      keyLanes = isAhead ? octets / 4 : max(octets / 8, isSingle ? 2 : 1)
      batch = octets / keyLanes
      valueBatch = batch
      self.isAhead = isAhead
    }
  }

  /// Positions from which on a step counts as deep.
  package static let deepContext = 1024

  /// Nil where a device cannot run it: attention.comp does.
  ///
  /// - Parameters:
  ///   - tokenCount: tokens of the step.
  ///   - isDeep: whether any has more than `deepContext` positions before it.
  ///   - isChained: whether it runs in a chain of stages without barriers.
  package init?(
    heads: HeadLayout, tokenCount: Int, isDeep: Bool, isChained: Bool = false, next: ProductForm = .floats,
    traits: DeviceTraits
  ) {
    guard traits.canShuffle, !traits.isCPU else { return nil }
    self.init(
      heads: heads, tokenCount: tokenCount, isDeep: isDeep, isChained: isChained, next: next,
      anyDevice: traits)
  }

  /// The same where it runs but is not the fastest, for tests.
  package init(
    heads: HeadLayout, tokenCount: Int, isDeep: Bool, isChained: Bool = false, next: ProductForm,
    anyDevice traits: DeviceTraits
  ) {
    self.heads = heads
    self.next = next
    isAlone = tokenCount == 1
    let headsPerKV = heads.headCount / heads.kvHeadCount
    // Query heads share what is read of the cache, which matters where that is much; else each gets a workgroup.
    group = isDeep || tokenCount * heads.headCount > 256 ? min(headsPerKV, 8) : 1
    let isSingle = isDeep && isAlone
    // Behind a barrier, loads a round ahead cost an H200 more than they gain.
    let even = Lanes(
      heads, group: group, isSingle: isSingle, isAhead: isSingle && isChained,
      subgroupSize: traits.subgroupSize)
    lanes = even ?? Lanes(batch: heads.headSize % 64 == 0 && group <= 4 ? 8 : 2)
    // As many invocations as can have the registers that they need; half of them where there is little to do. Of
    // subgroups of 64 a workgroup of 512 leaves AMD's compiler three registers short.
    let isLarge = isDeep && even != nil && traits.subgroupSize <= 32
    let invocations = min(isLarge ? 512 : 256, traits.maxWorkgroupInvocations)
    subgroups = max(1, min(isDeep ? 16 : 8, invocations / traits.subgroupSize))
    (splits, leastRounds) = (1, 1)
    // Sums and running softmaxes live in registers and meet in shared memory.
    while sharedBytes > min(traits.sharedMemory, 48 << 10), subgroups > 4 { subgroups /= 2 }
    while sharedBytes > traits.sharedMemory, group > 1 { group = (group + 1) / 2 }
    while sharedBytes > traits.sharedMemory, subgroups > 1 { subgroups /= 2 }
    let wanted = max(1, traits.wantedSubgroups / 2 / subgroups)
    splits = max(1, min(isDeep ? 32 : 4, wanted / (tokenCount * headGroups)))
    // Few positions are spread over the device where it is empty otherwise.
    leastRounds = isDeep ? max(1, subgroups / 4) : subgroups
  }

  private var sharedBytes: Int {
    4 * group * (heads.headSize + max(subgroups * heads.headSize, 64) + 2 * subgroups) + 4
  }

  /// Workgroups along y: every kv head, and every group of its query heads.
  package var headGroups: Int { heads.groupCount(of: group) }

  /// Floats that splits of `tokenCount` tokens leave for the last workgroup.
  package func partialCount(tokenCount: Int) -> Int {
    splits == 1 ? 0 : tokenCount * heads.headCount * splits * (heads.headSize + 2)
  }

  package func specialization(_ traits: DeviceTraits, isChained: Bool = false) -> [UInt32] {
    let octets = heads.headSize / 8
    let isPower = octets & (octets - 1) == 0
    return [
      UInt32(subgroups * traits.subgroupSize), UInt32(subgroups), UInt32(traits.subgroupSize),
      UInt32(heads.headSize), UInt32(group), UInt32(splits), next.rawValue,
      UInt32(isPower && octets <= traits.subgroupSize ? traits.subgroupSize / octets : 1),
      UInt32(lanes.batch), UInt32(lanes.valueBatch),
      isChained ? 1 : 0, heads.cacheType.constant, UInt32(lanes.keyLanes), UInt32(leastRounds),
      lanes.isAhead ? 1 : 0, isAlone ? 1 : 0,
    ]
  }

  package func record(
    _ commands: CommandBuffer, push: AttentionPush, tokenCount: Int, cache: KernelCache,
    chain: StageChain? = nil
  ) throws {
    var push = push
    push.chain = chain?.address ?? 0
    let groups = (tokenCount, headGroups, splits)
    chain?.add(groups)
    try cache.dispatch(
      commands, "attention_decode", specialization(cache.traits, isChained: chain != nil), push,
      groups: groups)
  }
}
