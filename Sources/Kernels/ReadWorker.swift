import VulkanRuntime

/// Turns units of weights into reads of files and keeps as many under way as there may be, some of the next unit while
/// the last ones of this one are to come.
struct ReadWorker {
  /// A unit that is there, or of which a read failed.
  struct Outcome {
    var number: UInt64
    var bytes: Int
    var error: (any Error)?
  }

  private struct Unit {
    var number: UInt64
    /// Reads that are not done.
    var open = 0
    var bytes = 0
    var error: (any Error)?
  }

  /// A run of a file's bytes to where they belong.
  private struct Piece {
    var number: UInt64
    var file: Int
    var offset: UInt64
    var byteCount: Int
    var target: UnsafeMutableRawPointer
    /// Bytes read ahead of the piece, since a direct read begins with a page; nil for reads through the page cache.
    var lead: Int?
  }

  private let queue: ReadQueue
  private var files: [WeightFile]
  private let bases: [UnsafeMutableRawPointer]
  private let slotBytes: Int
  private let fault: (@Sendable (Int) -> Int?)?
  /// In order.
  private var units: [Unit] = []
  private var waiting: [Piece] = []
  private var waitingStart = 0
  private var underWay: [Int: Piece] = [:]
  private var tags = 0

  private static let pieceBytes = 1 << 20

  init(files: [WeightFile], slots: [Buffer], options: ReadOptions) throws {
    self.files = files
    fault = options.fault
    slotBytes = slots.map(\.byteCount).min() ?? 0
    bases = try slots.map { slot in
      guard let base = slot.contents else {
        throw WeightReadError(description: "pinned memory for weights is not mapped: use --weights-from host")
      }
      return base
    }
    queue = ReadQueue(
      buffers: zip(bases, slots).map { UnsafeMutableRawBufferPointer(start: $0, count: $1.byteCount) },
      usesRing: options.usesRing)
    // Direct reads go to whole pages of memory.
    if bases.contains(where: { Int(bitPattern: $0) % StreamLayout.pageBytes != 0 }) {
      for index in self.files.indices { self.files[index].giveUpDirect() }
    }
  }

  /// Why the queue can no longer be used: what was under way may still arrive in any slot.
  private var broken: (any Error)?

  var isIdle: Bool { units.isEmpty }

  /// How files are read, in a few words.
  var method: String {
    "\(queue.method.rawValue), \(files.allSatisfy(\.isDirect) ? "past" : "through") the page cache"
  }

  func close() { for file in files { file.close() } }

  /// Begins to read a unit into its slot.
  mutating func start(number: UInt64, extents: [StreamLayout.Extent]) {
    var unit = Unit(number: number)
    do {
      if let broken { throw broken }
      for file in Set(extents.map(\.file)) { try files[file].check() }
      let base = bases[Int(number % UInt64(bases.count))]
      for extent in extents {
        // Whole pages would overwrite what other runs have brought.
        let isWhole = extent.runBytes == extent.byteCount
        for run in 0..<extent.byteCount / max(extent.runBytes, 1) {
          let pieces = cut(
            number: number, file: extent.file, offset: extent.offset + UInt64(run * extent.stride),
            byteCount: extent.runBytes, to: base + extent.place + run * extent.runBytes, mayPad: isWhole)
          unit.open += pieces.count
          waiting += pieces
        }
      }
    } catch {
      unit.error = error
    }
    units.append(unit)
  }

  /// A unit that is not read, since one before it could not be.
  mutating func skip(number: UInt64) { units.append(Unit(number: number)) }

  /// Keeps reads under way, waits for one if there are any, and returns the units that are done with, in order.
  mutating func advance() -> [Outcome] {
    while queue.underWay < queue.depth, waitingStart < waiting.count {
      issue(waiting[waitingStart])
      waitingStart += 1
    }
    if waitingStart == waiting.count {
      waiting.removeAll(keepingCapacity: true)
      waitingStart = 0
    }
    do {
      for (tag, result) in broken == nil ? try queue.wait() : [] {
        guard let piece = underWay.removeValue(forKey: tag) else { continue }
        finish(piece, result: fault?(result) ?? result)
      }
    } catch {
      broken = error
      for index in units.indices {
        fail(units[index].number, error)
        units[index].open = 0
      }
    }
    var outcomes: [Outcome] = []
    while let unit = units.first, unit.open == 0 {
      outcomes.append(Outcome(number: unit.number, bytes: unit.bytes, error: unit.error))
      units.removeFirst()
    }
    return outcomes
  }

  /// Cuts a run of bytes where pieces of the file end, so that no two direct reads share a page.
  ///
  /// - Parameter mayPad: whether what shares a page with the run may be read too, to the place beside it.
  private func cut(
    number: UInt64, file: Int, offset: UInt64, byteCount: Int, to target: UnsafeMutableRawPointer,
    mayPad: Bool
  ) -> [Piece] {
    var pieces: [Piece] = []
    var done = 0
    while done < byteCount {
      let start = offset + UInt64(done)
      let count = min(byteCount - done, Self.pieceBytes - Int(start % UInt64(Self.pieceBytes)))
      let lead = Int(start % UInt64(StreamLayout.pageBytes))
      let isAligned = mayPad && Int(bitPattern: target + done - lead) % StreamLayout.pageBytes == 0
      pieces.append(
        Piece(
          number: number, file: file, offset: start, byteCount: count, target: target + done,
          lead: isAligned ? lead : nil))
      done += count
    }
    return pieces
  }

  private mutating func issue(_ piece: Piece) {
    var piece = piece
    let page = StreamLayout.pageBytes
    if !files[piece.file].isDirect { piece.lead = nil }
    var read = ReadQueue.Read(
      file: files[piece.file].descriptor, offset: piece.offset, byteCount: piece.byteCount,
      target: piece.target)
    if let lead = piece.lead {
      read.file = files[piece.file].direct
      read.offset -= UInt64(lead)
      read.target -= lead
      read.byteCount = (lead + piece.byteCount + page - 1) / page * page
    }
    tags += 1
    underWay[tags] = piece
    queue.add(read, tag: tags)
  }

  private mutating func finish(_ piece: Piece, result: Int) {
    guard let index = units.firstIndex(where: { $0.number == piece.number }) else { return }
    var rest = piece
    rest.lead = nil
    if result < 0, piece.lead != nil, [-22, -14, -95].contains(result) {
      // EINVAL, EFAULT, EOPNOTSUPP: no direct reads of this file, or not into this memory.
      files[piece.file].giveUpDirect()
    } else if result == -4 || result == -11 {
      // EINTR, EAGAIN.
      rest.lead = piece.lead
    } else if result <= 0 {
      units[index].open -= 1
      return fail(piece.number, files[piece.file].failure(at: piece.offset, result: result))
    } else {
      let count = min(result - (piece.lead ?? 0), piece.byteCount)
      if count == piece.byteCount {
        units[index].open -= 1
        units[index].bytes += count
        return
      }
      if count > 0 {
        units[index].bytes += count
        rest.offset += UInt64(count)
        rest.byteCount -= count
        rest.target += count
      }
    }
    // The read that ended left room for this one.
    issue(rest)
  }

  /// A unit cannot be had: what of it has not been started need not be.
  private mutating func fail(_ number: UInt64, _ error: any Error) {
    guard let index = units.firstIndex(where: { $0.number == number }) else { return }
    units[index].error = units[index].error ?? error
    let dropped = waiting[waitingStart...].count { $0.number == number }
    waiting.removeSubrange(..<waitingStart)
    waitingStart = 0
    waiting.removeAll { $0.number == number }
    units[index].open -= dropped
  }

  /// Bytes a second that the first file gives, in a fifth of a second.
  mutating func measure() throws -> Double {
    guard let file = files.first, slotBytes >= Self.pieceBytes, file.size >= 4 * Self.pieceBytes else {
      return 0
    }
    let (places, pieces) = (slotBytes / Self.pieceBytes, file.size / Self.pieceBytes)
    let start = ContinuousClock.now
    var (issued, bytes) = (0, 0)
    while true {
      let isOver = ContinuousClock.now - start > .milliseconds(200) || issued >= pieces
      while !isOver, issued < pieces, queue.underWay < queue.depth {
        let slot = bases[issued / places % bases.count]
        issue(
          Piece(
            number: 0, file: 0, offset: UInt64(issued * Self.pieceBytes), byteCount: Self.pieceBytes,
            target: slot + issued % places * Self.pieceBytes, lead: 0))
        issued += 1
      }
      let done = try queue.wait()
      if done.isEmpty { break }
      for (tag, result) in done {
        guard let piece = underWay.removeValue(forKey: tag) else { continue }
        if result < 0, piece.lead != nil { files[piece.file].giveUpDirect() }
        bytes += max(result, 0)
      }
    }
    return Double(bytes) / max((ContinuousClock.now - start) / .seconds(1), 1e-6)
  }
}
