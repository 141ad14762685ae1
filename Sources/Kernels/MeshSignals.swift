import CShaderInterface
import VulkanRuntime

/// The counts that devices of a mesh leave for one another in shared memory, as the host sees them.
package final class MeshBoard: Sendable {
  package let deviceCount: Int
  private let memory: HostMemory
  private let offset: Int

  package static func byteCount(deviceCount: Int) -> Int { (deviceCount + 1) * 4 * Int(FLAG_WORDS) }

  /// - Parameter offset: of the counts in `memory`, a multiple of 128.
  package init(memory: HostMemory, offset: Int, deviceCount: Int) {
    self.memory = memory
    self.offset = offset
    self.deviceCount = deviceCount
  }

  /// The count of a device.
  package func count(_ device: Int) -> UInt32 { load(device) }

  /// Ends all waits.
  package func abandon() { store(deviceCount, .max) }

  /// Makes waits possible again; nothing may be in flight.
  package func reset() { store(deviceCount, 0) }

  /// Who gave up waiting for whom; nil if nobody did, or the host ended all waits.
  package var abandonedWait: (device: Int, peer: Int)? {
    let word = load(deviceCount)
    return word == 0 || word == .max ? nil : (Int(word & 0xffff) - 1, Int(word >> 16))
  }

  private func load(_ line: Int) -> UInt32 {
    memory.base.load(fromByteOffset: offset + line * 4 * Int(FLAG_WORDS), as: UInt32.self)
  }

  private func store(_ line: Int, _ value: UInt32) {
    memory.base.storeBytes(of: value, toByteOffset: offset + line * 4 * Int(FLAG_WORDS), as: UInt32.self)
  }
}

/// What one device of a mesh records to wait for the others by their counts.
///
/// The counts of step n go from `n * countsPerStep` on, so that they only grow, and every device knows those of all.
package final class MeshSignals: Sendable {
  /// More than any step has.
  package static let countsPerStep: UInt32 = 4096
  /// What a device has reached, above the base, when all of a step is done.
  package static let end = countsPerStep - 1

  private let own: Int
  private let deviceCount: Int
  private let flags: UInt64
  private let steps: Buffer

  /// - Parameters:
  ///   - flags: the address of the counts on this device.
  ///   - slotCount: steps that may be in flight.
  package init(device: Device, flags: UInt64, own: Int, deviceCount: Int, slotCount: Int) throws {
    self.own = own
    self.deviceCount = deviceCount
    self.flags = flags
    steps = try device.makeBuffer(
      byteCount: slotCount * Self.stepBytes, memory: .mappedDevice, label: "counts of a mesh's steps")
    guard steps.contents != nil else {
      throw KernelError.unsupported("\(device.physical.name): step memory cannot be mapped")
    }
  }

  private static let stepBytes = 4 * Int(MESH_STEP_WORDS)

  /// The count of a device that has done all of a step.
  package static func ended(step: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: step) &* countsPerStep &+ end
  }

  /// Before step `step` is submitted in a slot. Steps are numbered from 1 on; the count of its devices goes round.
  ///
  /// - Parameter drawn: the step that drew tokens which this one needs.
  package func begin(slot: Int, step: UInt64, drawn: UInt64?) {
    steps.contents!.storeBytes(
      of: SIMD4<UInt32>(
        UInt32(truncatingIfNeeded: step) &* Self.countsPerStep, drawn.map(Self.ended) ?? 0,
        drawn == nil ? 0 : 1,
        0), toByteOffset: slot * Self.stepBytes, as: SIMD4<UInt32>.self)
  }

  /// Records a wait, after which what the others wrote before their counts is there.
  ///
  /// - Parameters:
  ///   - reached: this device's count from now on, above the step's base; nil leaves it.
  ///   - devices: whom it waits for; itself does not count.
  ///   - wanted: their count above the step's base; nil: until the tokens are drawn which the step needs.
  package func record(
    _ commands: CommandBuffer, slot: Int, reached: UInt32?, devices: Range<Int>, wanted: UInt32?,
    cache: KernelCache
  ) throws {
    precondition(reached ?? 0 <= Self.end)
    var push = ExchangePush()
    push.flags = flags
    push.step = steps.address + UInt64(slot * Self.stepBytes)
    push.own = UInt32(own)
    push.reached = reached ?? 0
    push.first = UInt32(devices.lowerBound)
    push.count = UInt32(devices.count)
    push.wanted = wanted ?? 0
    push.device_count = UInt32(deviceCount)
    commands.keepAlive([steps])
    commands.deviceBarrier()
    try ExchangeKernel().record(commands, push: push, cache: cache)
    commands.deviceBarrier()
  }
}
