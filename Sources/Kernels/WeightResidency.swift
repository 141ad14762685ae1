import ModelFiles
import Transformer

/// Where weights stay between steps.
package enum WeightTier: String, Sendable, Hashable {
  /// In the device's memory.
  case device
  /// In pinned host memory in device layout. What products read is copied to the device in every step; an embedding
  /// table is read where it is, row by row.
  case host
  /// In the model's file: read, copied and unpacked in every step.
  case file
}

/// Where the weights of a Program are while a device runs it.
package struct WeightResidency: Sendable, Hashable {
  /// The tier of each stage's matrices.
  package var tiers: [WeightTier]
  /// Bytes of the ring of device memory that weights stream through; 0 where all are on the device.
  package var ringBytes = 0
  /// The most that is copied at once.
  package var unitBytes = 0
  /// Units that may be copied ahead of the one that is computed with; nil for as many as it takes.
  package var prefetch: Int?
  /// Of all matrices; see `WeightFormat`.
  package var rowInterleave = 1

  /// All on the device.
  package init(residentStages count: Int) {
    tiers = Array(repeating: .device, count: count)
  }

  /// Whether the products of a stage read weights that are not on the device.
  package func streams(_ stage: Stage, _ index: Int) -> Bool {
    if case .embed = stage { return false }
    return tiers[index] != .device && !stage.matrixSpecs.isEmpty
  }
}

/// What is copied when, and to which place of the ring: the same in every step, so that recordings can be replayed.
///
/// Weights that stream are cut into members, a matrix or some rows of one, and neighbouring members are copied
/// together, as a unit. Units stand in the ring one behind the other, from its start again when the end has no room.
package struct StreamLayout: Sendable {
  package struct Member: Sendable {
    package var stage: Int
    package var spec: MatrixSpec
    package var unit: Int
    /// From the start of its unit: planes, or the bytes of the file.
    package var offset: Int
    /// Where it is unpacked, from the start of the unpacking area; nil for planes.
    package var unpackedOffset: Int?
    /// For each part, where its bytes are in the file and in the unit.
    package var extents: [Extent] = []
  }

  /// Rows of a tensor in a file, or some columns of them.
  package struct Extent: Sendable, Hashable {
    package var file: Int
    package var offset: UInt64
    /// One behind the other in the unit.
    package var byteCount: Int
    /// From the start of the unit.
    package var place: Int
    /// Bytes that are read at a time, and those from the start of one run to that of the next: of all rows, or where
    /// only some columns are wanted of each.
    package var runBytes: Int
    package var stride: Int
  }

  package struct Unit: Sendable {
    package var members: Range<Int>
    package var tier: WeightTier
    /// Whether only the logits need it, so that steps without outputs leave it out.
    package var isForLogits: Bool
    /// In the ring.
    package var offset = 0
    package var byteCount = 0
  }

  package private(set) var members: [Member] = []
  package private(set) var units: [Unit] = []
  /// Bytes of the area where a unit from the file is unpacked.
  package private(set) var unpackedBytes = 0
  /// Whether the next member must not be copied with the one before.
  private var startsUnit = false

  package init(program: Program, residency: WeightResidency, source: any TensorSource) throws {
    for (index, stage) in program.stages.enumerated() {
      // Where devices meet, commands end: a unit is computed with by one part of a step only.
      if case .collective = stage { startsUnit = true }
      guard residency.streams(stage, index) else { continue }
      let isForLogits = if case .logits = stage { true } else { false }
      for whole in stage.matrixSpecs(rowInterleave: residency.rowInterleave) {
        // What the host has to widen cannot be unpacked on the device.
        let tier = whole.isUniform ? residency.tiers[index] : .host
        for spec in whole.pieces(of: residency.unitBytes) {
          try add(spec, stage: index, tier: tier, isForLogits: isForLogits, residency, source)
        }
      }
    }
    var end = 0
    for index in units.indices {
      if end + units[index].byteCount > residency.ringBytes { end = 0 }
      guard units[index].byteCount <= residency.ringBytes else {
        throw KernelError.unsupported(
          "weights of \(units[index].byteCount) bytes do not fit a ring of \(residency.ringBytes)")
      }
      units[index].offset = end
      end += units[index].byteCount
    }
  }

  private mutating func add(
    _ spec: MatrixSpec, stage: Int, tier: WeightTier, isForLogits: Bool, _ residency: WeightResidency,
    _ source: any TensorSource
  ) throws {
    var extents: [Extent] = []
    var byteCount = spec.byteCount
    if tier == .file {
      byteCount = 0
      for part in spec.parts {
        guard let tensor = source.tensor(part.slice.tensor), !source.paths.isEmpty else {
          throw KernelError.unsupported("tensor \(part.slice.tensor) is in no file to be read from")
        }
        let (type, columns) = (part.slice.type, part.slice.columns)
        let rowBytes = columns.count / type.blockSize * type.blockBytes
        let bytes = part.slice.rows.count * rowBytes
        let start =
          part.slice.rows.lowerBound * tensor.rowBytes + columns.lowerBound / type.blockSize * type.blockBytes
        let offset = tensor.offset + UInt64(start)
        // Reads that pass the page cache by are of whole pages: bytes stand in the unit as they do in those.
        let place = byteCount + Int(offset % UInt64(Self.pageBytes))
        extents.append(
          Extent(
            file: tensor.file, offset: offset, byteCount: bytes, place: place,
            runBytes: rowBytes == tensor.rowBytes ? bytes : rowBytes, stride: tensor.rowBytes))
        byteCount = (place + bytes + 8 + Self.pageBytes - 1) / Self.pageBytes * Self.pageBytes
      }
    }
    byteCount = MemoryArena.aligned(byteCount)
    func unpackedEnd(_ unit: Unit) -> Int {
      unit.members.reduce(0) { $0 + (members[$1].unpackedOffset == nil ? 0 : members[$1].spec.byteCount) }
    }
    var last = units.last
    if let unit = last,
      startsUnit || unit.tier != tier || unit.isForLogits != isForLogits
        || unit.byteCount + byteCount > residency.unitBytes
        || unpackedEnd(unit) + spec.byteCount > residency.unitBytes
    {
      last = nil
    }
    startsUnit = false
    if last == nil {
      units.append(
        Unit(members: members.count..<members.count, tier: tier, isForLogits: isForLogits))
    }
    let unit = units.count - 1
    let start = units[unit].byteCount
    let unpacked = tier == .file ? unpackedEnd(units[unit]) : nil
    for index in extents.indices { extents[index].place += start }
    members.append(
      Member(
        stage: stage, spec: spec, unit: unit, offset: start, unpackedOffset: unpacked, extents: extents))
    units[unit].members = units[unit].members.lowerBound..<members.count
    units[unit].byteCount += byteCount
    if let unpacked { unpackedBytes = max(unpackedBytes, unpacked + MemoryArena.aligned(spec.byteCount)) }
  }

  /// What direct reads of files are multiples of, in the file and in memory.
  static let pageBytes = 4096

  /// Bytes that a step with outputs copies from that tier.
  package func byteCount(from tier: WeightTier) -> Int {
    units.reduce(0) { $0 + ($1.tier == tier ? $1.byteCount : 0) }
  }

  /// The most bytes of a unit from the file.
  package var largestFileUnit: Int { units.reduce(0) { max($0, $1.tier == .file ? $1.byteCount : 0) } }

  /// For each unit those whose places in the ring it overlaps, itself among them.
  package var overlaps: [[Int]] {
    units.map { unit in
      let range = unit.offset..<unit.offset + unit.byteCount
      return units.indices.filter {
        range.overlaps(units[$0].offset..<units[$0].offset + units[$0].byteCount)
      }
    }
  }
}
