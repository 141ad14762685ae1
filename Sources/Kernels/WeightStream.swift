import CShaderInterface
import ModelFiles
import Synchronization
import Transformer
import VulkanRuntime

/// Brings weights that are not on a device to it while it computes, unit by unit, through a ring of device memory.
///
/// Copies run on the transfer queue, ordered by two semaphores that count units: a copy waits until what stood in its
/// place of the ring has been computed with, and the computing queue waits for copies alone.
/// One thread at a time uses it: the one that submits steps.
package final class WeightStream: @unchecked Sendable {
  package let layout: StreamLayout
  let ring: Buffer
  private let unpacked: Buffer?
  private let device: Device
  private let copied: TimelineSemaphore
  private let consumed: TimelineSemaphore
  private let overlaps: [[Int]]
  /// How far ahead units are copied.
  private var prefetch: PrefetchDepth
  /// How often the device was looked at since that was last judged, and found waiting.
  private var looks = (all: 0, waiting: 0)
  private let reader: WeightFileReader?

  /// Units copied so far, in all steps.
  private(set) var count: UInt64 = 0
  private var readCount: UInt64 = 0
  /// The last unit that commands were submitted with.
  private var lastRelease: UInt64 = 0
  /// When each unit was last computed with.
  private var lastUse: [UInt64]
  /// What last left each slot of the reader.
  private var slotUse: [UInt64]
  /// Each unit in device layout; nil for those from the file.
  private var images: [MemoryArena.Piece?]
  private var copies: [Copy: CommandBuffer] = [:]
  private let arena: MemoryArena
  package private(set) var hostBytes = 0
  /// Bytes copied so far.
  private var copiedBytes = 0
  /// Bytes a second that a copy to the device alone reaches; 0 before `measureLink`.
  private var linkRate = 0.0
  /// What `activity` has to know, from any thread.
  private let flow = Mutex(Flow())

  private struct Flow: Sendable {
    var queued: UInt64 = 0
    /// Reads that units wait for.
    var reads: [(unit: UInt64, read: UInt64)] = []
  }

  private struct Copy: Hashable {
    var unit: Int
    var slot: Int
  }

  /// Slots of pinned memory that the file is read into.
  package static let readSlots = 3

  package init(
    device: Device, layout: StreamLayout, residency: WeightResidency, paths: [String],
    reading: ReadOptions = ReadOptions()
  ) throws {
    self.device = device
    self.layout = layout
    prefetch = PrefetchDepth(fixed: residency.prefetch, most: layout.mostUnitsAhead)
    overlaps = layout.overlaps
    lastUse = Array(repeating: 0, count: layout.units.count)
    images = Array(repeating: nil, count: layout.units.count)
    slotUse = Array(repeating: 0, count: Self.readSlots)
    ring = try device.makeBuffer(byteCount: residency.ringBytes, memory: .device, label: "ring of weights")
    unpacked =
      layout.unpackedBytes > 0
      ? try device.makeBuffer(byteCount: layout.unpackedBytes, memory: .device, label: "unpacked weights")
      : nil
    copied = try device.makeSemaphore()
    consumed = try device.makeSemaphore()
    arena = MemoryArena(
      device: device, label: "weights on the host", memory: .upload, blockBytes: 256 << 20,
      pieces: layout.units.filter { $0.tier == .host }.map(\.byteCount))
    if layout.largestFileUnit > 0 {
      reader = try WeightFileReader(
        device: device, paths: paths, slotBytes: layout.largestFileUnit, slotCount: Self.readSlots,
        options: reading)
      hostBytes += Self.readSlots * layout.largestFileUnit
    } else {
      reader = nil
    }
  }

  // Memory that the device still uses must not be freed.
  deinit {
    try? device.waitIdle()
    reader?.end()
  }

  // MARK: - Loading

  /// Brings what stays on the host there, in device layout: made in the ring, then copied back.
  func load(_ loader: WeightLoader) throws {
    for (index, unit) in layout.units.enumerated() where unit.tier == .host {
      let image = try arena.allocate(unit.byteCount)
      hostBytes += unit.byteCount
      images[index] = image
      for member in layout.members[unit.members] {
        let place = MemoryArena.Piece(
          buffer: ring, offset: unit.offset + member.offset, byteCount: member.spec.byteCount)
        _ = try loader.matrix(member.spec, at: place)
      }
      try loader.copy(
        from: .init(buffer: ring, offset: unit.offset, byteCount: unit.byteCount), offset: 0,
        to: image.buffer,
        at: image.offset, byteCount: unit.byteCount)
    }
  }

  /// A matrix in host memory that products never read: an embedding table.
  func table(_ spec: MatrixSpec, _ loader: WeightLoader) throws -> (matrix: DeviceMatrix, buffer: Buffer) {
    let format = spec.format
    let whole = format.planeOffsets(rows: spec.rows, columns: spec.columns)
    let buffer = try device.makeBuffer(
      byteCount: whole.total, memory: .upload, label: "embedding table on the host")
    hostBytes += whole.total
    for piece in spec.pieces(of: ring.byteCount) {
      let place = MemoryArena.Piece(buffer: ring, offset: 0, byteCount: piece.byteCount)
      _ = try loader.matrix(piece, at: place)
      let own = format.planeOffsets(rows: piece.rows, columns: piece.columns)
      let rows = (piece.rows + format.rowInterleave - 1) / format.rowInterleave * format.rowInterleave
      for (index, plane) in format.planes.enumerated() {
        let start = piece.rowOffset * piece.columns / plane.weights * plane.bytes
        try loader.copy(
          from: place, offset: own.offsets[index], to: buffer, at: whole.offsets[index] + start,
          byteCount: rows * piece.columns / plane.weights * plane.bytes)
      }
    }
    let matrix = DeviceMatrix(
      format: format, rows: spec.rows, columns: spec.columns,
      planes: whole.offsets.map { buffer.address + UInt64($0) }, rowOffset: 0)
    return (matrix, buffer)
  }

  /// The matrices of a stage, where its products find them.
  func matrices(ofStage stage: Int) -> [DeviceMatrix] {
    layout.members.filter { $0.stage == stage }.map(matrix)
  }

  private func matrix(_ member: StreamLayout.Member) -> DeviceMatrix {
    let format = member.spec.format
    let base =
      if let offset = member.unpackedOffset, let unpacked {
        unpacked.address + UInt64(offset)
      } else {
        ring.address + UInt64(layout.units[member.unit].offset + member.offset)
      }
    let planes = format.planeOffsets(rows: member.spec.rows, columns: member.spec.columns).offsets
    var matrix = DeviceMatrix(
      format: format, rows: member.spec.rows, columns: member.spec.columns,
      planes: planes.map { base + UInt64($0) }, rowOffset: member.spec.rowOffset)
    matrix.unit = member.unit
    return matrix
  }

  // MARK: - Steps

  /// Records what comes before the products that read a unit: unpacking, for one from the file.
  func recordArrival(of unit: Int, _ commands: CommandBuffer, cache: KernelCache) throws {
    commands.keepAlive([ring])
    guard layout.units[unit].tier == .file, let unpacked else { return }
    commands.keepAlive([unpacked])
    // Products of the unit before may still read what is there.
    commands.barrier()
    let members = layout.members[layout.units[unit].members]
    for member in members where member.spec.format.planes.contains(where: \.cleared) {
      commands.fill(
        unpacked, offset: member.unpackedOffset ?? 0, byteCount: (member.spec.byteCount + 3) / 4 * 4, value: 0
      )
    }
    commands.barrier()
    for member in members {
      let matrix = matrix(member)
      let format = matrix.format
      for (part, extent) in zip(member.spec.parts, member.extents) {
        let rows = part.slice.rows.count
        let rowBytes = extent.byteCount / rows
        let most = 32768
        for first in stride(from: 0, to: rows, by: most) {
          let place = layout.units[unit].offset + extent.place + first * rowBytes
          var push = RepackPush()
          push.source = ring.address + UInt64(place & ~3)
          push.source_skip = UInt32(place & 3)
          push.source_blocks_per_row = UInt32(rowBytes / format.repackBlockBytes)
          push.row_count = UInt32(min(most, rows - first))
          push.first_row = UInt32(first)
          push.row_offset = UInt32(part.rowOffset)
          push.row_stride = UInt32(part.rowStride)
          push.pair_head_size = UInt32(part.pairs?.headSize ?? 0)
          push.pair_rotated_size = UInt32(part.pairs?.rotatedSize ?? 0)
          try RepackKernel(matrix: matrix).record(commands, push: push, cache: cache)
          // Blocks that share a word with another part's are joined by atomics.
          commands.barrier()
        }
      }
    }
  }

  /// Looks at what the device does: whoever waits for it does so now and then, so that units are copied as far ahead as it
  /// takes for it not to wait.
  package func look() {
    switch activity() {
    case .idle: return
    case .computing: break
    case .waitingForLink, .waitingForDisk: looks.waiting += 1
    }
    looks.all += 1
  }

  /// How often to look, in nanoseconds; nil for never.
  package var lookInterval: UInt64? { prefetch.isFixed ? nil : 1_000_000 }

  /// A step begins: how far ahead its units are copied follows from what was seen during the last ones.
  package func beginStep() {
    if prefetch.note(waits: looks.waiting, looks: looks.all) { looks = (0, 0) }
  }

  /// Queues the copy of a unit: what commands that use it wait for. `release` must follow before the next one is brought.
  func bring(_ unit: Int) throws -> (TimelineSemaphore, UInt64) {
    let free = overlaps[unit].reduce(0) { max($0, lastUse[$1]) }
    let ahead = UInt64(prefetch.depth)
    let behind = min(count > ahead ? count - ahead : 0, lastRelease)
    try copy(unit, after: max(free, behind))
    return (copied, count)
  }

  /// The unit that was brought last is used no more when the commands that signal this are done.
  var useSignal: (TimelineSemaphore, UInt64) { (consumed, count) }

  /// They have been submitted.
  func release(_ unit: Int) {
    lastUse[unit] = count
    lastRelease = count
  }

  /// Queues the copy of a unit, when so many units have been computed with.
  private func copy(_ unit: Int, after free: UInt64) throws {
    var waits: [(TimelineSemaphore, UInt64)] = free > 0 ? [(consumed, free)] : []
    var slot = 0
    if let reader, layout.units[unit].tier == .file {
      readCount += 1
      slot = Int(readCount % UInt64(Self.readSlots))
      reader.read(
        layout.members[layout.units[unit].members].flatMap(\.extents), number: readCount,
        free: (copied, slotUse[slot]))
      waits.append((reader.done, readCount))
    }
    let commands = try copyCommands(Copy(unit: unit, slot: slot))
    try device.transferQueue.submit([commands], wait: waits, signal: [(copied, count + 1)])
    count += 1
    let (queued, read) = (count, layout.units[unit].tier == .file ? readCount : nil)
    flow.withLock { flow in
      flow.queued = queued
      if let read { flow.reads.append((queued, read)) }
      // More than a step's would be of no use.
      if flow.reads.count > 1024 { flow.reads.removeFirst(512) }
    }
    copiedBytes += layout.units[unit].byteCount
    if layout.units[unit].tier == .file { slotUse[slot] = count }
  }

  private func copyCommands(_ copy: Copy) throws -> CommandBuffer {
    if let known = copies[copy] { return known }
    let unit = layout.units[copy.unit]
    let commands = try device.makeCommandBuffer(queue: device.transferQueue, reusable: true)
    try commands.begin()
    if let image = images[copy.unit] {
      commands.copy(
        from: image.buffer, offset: image.offset, to: ring, offset: unit.offset, byteCount: unit.byteCount)
    } else if let reader {
      commands.copy(
        from: reader.slots[copy.slot], offset: 0, to: ring, offset: unit.offset, byteCount: unit.byteCount)
    }
    if device.transferQueue === device.computeQueue { commands.barrier() }
    try commands.end()
    copies[copy] = commands
    return commands
  }

  /// Reads asked for so far.
  package var reads: UInt64 { readCount }

  /// Throws what went wrong with one of the first `count` reads.
  package func check(reads count: UInt64) throws {
    if let error = reader?.failure(upTo: count) { throw error }
  }

  /// Makes ready for the next request after a failure; nothing may be in flight.
  package func recover() { reader?.recover() }

  // MARK: - Measuring

  /// What streams, how fast it could, and what it did.
  package var figures: StreamFigures {
    StreamFigures(
      hostBytes: layout.byteCount(from: .host), fileBytes: layout.byteCount(from: .file), linkRate: linkRate,
      diskRate: reader?.rate ?? 0, readMethod: reader?.method, copiedBytes: copiedBytes,
      readBytes: reader?.readBytes ?? 0, prefetch: prefetch)
  }

  /// Measures how fast the link copies to the device; nothing may be in flight.
  func measureLink() throws {
    guard let source = images.lazy.compactMap({ $0?.buffer }).first ?? reader?.slots[0] else { return }
    linkRate = try device.linkRate(from: source, to: ring)
  }

  /// What the device does now. Can be asked by any thread.
  func activity() -> Activity {
    guard let used = try? consumed.value, let arrived = try? copied.value else { return .idle }
    let (queued, read) = flow.withLock { flow in
      (flow.queued, flow.reads.last { $0.unit == arrived + 1 }?.read)
    }
    if used >= queued { return .idle }
    if used < arrived { return .computing }
    guard let read, let reader, let done = try? reader.done.value, done < read else { return .waitingForLink }
    return .waitingForDisk
  }

  /// How often all units have been computed with. Can be asked by any thread.
  package var passes: Double {
    Double((try? consumed.value) ?? 0) / Double(max(layout.units.count, 1))
  }

  /// Watches what the device waits for, until it is ended.
  package func watch() -> StreamWatch { StreamWatch(self) }
}
