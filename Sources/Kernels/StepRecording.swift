import VulkanRuntime

/// The command buffers that a step is recorded into: a part for each time that other devices are waited for, and where
/// weights stream one command buffer of a part for what needs none of them and one for what follows each unit's arrival.
package final class StepRecording {
  /// Commands between two times at which a device of a mesh waits for others, who are told when they are done.
  package struct Part {
    package let commands: CommandBuffer
    package fileprivate(set) var waits: [MeshWait] = []
    /// Commands that follow the arrival of weights that stream.
    package fileprivate(set) var units: [(unit: Int, commands: CommandBuffer)] = []
  }

  /// The device's clock at both ends of each part, and where the host finds it when the step is done.
  package struct Stamps {
    package let pool: TimestampPool
    package let ticks: Buffer

    /// - Parameter parts: the most there may be.
    package init(device: Device, parts: Int) throws {
      pool = try device.makeTimestampPool(count: 2 * parts)
      ticks = try device.makeBuffer(byteCount: 16 * parts, memory: .download, label: "the device's clock")
    }
  }

  /// What is recorded into now.
  package private(set) var commands: CommandBuffer
  package private(set) var parts: [Part]
  private let next: (() throws -> CommandBuffer)?
  private var meetings = 0
  private let arrival: ((Int, CommandBuffer) throws -> Void)?
  private let stamps: Stamps?

  /// - Parameters:
  ///   - next: begins further commands; nil to record all into `commands`.
  ///   - stamps: gets the device's clock at the beginning and the end of each part, if there is one.
  ///   - arrival: records what follows the arrival of a unit of weights that stream; nil where none do.
  package init(
    _ commands: CommandBuffer, next: (() throws -> CommandBuffer)? = nil, stamps: Stamps? = nil,
    arrival: ((Int, CommandBuffer) throws -> Void)? = nil
  ) {
    self.stamps = stamps
    if let stamps {
      commands.resetTimestamps(stamps.pool)
      commands.writeTimestamp(stamps.pool, index: 0)
    }
    self.commands = commands
    self.next = next
    self.arrival = arrival
    parts = [Part(commands: commands)]
  }

  /// Products with `matrix` come next.
  func need(_ matrix: DeviceMatrix) throws {
    guard let unit = matrix.unit, let next, let arrival, parts[parts.count - 1].units.last?.unit != unit
    else { return }
    try commands.end()
    commands = try next()
    try arrival(unit, commands)
    parts[parts.count - 1].units.append((unit, commands))
  }

  /// What follows in this part waits for another device.
  func wait(for wait: MeshWait) { parts[parts.count - 1].waits.append(wait) }

  /// The number of the next of the step's meetings with other devices, from 1 on.
  func nextMeeting() -> Int {
    meetings += 1
    return meetings
  }

  /// Ends the part: what it has written can be seen by others. The next one waits until the other ranks are as far.
  package func exchange() throws {
    guard let next else { throw KernelError.unsupported("a collective was recorded for one device alone") }
    commands.barrierToHost()
    writeEnd()
    try commands.end()
    commands = try next()
    if let stamps { commands.writeTimestamp(stamps.pool, index: 2 * parts.count) }
    // What other devices have written may be host memory to this one.
    commands.barrier()
    parts.append(Part(commands: commands, waits: [.ranks(parts: parts.count)]))
  }

  /// Ends the last part.
  package func end() throws {
    writeEnd()
    if let stamps {
      commands.copyTimestamps(stamps.pool, count: 2 * parts.count, to: stamps.ticks)
      commands.barrierToHost()
    }
    try commands.end()
  }

  private func writeEnd() {
    if let stamps { commands.writeTimestamp(stamps.pool, index: 2 * parts.count - 1) }
  }
}
