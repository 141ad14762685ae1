import Transformer

/// Where in shared memory the devices of a mesh leave things for one another; offsets in bytes.
///
/// A home has what its devices read: the last token of each sequence, the counts of all devices, and of the stages whose
/// devices it is the home of, parts and what arrives from the stage before.
package struct MeshLayout: Sendable {
  package let mesh: MeshShape
  package let homes: MeshHomes
  /// Floats between rows of activations.
  package let rowStride: Int
  /// Floats between the logits of two outputs of one rank.
  package let logitsStride: Int
  /// The tokens whose logits each rank computes.
  package let vocabularies: [Range<Int>]
  /// Quads of 16 bytes of the last tokens of all sequences, which come first.
  let tokenQuads: Int
  package let slotCount: Int

  let boardOffset: Int
  private var areas: [Area] = []
  /// What a rank leaves at most.
  private let rankBytes: Int
  /// What the parts of all-reduces after a step's first one take in turn.
  private let ringBytes: Int
  private let logitsRankBytes: Int

  /// Of one home, with a place for each stage that it is a home of.
  private struct Area: Sendable {
    var parts: [Int: Int] = [:]
    var links: [Int: Int] = [:]
    var logits = 0
    var byteCount = 0
  }

  /// The parts of one all-reduce.
  package struct Region: Sendable, Hashable {
    /// Behind where the parts of its stage begin.
    var offset: Int
    /// From rank to rank.
    package var rankBytes: Int
    /// Whether the step has used that memory before.
    package var isUsedAgain: Bool
  }

  /// Where devices may find what they read last, as many bytes let most steps use each region once.
  package static let usualRingBytes = 64 << 20

  /// - Parameters:
  ///   - programs: those of the devices, in their order.
  ///   - slotCount: steps that may be in flight.
  ///   - ringBytes: what the parts of all-reduces take where devices may find what they read last, unless two want
  ///     more.
  package init(
    programs: [Program], homes: MeshHomes, limits: StepLimits, slotCount: Int,
    ringBytes usualBytes: Int = usualRingBytes
  ) {
    let mesh = programs[0].share.mesh
    self.mesh = mesh
    self.homes = homes
    rowStride = activationStride(programs[0].width)
    vocabularies = programs.suffix(mesh.tensor).map(\.share.vocabulary)
    logitsStride = ((vocabularies.map(\.count).max() ?? 0) + 63) / 64 * 64
    self.slotCount = slotCount
    let rankBytes = 4 * limits.rows * rowStride
    self.rankBytes = rankBytes
    let most =
      programs.map { $0.stages.count { if case .collective = $0 { true } else { false } } }.max() ?? 0
    let stageBytes = mesh.tensor * rankBytes
    let ringBytes =
      homes.readsLast
      ? max(2 * stageBytes, min(usualBytes, most * stageBytes)) : 2 * stageBytes
    self.ringBytes = ringBytes
    logitsRankBytes = 4 * limits.outputs * logitsStride
    tokenQuads = (limits.sequences + 3) / 4
    boardOffset = (16 * tokenQuads + 255) / 256 * 256
    let start =
      boardOffset + (MeshSignals.boardBytes(deviceCount: mesh.deviceCount, homes: homes) + 255) / 256 * 256
    areas = (0..<homes.count).map { home in
      var area = Area(byteCount: start)
      for stage in 0..<mesh.pipeline where homes.homes(of: mesh.ranks(ofStage: stage)).contains(home) {
        area.parts[stage] = area.byteCount
        if mesh.tensor > 1 { area.byteCount += stageBytes + ringBytes }
        area.links[stage] = area.byteCount
        if stage > 0 { area.byteCount += slotCount * rankBytes }
      }
      area.logits = area.byteCount
      if mesh.tensor > 1, home == homes.of[mesh.sampler] { area.byteCount += mesh.tensor * logitsRankBytes }
      return area
    }
  }

  /// Bytes of a home.
  package func byteCount(home: Int) -> Int { areas[home].byteCount }

  /// Bytes that a device gives to its mesh, of its own memory.
  package func ownedBytes(device: Int) -> Int {
    let home = homes.of[device]
    return homes.memory == .device && homes.owner(home) == device ? byteCount(home: home) : 0
  }

  /// Where the parts of a step's all-reduces lie.
  ///
  /// A rank that has passed an all-reduce knows that all have read what they wanted of the one before, whose memory it
  /// may write to. Those of a step go round a ring, which has room for two at least, or take turns in two places, the
  /// same for all steps; the first has memory of its own, since the last of the step before may have been anywhere.
  func region(ofReduce index: Int, rows: Int) -> Region {
    let bytes = homes.readsLast ? 4 * rows * rowStride : rankBytes
    let count = max(2, ringBytes / (mesh.tensor * bytes))
    let turn = (index - 1) % count
    return Region(
      offset: index == 0 ? 0 : mesh.tensor * (rankBytes + turn * bytes), rankBytes: bytes,
      isUsedAgain: index > 1 && turn == 0)
  }

  /// What rank `rank` of a stage leaves for an all-reduce, in one of the homes of the stage.
  func parts(home: Int, stage: Int, _ region: Region, rank: Int) -> Int {
    areas[home].parts[stage]! + region.offset + rank * region.rankBytes
  }

  /// The residual stream that arrives at a stage in a step, in one of its homes.
  func link(home: Int, into stage: Int, slot: Int) -> Int { areas[home].links[stage]! + slot * rankBytes }

  /// In the home of the device that draws tokens.
  func logits(rank: Int) -> Int { areas[homes.of[mesh.sampler]].logits + rank * logitsRankBytes }
}

extension MeshShape {
  /// The devices of a stage.
  package func ranks(ofStage stage: Int) -> Range<Int> { stage * tensor..<(stage + 1) * tensor }

  /// The device that gathers logits and draws tokens.
  package var sampler: Int { (pipeline - 1) * tensor }
}
