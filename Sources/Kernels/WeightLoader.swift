import CShaderInterface
import Glibc
import ModelFiles
import Transformer
import VulkanRuntime

/// Brings weights from their source into device layout: rows go through pinned staging memory, two slots in turn,
/// and a shader unpacks them, so that copying, transfer and unpacking overlap. Rows of a source with recipes are made
/// on the device, where the others arrive.
package final class WeightLoader {
  private let cache: KernelCache
  private let source: any TensorSource
  private let arena: MemoryArena
  private let onProgress: (Int) throws -> Void
  private var slots: [StagingSlot] = []
  private var next = 0
  private var constants: [UInt32] = []
  let rowInterleave: Int
  /// Whether the matrices are for fused products.
  var fuses: Bool { cache.traits.method.fuses }

  /// - Parameters:
  ///   - pieces: bytes in device layout of each matrix that memory will be found for, in the order of the calls.
  ///   - rowInterleave: of all matrices (see `WeightFormat`); nil for what suits the device.
  ///   - onProgress: called with the bytes of the source that were read since the last call; may throw to stop.
  package init(
    cache: KernelCache, source: any TensorSource, pieces: [Int], slotBytes: Int? = nil,
    rowInterleave: Int? = nil,
    onProgress: @escaping (Int) throws -> Void
  ) throws {
    self.cache = cache
    self.rowInterleave = rowInterleave ?? cache.traits.rowInterleave
    self.source = source
    self.onProgress = onProgress
    arena = MemoryArena(device: cache.device, label: "weights", pieces: pieces)
    let slotBytes = slotBytes ?? Self.slotBytes(cache.traits)
    for index in 0..<2 {
      slots.append(try StagingSlot(device: cache.device, byteCount: slotBytes, index: index))
    }
  }

  /// Bytes of each of the two staging slots, where memory is not scarce.
  private static func slotBytes(_ traits: DeviceTraits) -> Int { traits.isCPU ? 8 << 20 : 32 << 20 }

  /// Bytes of each of the two staging slots, where it is.
  package static let smallSlotBytes = 2 << 20

  // A load that ends early must not free memory that the device still reads and writes.
  deinit {
    for slot in slots { try? slot.wait() }
  }

  /// One tensor of a matrix, and where its rows go.
  package struct Part {
    package var slice: TensorSlice
    package var rowOffset: Int
    package var rowStride: Int
    /// Heads whose rows are put in rope pair order: their size and rotated size.
    package var pairs: (headSize: Int, rotatedSize: Int)?

    package init(
      slice: TensorSlice, rowOffset: Int = 0, rowStride: Int = 1,
      pairs: (headSize: Int, rotatedSize: Int)? = nil
    ) {
      self.slice = slice
      self.rowOffset = rowOffset
      self.rowStride = rowStride
      self.pairs = pairs
    }
  }

  /// A matrix made of `parts`. Parts of different types are widened to f32.
  ///
  /// - Parameter rowOffset: where its row 0 stands among the stage's outputs.
  package func matrix(_ parts: [Part], rowOffset: Int = 0) throws -> DeviceMatrix {
    try matrix(MatrixSpec(parts: parts, rowOffset: rowOffset, rowInterleave: rowInterleave))
  }

  package func matrix(_ spec: MatrixSpec) throws -> DeviceMatrix {
    try matrix(spec, at: try arena.allocate(spec.byteCount))
  }

  /// The matrix, in memory of the caller's.
  func matrix(_ spec: MatrixSpec, at piece: MemoryArena.Piece) throws -> DeviceMatrix {
    let format = spec.format
    let layout = format.planeOffsets(rows: spec.rows, columns: spec.columns)
    if format.planes.contains(where: \.cleared) {
      try clear(piece)
    }
    let matrix = DeviceMatrix(
      format: format, rows: spec.rows, columns: spec.columns,
      planes: layout.offsets.map { piece.address + UInt64($0) }, rowOffset: spec.rowOffset)
    for part in spec.parts {
      guard let tensor = source.tensor(part.slice.tensor) else {
        throw KernelError.unsupported("tensor \(part.slice.tensor) is not in the model")
      }
      try load(part, tensor: tensor, into: matrix)
    }
    return matrix
  }

  /// Copies what was loaded into memory of the host's.
  func copy(from piece: MemoryArena.Piece, offset: Int, to buffer: Buffer, at place: Int, byteCount: Int)
    throws
  {
    let slot = try nextSlot()
    try slot.submit { commands in
      commands.copy(
        from: piece.buffer, offset: piece.offset + offset, to: buffer, offset: place, byteCount: byteCount)
      commands.barrier()
    }
  }

  /// A vector as float32, in an order of the caller's choice.
  package func vector(_ slice: TensorSlice) throws -> [Float] {
    guard let tensor = source.tensor(slice.tensor) else {
      throw KernelError.unsupported("tensor \(slice.tensor) is not in the model")
    }
    let values = try source.withBytes(of: tensor, rows: slice.rows) { dequantize($0, type: tensor.type) }
    return Array(values[slice.columns])
  }

  /// Small read-only data; the address is relative until `finish` returns the base.
  package func constant(_ words: [UInt32]) -> Int {
    let offset = constants.count * 4
    constants.append(contentsOf: words)
    while constants.count % 64 != 0 { constants.append(0) }
    return offset
  }

  package func constant(_ values: [Float]) -> Int { constant(values.map(\.bitPattern)) }

  /// Waits for all loading, and returns the buffers to keep and the address of the first constant.
  package func finish() throws -> (buffers: [Buffer], constants: UInt64) {
    let byteCount = max(256, constants.count * 4)
    let piece = try arena.allocate(byteCount)
    var done = 0
    while done < constants.count {
      let slot = try nextSlot()
      let count = min(constants.count - done, slot.buffer.byteCount / 4)
      constants.withUnsafeBytes { bytes in
        slot.memory.copyMemory(from: bytes.baseAddress! + done * 4, byteCount: count * 4)
      }
      try slot.submit { commands in
        commands.copy(
          from: slot.buffer, offset: 0, to: piece.buffer, offset: piece.offset + done * 4,
          byteCount: count * 4)
        commands.barrier()
      }
      done += count
    }
    for slot in slots { try slot.wait() }
    return (arena.buffers, piece.address)
  }

  private func nextSlot() throws -> StagingSlot {
    let slot = slots[next]
    next = (next + 1) % slots.count
    try slot.wait()
    return slot
  }

  private func clear(_ piece: MemoryArena.Piece) throws {
    let slot = try nextSlot()
    try slot.submit { commands in
      commands.fill(piece.buffer, offset: piece.offset, byteCount: (piece.byteCount + 3) / 4 * 4, value: 0)
      commands.barrier()
    }
  }

  private func load(_ part: Part, tensor: TensorInfo, into matrix: DeviceMatrix) throws {
    let widened = matrix.format.type != tensor.type
    let blockWeights = matrix.format.repackBlock
    let recipe = widened ? nil : source.recipe(of: tensor)
    // Of rows that are copied as they are, a device that has some columns takes those.
    let columns = widened || recipe != nil ? 0..<tensor.columns : part.slice.columns
    let rowBytes = columns.count / blockWeights * matrix.format.repackBlockBytes
    let slotBytes = slots[0].buffer.byteCount
    guard rowBytes <= slotBytes - 8 else {
      throw KernelError.unsupported(
        "tensor \(tensor.name) has rows of \(rowBytes) bytes, more than can be staged")
    }
    let rowsAtOnce = max(1, min((slotBytes - 8) / rowBytes, 32768))
    let repack = RepackKernel(matrix: matrix)
    var row = part.slice.rows.lowerBound
    while row < part.slice.rows.upperBound {
      let rows = row..<min(row + rowsAtOnce, part.slice.rows.upperBound)
      let slot = try nextSlot()
      let byteCount = rows.count * rowBytes
      if recipe == nil { try fetch(rows, columns, of: tensor, widened: widened, into: slot) }
      var push = RepackPush()
      push.source = slot.device?.address ?? slot.buffer.address
      push.source_blocks_per_row = UInt32(columns.count / blockWeights)
      push.first_source_block = UInt32((part.slice.columns.lowerBound - columns.lowerBound) / blockWeights)
      push.row_count = UInt32(rows.count)
      push.first_row = UInt32(rows.lowerBound - part.slice.rows.lowerBound)
      push.row_offset = UInt32(part.rowOffset)
      push.row_stride = UInt32(part.rowStride)
      push.pair_head_size = UInt32(part.pairs?.headSize ?? 0)
      push.pair_rotated_size = UInt32(part.pairs?.rotatedSize ?? 0)
      try slot.submit { commands in
        if let recipe {
          try RandomKernel(recipe: recipe).record(
            commands, destination: push.source, byteCount: byteCount,
            firstBlock: rows.lowerBound * tensor.columns / tensor.type.blockSize, cache: cache
          )
          commands.barrier()
        } else if let device = slot.device {
          commands.copy(
            from: slot.buffer, offset: 0, to: device, offset: 0, byteCount: (byteCount + 3) / 4 * 4)
          commands.barrier()
        }
        try repack.record(commands, push: push, cache: cache)
        // Blocks that share a word with another part's are joined by atomics: order between dispatches is needed.
        commands.barrier()
      }
      try onProgress(rows.count * (part.slice.columns.count / tensor.type.blockSize) * tensor.type.blockBytes)
      row = rows.upperBound
    }
  }

  /// Bytes that one thread copies at a time.
  private static let pieceBytes = 1 << 20

  /// Copies on all cores: the pages of a file are brought into the process on the way, which takes a core longer than
  /// copying them, and a link to a device is faster than one core's copy.
  private static func copy(_ bytes: UnsafeRawBufferPointer, to memory: UnsafeMutableRawPointer) {
    let count = (bytes.count + pieceBytes - 1) / pieceBytes
    nonisolated(unsafe) let (source, target) = (bytes, memory)
    Thread.concurrently(count) { index in
      let start = index * pieceBytes
      let piece = UnsafeRawBufferPointer(rebasing: source[start..<min(start + pieceBytes, source.count)])
      bringIn(piece)
      (target + start).copyMemory(from: piece.baseAddress!, byteCount: piece.count)
    }
  }

  /// Asks the system for all pages at once, instead of one fault for each few; where it cannot, faults do it.
  private static func bringIn(_ bytes: UnsafeRawBufferPointer) {
    let populateRead: Int32 = 22  // MADV_POPULATE_READ, Linux 5.14
    let page = sysconf(Int32(_SC_PAGESIZE))
    let first = UInt(bitPattern: bytes.baseAddress!) / UInt(page) * UInt(page)
    let end = UInt(bitPattern: bytes.baseAddress!) + UInt(bytes.count)
    madvise(UnsafeMutableRawPointer(bitPattern: first), Int(end - first), populateRead)
  }

  /// Copies rows into a slot's memory, as the file holds them or as float32.
  private func fetch(
    _ rows: Range<Int>, _ columns: Range<Int>, of tensor: TensorInfo, widened: Bool, into slot: StagingSlot
  ) throws {
    try source.withBytes(of: tensor, rows: rows) { bytes in
      if widened {
        let floats = UnsafeMutableBufferPointer(
          start: slot.memory.assumingMemoryBound(to: Float.self), count: rows.count * tensor.columns)
        dequantize(bytes, type: tensor.type, into: floats)
      } else if columns.count == tensor.columns {
        Self.copy(bytes, to: slot.memory)
      } else {
        let first = columns.lowerBound / tensor.type.blockSize * tensor.type.blockBytes
        let count = columns.count / tensor.type.blockSize * tensor.type.blockBytes
        for row in rows.indices {
          let index = row - rows.lowerBound
          (slot.memory + index * count).copyMemory(
            from: bytes.baseAddress! + index * tensor.rowBytes + first, byteCount: count)
        }
      }
    }
  }
}

/// Pinned memory, its copy on the device, and the commands that use them.
private final class StagingSlot {
  let buffer: Buffer
  let device: Buffer?
  let memory: UnsafeMutableRawPointer
  private let owner: Device
  private let commands: CommandBuffer
  private let semaphore: TimelineSemaphore
  private var submissions: UInt64 = 0

  init(device owner: Device, byteCount: Int, index: Int) throws {
    self.owner = owner
    buffer = try owner.makeBuffer(byteCount: byteCount, memory: .upload, label: "staging \(index)")
    // A CPU driver reads staging memory as fast as any other.
    device =
      owner.physical.kind == .cpu
      ? nil : try owner.makeBuffer(byteCount: byteCount, memory: .device, label: "staged \(index)")
    guard let contents = buffer.contents else {
      throw KernelError.unsupported("\(owner.physical.name): staging memory cannot be mapped")
    }
    memory = contents
    commands = try owner.makeCommandBuffer(queue: owner.computeQueue, reusable: true)
    semaphore = try owner.makeSemaphore()
  }

  func submit(_ record: (CommandBuffer) throws -> Void) throws {
    try commands.begin()
    try record(commands)
    try commands.end()
    submissions += 1
    try owner.computeQueue.submit([commands], wait: [], signal: [(semaphore, submissions)])
  }

  func wait() throws {
    guard submissions > 0 else { return }
    _ = try semaphore.wait(for: submissions, timeoutNanoseconds: UInt64.max)
  }
}
