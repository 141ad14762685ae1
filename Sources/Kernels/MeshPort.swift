import Transformer
import VulkanRuntime

/// One device's view of what its mesh shares.
package final class MeshPort: Sendable {
  package let layout: MeshLayout
  /// The memory of each home.
  let memory: [Buffer]
  /// The home that this device reads.
  let home: Int

  /// What the device waits for others by; nil where semaphores are what it waits for.
  package let signals: MeshSignals?

  /// - Parameters:
  ///   - memory: that of each home, as all devices see it.
  ///   - index: the device's place in the mesh.
  package init(layout: MeshLayout, memory: [SharedMemory], device: Device, index: Int, path: MeshPath) throws
  {
    self.layout = layout
    self.memory = memory.map { $0.views[index] }
    home = layout.homes.of[index]
    signals =
      path == .flags
      ? try MeshSignals(
        device: device, homes: layout.homes,
        boards: self.memory.map { $0.address + UInt64(layout.boardOffset) }, own: index,
        ranks: layout.mesh.ranks(ofStage: index / layout.mesh.tensor), slotCount: layout.slotCount) : nil
  }

  /// The last token of each sequence, in a home.
  func tokens(home: Int) -> UInt64 { memory[home].address }

  func address(_ offset: Int, home: Int) -> UInt64 { memory[home].address + UInt64(offset) }
}

/// What a part of a device's step waits for.
package enum MeshWait: Sendable, Hashable {
  /// The other ranks of the stage have done so many parts of theirs.
  case ranks(parts: Int)
  /// Rank 0 of the stage before has done all of the step.
  case previousStage
}
