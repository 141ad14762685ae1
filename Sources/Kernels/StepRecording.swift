import VulkanRuntime

/// The command buffers that a step is recorded into: a part for each time that other devices are waited for, and in it a
/// segment for each time that weights or a layer's keys and values have to arrive first.
package final class StepRecording {
  /// Commands that run in one go.
  package struct Segment {
    package let commands: CommandBuffer
    /// The unit of weights that must have arrived.
    package fileprivate(set) var unit: Int?
    /// The layer whose keys and values must have arrived.
    package fileprivate(set) var cacheLayer: Int?
    /// The layer whose keys and values are needed no more when the commands are done.
    package fileprivate(set) var lastUseOfLayer: Int?
  }

  /// Commands between two times at which a device of a mesh waits for others, who are told when they are done.
  package struct Part {
    package fileprivate(set) var segments: [Segment]
    package fileprivate(set) var waits: [MeshWait] = []

    /// What nothing has to arrive for: all there is, where nothing streams.
    package var commands: CommandBuffer { segments[0].commands }
  }

  /// The device's clock at both ends of each part, then of each stop, and where the host finds it when the step is done.
  package struct Stamps {
    package let pool: TimestampPool
    package let ticks: Buffer
    /// The most parts that there may be, and stops: the stamps of these come behind.
    package let parts: Int
    package let stops: Int

    package init(device: Device, parts: Int, stops: Int) throws {
      self.parts = parts
      self.stops = stops
      pool = try device.makeTimestampPool(count: 2 * (parts + stops))
      ticks = try device.makeBuffer(
        byteCount: 16 * (parts + stops), memory: .download, label: "the device's clock")
    }
  }

  /// What a device of a mesh does besides computing.
  package enum Stop: Sendable, Hashable {
    /// Leaves what the others of its stage, or the next stage, want; waits for the others of its stage.
    case exchange
    /// Waits for the stage before, or for tokens.
    case idle
  }

  /// What is recorded into now.
  package private(set) var commands: CommandBuffer
  package private(set) var parts: [Part]
  private let next: (() throws -> CommandBuffer)?
  private var meetings = 0
  /// Those of the step so far, and the one that has begun.
  package private(set) var stops: [Stop] = []
  /// The unit that products of this part needed last.
  private var lastUnit: Int?
  /// Whether the segment has waited for a layer's keys and values and has no products yet.
  private var isFresh = false
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
    parts = [Part(segments: [Segment(commands: commands)])]
  }

  /// Products with `matrix` come next.
  func need(_ matrix: DeviceMatrix) throws {
    guard next != nil else { return }
    if let unit = matrix.unit, let arrival, unit != lastUnit {
      // What comes next may wait for a layer's keys and values too.
      if !isFresh { try startSegment() }
      last.unit = unit
      lastUnit = unit
      try arrival(unit, commands)
    } else if last.lastUseOfLayer != nil {
      try startSegment()
    }
    isFresh = false
  }

  /// What comes next uses the keys and values of a layer that are brought to the device for each step.
  func beginCache(layer: Int) throws {
    guard next != nil else { return }
    try startSegment()
    last.cacheLayer = layer
    isFresh = true
  }

  /// The next product does not use them any more, nor does anything after it.
  func endCache(layer: Int) {
    guard next != nil else { return }
    last.lastUseOfLayer = layer
  }

  private var last: Segment {
    get { parts[parts.count - 1].segments[parts[parts.count - 1].segments.count - 1] }
    set { parts[parts.count - 1].segments[parts[parts.count - 1].segments.count - 1] = newValue }
  }

  private func startSegment() throws {
    guard let next else { return }
    try commands.end()
    commands = try next()
    parts[parts.count - 1].segments.append(Segment(commands: commands))
  }

  /// What follows in this part waits for another device.
  func wait(for wait: MeshWait) { parts[parts.count - 1].waits.append(wait) }

  /// Notes the device's clock at both ends of what `body` records.
  func during<Result>(_ stop: Stop, _ body: () throws -> Result) rethrows -> Result {
    guard let stamps, stops.count < stamps.stops else { return try body() }
    let index = 2 * (stamps.parts + stops.count)
    stops.append(stop)
    commands.writeTimestamp(stamps.pool, index: index)
    let result = try body()
    commands.writeTimestamp(stamps.pool, index: index + 1)
    return result
  }

  /// The number of the next of the step's meetings with other devices, from 1 on.
  func nextMeeting() -> Int {
    meetings += 1
    return meetings
  }

  /// Ends the part: what it has written can be seen by others. The next one waits until the other ranks are as far.
  package func exchange() throws { try startPart(waits: [.ranks(parts: parts.count)]) }

  /// Ends the part. The next one waits for no device; it is a submission of its own, which finds nothing in caches that
  /// others changed before it.
  package func split() throws { try startPart(waits: []) }

  private func startPart(waits: [MeshWait]) throws {
    guard let next else { throw KernelError.unsupported("a collective was recorded for one device alone") }
    commands.barrierToHost()
    writeEnd()
    try commands.end()
    commands = try next()
    if let stamps { commands.writeTimestamp(stamps.pool, index: 2 * parts.count) }
    // What other devices have written may be host memory to this one.
    commands.barrier()
    parts.append(Part(segments: [Segment(commands: commands)], waits: waits))
    lastUnit = nil
  }

  /// Ends the last part.
  package func end() throws {
    writeEnd()
    if let stamps {
      commands.copyTimestamps(stamps.pool, 0..<2 * parts.count, to: stamps.ticks)
      commands.copyTimestamps(
        stamps.pool, 2 * stamps.parts..<2 * (stamps.parts + stops.count), to: stamps.ticks)
      commands.barrierToHost()
    }
    try commands.end()
  }

  private func writeEnd() {
    if let stamps { commands.writeTimestamp(stamps.pool, index: 2 * parts.count - 1) }
  }
}

extension PlanRecorder {
  /// The next product writes keys and values of a layer, which may have to come to the device first.
  func beginCache(_ layer: Int, _ recording: StepRecording) throws {
    if kvCache.streams(layer: layer) { try recording.beginCache(layer: kvCache.index(ofLayer: layer)) }
  }

  /// Attention of the layer was recorded.
  func endCache(_ layer: Int, _ recording: StepRecording) {
    if kvCache.streams(layer: layer) { recording.endCache(layer: kvCache.index(ofLayer: layer)) }
  }
}
