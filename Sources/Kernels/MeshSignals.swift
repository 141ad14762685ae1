import CShaderInterface
import Transformer
import VulkanRuntime

/// How far the devices of a mesh are, as the host sees it, and the end of all their waits.
package final class MeshBoard: Sendable {
  private let signals: [MeshSignals]

  /// - Parameter signals: those of all devices, in their order.
  package init(_ signals: [MeshSignals]) {
    self.signals = signals
  }

  /// The count of a device, as it was when that last waited for long or ended a step: of those that stand still the one
  /// that others wait for has the least.
  package func count(_ device: Int) -> UInt32 { signals[device].status(MESH_STATUS_COUNT) }

  /// Ends all waits.
  package func abandon() { for signals in signals { signals.setAbandoned(1) } }

  /// Makes waits possible again; nothing may be in flight.
  package func reset() {
    for signals in signals {
      signals.setAbandoned(0)
      signals.set(MESH_STATUS_GAVE_UP, 0)
    }
  }

  /// Who gave up waiting for whom, if anyone did by itself.
  package var abandonedWait: (device: Int, peer: Int)? {
    for (device, signals) in signals.enumerated() {
      let word = signals.status(MESH_STATUS_GAVE_UP)
      if word != 0 { return (device, Int(word) - 1) }
    }
    return nil
  }
}

/// What one device of a mesh records to wait for the others by their counts.
///
/// The counts of step n go from `n * countsPerStep` on, so that they only grow, and every device knows those of all. Each
/// home of the mesh has a board of the counts of all devices: those who read it look at their own board alone.
///
/// Where devices may find what they read last (`MeshHomes.readsLast`), each count of a submission has a slot of its
/// own, of many lines, so that every look finds what is there.
package final class MeshSignals: Sendable {
  /// More than any step has.
  package static let countsPerStep: UInt32 = 4096
  /// What a device has reached, above the base, when all of a step is done.
  package static let end = countsPerStep - 1

  /// Meetings that a submission may have: more must be split.
  package static let meetingsPerSubmission = 256

  /// Bytes of the counts of so many devices.
  package static func boardBytes(deviceCount: Int, homes: MeshHomes) -> Int {
    deviceCount * ExchangeKernel(readsLast: homes.readsLast).boardBytes
  }

  /// Where a count is left: those of a submission apart, and those that end steps.
  private func place(of count: UInt32) -> UInt32 {
    let last = UInt32(kernel.slots - 1)
    return count == Self.end || last == 0 ? last : count % last
  }

  private let homes: MeshHomes
  /// How this device waits for others.
  package let kernel: ExchangeKernel
  private let own: Int
  private let boards: [UInt64]
  /// What the host writes for each step, and behind it whether waits are to end: in the device's memory, of which it
  /// finds in its caches what the host has written.
  private let steps: Buffer
  private let abandonedOffset: Int
  /// Behind that, for each slot, what a kernel needs that meets the other ranks itself: `MeetingData`.
  private let meetingOffset: Int
  /// What passes between the device and the host, in the host's memory.
  private let status: Buffer

  /// - Parameters:
  ///   - boards: the address on this device of each home's counts.
  ///   - own: the device's place in the mesh.
  ///   - ranks: the devices of its stage.
  ///   - slotCount: steps that may be in flight.
  package init(
    device: Device, homes: MeshHomes, boards: [UInt64], own: Int, ranks: Range<Int>, slotCount: Int
  ) throws {
    self.homes = homes
    self.own = own
    self.boards = boards
    kernel = ExchangeKernel(readsLast: homes.readsLast)
    abandonedOffset = slotCount * Self.stepBytes
    meetingOffset = abandonedOffset + Self.stepBytes
    steps = try device.makeBuffer(
      byteCount: meetingOffset + slotCount * MemoryLayout<MeetingData>.stride, memory: .mappedDevice,
      label: "counts of a mesh's steps")
    status = try device.makeBuffer(
      byteCount: 4 * Int(MESH_STATUS_WORDS), memory: .download, label: "how far a device of a mesh is")
    guard steps.contents != nil, let words = status.contents else {
      throw KernelError.unsupported("\(device.physical.name): step memory cannot be mapped")
    }
    words.initializeMemory(as: UInt32.self, repeating: 0, count: Int(MESH_STATUS_WORDS))
    setAbandoned(0)
    for slot in 0..<slotCount {
      var meeting = MeetingData()
      meeting.flags = boards[homes.of[own]]
      meeting.step = steps.address + UInt64(slot * Self.stepBytes)
      meeting.status = status.address
      meeting.abandoned = steps.address + UInt64(abandonedOffset)
      meeting.own = UInt32(own)
      meeting.first = UInt32(ranks.lowerBound)
      meeting.count = UInt32(ranks.count)
      steps.contents!.storeBytes(
        of: meeting, toByteOffset: meetingOffset + slot * MemoryLayout<MeetingData>.stride,
        as: MeetingData.self)
    }
  }

  private static let stepBytes = 4 * Int(MESH_STEP_WORDS)

  fileprivate func status(_ word: UInt32) -> UInt32 {
    status.contents!.load(fromByteOffset: 4 * Int(word), as: UInt32.self)
  }

  fileprivate func setAbandoned(_ value: UInt32) {
    steps.contents!.storeBytes(of: value, toByteOffset: abandonedOffset, as: UInt32.self)
  }

  fileprivate func set(_ word: UInt32, _ value: UInt32) {
    status.contents!.storeBytes(of: value, toByteOffset: 4 * Int(word), as: UInt32.self)
  }

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

  /// Records that this device has reached a count, which `told` are told, and a wait, after which what the others wrote
  /// before their counts is there.
  ///
  /// - Parameters:
  ///   - reached: this device's count from now on, above the step's base; nil leaves it.
  ///   - told: devices that may wait for that count.
  ///   - devices: whom it waits for; itself does not count.
  ///   - wanted: their count above the step's base; nil: until the tokens are drawn which the step needs.
  package func record(
    _ commands: CommandBuffer, slot: Int, reached: UInt32?, told: Range<Int> = 0..<0, devices: Range<Int>,
    wanted: UInt32?, cache: KernelCache
  ) throws {
    precondition(reached ?? 0 <= Self.end)
    var push = ExchangePush()
    push.step = steps.address + UInt64(slot * Self.stepBytes)
    push.status = status.address
    push.abandoned = steps.address + UInt64(abandonedOffset)
    push.own = UInt32(own)
    push.reached = reached ?? 0
    push.own_slot = place(of: push.reached)
    push.wanted_slot = place(of: wanted ?? Self.end)
    commands.keepAlive([steps, status])
    barrier(commands, isNear: homes.areOneDevice)
    // A count of nothing to wait for, so that 0 has no meaning of its own.
    push.wanted = Self.end
    for home in homes.homes(of: told) where home != homes.of[own] {
      push.flags = boards[home]
      try kernel.record(commands, push: push, cache: cache)
    }
    push.flags = boards[homes.of[own]]
    push.first = UInt32(devices.lowerBound)
    push.count = UInt32(devices.count)
    push.wanted = wanted ?? 0
    push.reports = reached == Self.end ? 1 : 0
    try kernel.record(commands, push: push, cache: cache)
    barrier(commands, isNear: homes.memory == .device)
  }

  /// Whether a kernel can meet the ranks of its stage itself: all look at the same counts.
  package func canMeet(_ ranks: Range<Int>) -> Bool { homes.homes(of: ranks) == [homes.of[own]] }

  /// Makes what the device has written to a home ready to be told to others by a kernel that meets them itself.
  package func recordEndOfWrites(_ commands: CommandBuffer) {
    barrier(commands, isNear: homes.areOneDevice)
  }

  /// Where a kernel that meets the ranks of its stage itself finds what it needs.
  package func meeting(_ commands: CommandBuffer, slot: Int) -> UInt64 {
    commands.keepAlive([steps, status])
    return steps.address + UInt64(meetingOffset + slot * MemoryLayout<MeetingData>.stride)
  }

  /// For a device's own memory what orders dispatches is enough, whoever writes there: logical devices that are one have
  /// their caches in common. What goes to other devices, or through host memory, wants more.
  private func barrier(_ commands: CommandBuffer, isNear: Bool) {
    if isNear { commands.dispatchBarrier() } else { commands.deviceBarrier() }
  }
}
