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

  /// What is recorded into now.
  package private(set) var commands: CommandBuffer
  package private(set) var parts: [Part]
  private let next: (() throws -> CommandBuffer)?
  private let arrival: ((Int, CommandBuffer) throws -> Void)?

  /// - Parameters:
  ///   - next: begins further commands; nil to record all into `commands`.
  ///   - arrival: records what follows the arrival of a unit of weights that stream; nil where none do.
  package init(
    _ commands: CommandBuffer, next: (() throws -> CommandBuffer)? = nil,
    arrival: ((Int, CommandBuffer) throws -> Void)? = nil
  ) {
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

  /// Ends the part: what it has written can be seen by others. The next one waits until the other ranks are as far.
  func exchange() throws {
    guard let next else { throw KernelError.unsupported("a collective was recorded for one device alone") }
    commands.barrierToHost()
    try commands.end()
    commands = try next()
    // What other devices have written is host memory to this one.
    commands.barrier()
    parts.append(Part(commands: commands, waits: [.ranks(parts: parts.count)]))
  }
}
