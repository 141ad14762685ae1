import CShaderInterface
import VulkanRuntime

/// The links between stages that run without barriers between them (Shaders/common/chain.glsl): how many workgroups of
/// each stage are done, and how many there are.
///
/// One for every recording, since each has workgroups of its own; it may be in flight once at a time.
package final class StageChain {
  private let links: Buffer
  private let capacity: Int
  private var stage = 0
  private var groups = 0

  private static let linkBytes = Int(CHAIN_LINK_WORDS) * 4

  /// For up to `stageCount` stages; nil where the device has no memory of its own that the host can write.
  package init?(device: Device, stageCount: Int) throws {
    capacity = stageCount
    links = try device.makeBuffer(
      byteCount: (stageCount + 1) * Self.linkBytes, memory: .mappedDevice, label: "chain of stages")
    guard links.isDeviceLocal, let words = links.contents else { return nil }
    words.initializeMemory(as: UInt8.self, repeating: 0, count: links.byteCount)
  }

  /// What the dispatches of the current stage have for `chain`.
  package var address: UInt64 { links.address + UInt64(stage * Self.linkBytes) }

  /// Counts a dispatch of the current stage.
  package func add(_ groups: (Int, Int, Int)) { self.groups += groups.0 * groups.1 * groups.2 }

  /// Ends the stage: the next one waits for all its workgroups.
  package func endStage() {
    precondition(stage < capacity)
    stage += 1
    links.contents!.storeBytes(
      of: UInt32(groups), toByteOffset: stage * Self.linkBytes + 4 * Int(CHAIN_WANTED), as: UInt32.self)
    groups = 0
  }

  /// Before each run: no workgroup is done.
  package func reset() {
    for link in 0...stage {
      links.contents!.storeBytes(
        of: 0, toByteOffset: link * Self.linkBytes + 4 * Int(CHAIN_DONE), as: UInt32.self)
    }
  }

  /// Keeps the links until the commands have run.
  package func keepAlive(_ commands: CommandBuffer) { commands.keepAlive([links]) }
}
