import Transformer
import VulkanRuntime

/// Where in shared memory the devices of a mesh leave things for one another; offsets in bytes.
package struct MeshLayout: Sendable {
  package let mesh: MeshShape
  /// Floats between rows of activations, and between ranks.
  package let rowStride: Int
  package let rankStride: Int
  /// Floats between the logits of two outputs of one rank.
  package let logitsStride: Int
  /// The tokens whose logits each rank computes.
  package let vocabularies: [Range<Int>]
  package let byteCount: Int

  fileprivate let boardOffset: Int
  private let partsOffset: Int
  private let linksOffset: Int
  private let logitsOffset: Int
  private let rankBytes: Int
  private let logitsRankBytes: Int
  fileprivate let slotCount: Int

  /// Three regions for parts in each stage. A rank that has passed an all-reduce knows that all have read what they
  /// wanted of the one before, so two would do for those of layers, which are an even number; embeddings have the third.
  private static let regions = 3
  package static let embeddingRegion = 2

  /// - Parameters:
  ///   - programs: those of the devices, in their order.
  ///   - slotCount: steps that may be in flight.
  package init(programs: [Program], limits: StepLimits, slotCount: Int) {
    mesh = programs[0].share.mesh
    rowStride = activationStride(programs[0].width)
    rankStride = limits.rows * rowStride
    vocabularies = programs.prefix(mesh.tensor).map(\.share.vocabulary)
    logitsStride = ((vocabularies.map(\.count).max() ?? 0) + 63) / 64 * 64
    self.slotCount = slotCount
    rankBytes = 4 * rankStride
    logitsRankBytes = 4 * limits.outputs * logitsStride
    // Tokens come first, then the counts of devices.
    boardOffset = (4 * limits.sequences + 255) / 256 * 256
    partsOffset = boardOffset + (MeshBoard.byteCount(deviceCount: mesh.deviceCount) + 255) / 256 * 256
    linksOffset = partsOffset + (mesh.tensor > 1 ? mesh.pipeline * Self.regions * mesh.tensor * rankBytes : 0)
    logitsOffset = linksOffset + (mesh.pipeline - 1) * slotCount * rankBytes
    byteCount = logitsOffset + (mesh.tensor > 1 ? mesh.tensor * logitsRankBytes : 0)
  }

  /// The devices' counts in their memory.
  package func board(in memory: HostMemory) -> MeshBoard {
    MeshBoard(memory: memory, offset: boardOffset, deviceCount: mesh.deviceCount)
  }

  /// What rank `rank` of a stage leaves for an all-reduce.
  func parts(stage: Int, region: Int, rank: Int) -> Int {
    partsOffset + ((stage * Self.regions + region) * mesh.tensor + rank) * rankBytes
  }

  /// The residual stream that arrives at a stage in a step.
  func link(into stage: Int, slot: Int) -> Int { linksOffset + ((stage - 1) * slotCount + slot) * rankBytes }

  func logits(rank: Int) -> Int { logitsOffset + rank * logitsRankBytes }
}

/// One device's view of what its mesh shares.
package final class MeshPort: Sendable {
  package let layout: MeshLayout
  package let memory: Buffer

  /// What the device waits for others by; nil where host threads move semaphores.
  package let signals: MeshSignals?

  /// - Parameter index: the device's place in the mesh.
  package init(layout: MeshLayout, memory: HostMemory, device: Device, index: Int, path: MeshPath) throws {
    self.layout = layout
    self.memory = try device.makeBuffer(importing: memory, label: "memory that devices share")
    signals =
      path == .flags
      ? try MeshSignals(
        device: device, flags: self.memory.address + UInt64(layout.boardOffset), own: index,
        deviceCount: layout.mesh.deviceCount, slotCount: layout.slotCount) : nil
  }

  /// The last token of each sequence.
  var tokens: UInt64 { memory.address }

  func address(_ offset: Int) -> UInt64 { memory.address + UInt64(offset) }
}

/// What a part of a device's step waits for.
package enum MeshWait: Sendable, Hashable {
  /// The other ranks of the stage have done so many parts of theirs.
  case ranks(parts: Int)
  /// Rank 0 of the stage before has done all of the step.
  case previousStage
}
