import CShaderInterface
import VulkanRuntime

/// Adds up what ranks have left in shared memory, with the residual stream and norms (Shaders/mesh/combine.comp).
package struct CombineKernel: Sendable, Hashable {
  package var addsResidual: Bool
  package var hasPostNorm: Bool
  package var next: ProductForm
  /// Parts that are added up.
  package var rankCount: Int
  /// How it waits for the other ranks itself, at `push.meeting`; nil where they have been waited for.
  package var meeting: ExchangeKernel?

  package init(
    addsResidual: Bool, hasPostNorm: Bool, next: ProductForm, rankCount: Int, meeting: ExchangeKernel? = nil
  ) {
    self.addsResidual = addsResidual
    self.hasPostNorm = hasPostNorm
    self.next = next
    self.rankCount = rankCount
    self.meeting = meeting
  }

  /// Whether so many workgroups may wait at a time: on a GPU that another rank shares there must be room for its stages,
  /// and on a CPU driver each keeps others from running.
  package static func mayMeet(_ workgroups: Int, traits: DeviceTraits) -> Bool {
    !traits.isCPU && workgroups <= min(32, traits.wantedSubgroups / 128)
  }

  /// Registers of an invocation that parts may take.
  private static let mostPartRegisters = 64

  /// Workgroups that share a row, each of which leaves its part of the sum of squares.
  package func slices(width: Int) -> Int { hasPostNorm ? 1 : activationStride(width) / 1024 }

  package func specialization(width: Int, traits: DeviceTraits) -> [UInt32] {
    let quads = activationStride(width) / 4 / slices(width: width)
    let threads = traits.invocations(traits.isCPU ? traits.subgroupSize : min(512, quads))
    // What invocations hold whole is read once, and at once.
    let most = traits.isCPU ? 1 : max(1, Self.mostPartRegisters / 4 / rankCount)
    return [
      UInt32(threads), next.rawValue, addsResidual ? 1 : 0, hasPostNorm ? 1 : 0, UInt32(rankCount),
      UInt32(min(most, (quads + threads - 1) / threads)), meeting == nil ? 0 : 1,
    ] + (meeting ?? ExchangeKernel(readsLast: false)).waitConstants(traits)
  }

  /// Records it for `rowCount` rows. Every field of `push` that the kernel uses is the caller's.
  ///
  /// - Parameter rank: whose part is at `push.own`; nil where all are at `push.parts`.
  package func record(
    _ commands: CommandBuffer, push: CombinePush, rank: Int? = nil, rowCount: Int, cache: KernelCache
  ) throws {
    var push = push
    push.rank = rank.map(UInt32.init) ?? .max
    let width = Int(push.width)
    try cache.dispatch(
      commands, "combine", specialization(width: width, traits: cache.traits), push,
      groups: (rowCount, slices(width: width), 1))
  }
}

/// Copies the rows of a step between arrays (Shaders/mesh/rows.comp).
package struct RowsKernel: Sendable, Hashable {
  /// Whether there is a row for each of the step's outputs, not for all its rows.
  package var takesOutputs: Bool

  package init(takesOutputs: Bool) {
    self.takesOutputs = takesOutputs
  }

  package func record(
    _ commands: CommandBuffer, push: RowsPush, rowCount: Int, cache: KernelCache
  ) throws {
    let threads = cache.traits.invocations(cache.traits.isCPU ? cache.traits.subgroupSize : 256)
    try cache.dispatch(
      commands, "rows", [UInt32(threads), takesOutputs ? 1 : 0], push,
      groups: ((Int(push.quads) + threads - 1) / threads, rowCount, 1))
  }
}

/// Tells other devices how far this one is and waits for them (Shaders/mesh/exchange.comp).
package struct ExchangeKernel: Sendable, Hashable {
  /// Places for the counts of a device. The last one is for those that end steps.
  package var slots: Int
  /// In which a count is left.
  package var lines: Int
  /// In which one that ends a step is left.
  package var endLines: Int

  /// Looks that find what is there, with pauses that grow to seconds: as many as last while a GPU waits at most.
  private static let lines = 110
  /// The same for what is waited for as long as stages of a pipeline take: pauses grow less from look to look.
  private static let endLines = 420

  /// - Parameter readsLast: whether devices may find what they read last (`MeshHomes`): each count of a submission has
  ///   a slot of its own then, and the ends of steps have one, of so many lines that every look takes another.
  package init(readsLast: Bool) {
    slots = readsLast ? MeshSignals.meetingsPerSubmission + 1 : 1
    lines = readsLast ? Self.lines : 1
    endLines = readsLast ? Self.endLines : 1
  }

  /// Bytes of the counts of a device.
  package var boardBytes: Int { ((slots - 1) * lines + endLines) * 4 * Int(FLAG_WORDS) }

  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [UInt32(traits.invocations(32))] + waitConstants(traits)
  }

  /// What every shader that waits for other devices is told: see Shaders/mesh/meeting.glsl. The host, which has a clock,
  /// ends waits long before its patience is over: that is for a host that hangs, too.
  func waitConstants(_ traits: DeviceTraits) -> [UInt32] {
    [traits.isCPU ? 1 << 31 : 1 << 27, UInt32(slots), UInt32(lines), UInt32(endLines)]
  }

  package func record(
    _ commands: CommandBuffer, push: ExchangePush, cache: KernelCache
  ) throws {
    try cache.dispatch(
      commands, "exchange", specialization(cache.traits), push, groups: (1, 1, 1))
  }
}

/// Adds up or copies what devices have left in shared memory (Shaders/mesh/sum.comp).
package struct SumKernel: Sendable, Hashable {
  /// Workgroups at most. For memory behind a link few keep it busy, and leave room for another dispatch whose data goes
  /// the other way at the same time.
  private let mostGroups: Int
  private static let mostGroupsOnLink = 128

  /// - Parameter isOnLink: whether it reads or writes memory behind a link.
  package init(isOnLink: Bool = false) {
    mostGroups = isOnLink ? Self.mostGroupsOnLink : 2048
  }

  package func specialization(_ traits: DeviceTraits) -> [UInt32] {
    [UInt32(traits.invocations(traits.isCPU ? traits.subgroupSize : 256))]
  }

  package func record(
    _ commands: CommandBuffer, push: SumPush, cache: KernelCache
  ) throws {
    guard push.quads > 0 else { return }
    let threads = Int(specialization(cache.traits)[0])
    let groups = min((Int(push.quads) + threads - 1) / threads, cache.traits.isCPU ? 64 : mostGroups)
    try cache.dispatch(
      commands, "sum", specialization(cache.traits), push, groups: (groups, 1, 1))
  }
}
