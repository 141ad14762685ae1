import CShaderInterface
import Transformer
import VulkanRuntime

/// The most that steps on one device may ask for.
package struct StepLimits: Sendable, Hashable {
  /// Tokens of a step.
  package var rows: Int
  /// Tokens of a step whose logits are wanted.
  package var outputs: Int
  /// Sequences known at the same time.
  package var sequences: Int
  /// Pages of one sequence.
  package var pagesPerSequence: Int

  package init(rows: Int, outputs: Int, sequences: Int, pagesPerSequence: Int) {
    self.rows = rows
    self.outputs = outputs
    self.sequences = sequences
    self.pagesPerSequence = pagesPerSequence
  }
}

/// Device memory that every step of a Program uses: activations, logits, counters, block tables.
package final class Workspace: Sendable {
  package let limits: StepLimits
  /// Floats between rows of each array.
  package let residualStride: Int
  package let queryStride: Int
  package let scratchStride: Int
  package let logitsStride: Int
  /// Inputs of a product, padded: see `NextInputs`.
  package let attentionWidth: Int
  package let hiddenWidth: Int

  /// Floats of `partials`, and counters.
  package let partialCount: Int
  package let counterCount: Int
  package let dequantizedBytes: Int

  package let memory: Buffer
  /// Written by the host: [sequence][pagesPerSequence] page numbers.
  package let blockTables: Buffer
  /// How often each sequence holds each token: [sequence][vocabulary].
  package let counts: Buffer
  private let offsets: [Int]

  package enum Array: Int, CaseIterable, Sendable {
    case residual, queries, scratch, partials, logits, best, counters, lastTokens
    /// Inputs of products, float32 or blocks of bytes, and the scales of blocks.
    case normed, normedScales, squares, attention, attentionScales, hidden, hiddenScales
    /// New keys and values, float32, where the cache is quantised.
    case fresh
    /// Inputs of an unfused step's products, or of products in bytes on matrix units, in blocks of bytes.
    case quantised, quantisedScales
    /// Rows of a matrix as float16: see `DequantizedProduct`.
    case dequantized
  }

  package init(device: Device, program: Program, limits: StepLimits, traits: DeviceTraits) throws {
    let sizes = Sizes(program: program, limits: limits, traits: traits)
    self.limits = limits
    residualStride = activationStride(program.width)
    queryStride = sizes.queryStride
    attentionWidth = sizes.attentionWidth
    hiddenWidth = sizes.hiddenWidth
    scratchStride = sizes.scratchStride
    logitsStride = sizes.logitsStride
    offsets = sizes.offsets
    partialCount = sizes.partials
    counterCount = sizes.counters
    dequantizedBytes = sizes.dequantizedBytes
    memory = try device.makeBuffer(byteCount: sizes.byteCount, memory: .device, label: "activations")
    blockTables = try device.makeBuffer(
      byteCount: 4 * limits.sequences * limits.pagesPerSequence, memory: .mappedDevice, label: "block tables")
    counts = try device.makeBuffer(
      byteCount: 4 * Self.countWords(program: program, limits: limits), memory: .device, label: "token counts"
    )
    let (memory, counts) = (memory, counts)
    try device.run { commands in
      // Counters must start at 0, and padding of activations must be finite.
      commands.fill(memory, offset: 0, byteCount: memory.byteCount / 4 * 4, value: 0)
      commands.fill(counts, offset: 0, byteCount: counts.byteCount / 4 * 4, value: 0)
      commands.barrier()
    }
  }

  package func address(_ array: Array) -> UInt64 { memory.address + UInt64(offsets[array.rawValue]) }
  package func offset(_ array: Array) -> Int { offsets[array.rawValue] }

  /// Device bytes that a workspace with these limits takes.
  package static func byteCount(program: Program, limits: StepLimits, traits: DeviceTraits) -> Int {
    Sizes(program: program, limits: limits, traits: traits).byteCount
      + 4 * (limits.sequences * limits.pagesPerSequence + countWords(program: program, limits: limits))
  }

  /// Only the device of a mesh that draws tokens counts them.
  private static func countWords(program: Program, limits: StepLimits) -> Int {
    program.share.samples ? limits.sequences * program.vocabularySize : 1
  }

  private struct Sizes {
    var queryStride: Int
    var attentionWidth: Int
    var hiddenWidth: Int
    var scratchStride: Int
    var logitsStride: Int
    var partials = 0
    var counters = 0
    var dequantizedBytes = 0
    var offsets: [Int] = []
    var byteCount = 0

    init(program: Program, limits: StepLimits, traits: DeviceTraits) {
      let heads = program.heads
      queryStride = heads.headCount * heads.headSize
      attentionWidth = activationStride(queryStride)
      hiddenWidth = activationStride(program.feedForwardWidth)
      scratchStride = max(
        (heads.headCount + heads.kvHeadCount) * heads.headSize, activationStride(program.width))
      if !traits.method.fuses {
        // What products leave, stacked: queries, keys and values, or gates and what they multiply.
        scratchStride = max(
          scratchStride, activationStride((heads.headCount + 2 * heads.kvHeadCount) * heads.headSize),
          2 * hiddenWidth)
      }
      let quantises = traits.method.fuses ? traits.method.gemm == .bytes : traits.usesByteProducts
      let quantisedWidth =
        quantises ? max(activationStride(program.width), attentionWidth, hiddenWidth) : 0
      // The device of a mesh that draws tokens has the logits of all others too.
      let share = program.share
      let vocabulary =
        share.samples ? program.vocabularySize : share.isLastStage ? share.vocabulary.count : 1
      logitsStride = (vocabulary + 63) / 64 * 64
      // Splits shrink as rows grow, so partial results are bounded by the product at its largest.
      counters = (heads.headCount + heads.kvHeadCount) * ((limits.rows + 7) / 8 + 8) + limits.rows
      var rows = 1
      while true {
        // Single tokens, or pieces of prompts as long as tiles may be: of these there are fewer, and more splits.
        for tileRows in [1, limits.rows] {
          let kernel = AttentionKernel(heads: heads, tileRows: tileRows, rowCount: rows, traits: traits)
          partials = max(partials, kernel.partialCount(rowCount: rows))
          counters = max(counters, kernel.counterCount(tileCount: rows), kernel.headGroups * limits.rows)
        }
        for isDeep in [false, true] {
          guard
            let kernel = AttentionDecodeKernel(
              heads: heads, tokenCount: rows, isDeep: isDeep, traits: traits)
          else { continue }
          partials = max(partials, kernel.partialCount(tokenCount: rows))
          counters = max(counters, kernel.headGroups * limits.rows)
        }
        if rows >= limits.rows { break }
        // As long as there are splits, a token more may take more or less.
        rows = min(rows < 64 ? rows + 1 : rows * 2, limits.rows)
      }
      if traits.matrixUnits != nil, limits.rows > 8 {
        // Products whose tiles are few share the inputs of each among workgroups, as far as this goes.
        partials = max(partials, 4 << 20)
        counters = max(counters, 4096)
        if traits.method.gemm == nil, limits.rows >= DequantizedProduct.leastTokens {
          dequantizedBytes = Self.dequantizedBytes(program, traits)
        }
      }
      for array in Array.allCases {
        let floats =
          switch array {
          case .residual: limits.rows * activationStride(program.width)
          case .queries: limits.rows * queryStride
          case .normed: limits.rows * activationStride(program.width)
          case .normedScales: limits.rows * activationStride(program.width) / 16
          // One for each workgroup of the product before, which has two rows or more.
          case .squares: limits.rows * program.width / 2
          case .attention: limits.rows * attentionWidth
          case .attentionScales: limits.rows * attentionWidth / 16
          case .hidden: limits.rows * hiddenWidth
          case .hiddenScales: limits.rows * hiddenWidth / 16
          case .quantised: limits.rows * quantisedWidth / 4
          case .quantisedScales: limits.rows * quantisedWidth / 16
          case .best: limits.outputs * (vocabulary + 1)
          case .scratch: limits.rows * scratchStride
          case .partials: partials
          case .logits: limits.outputs * logitsStride
          case .counters: counters
          case .lastTokens: limits.sequences
          case .dequantized: dequantizedBytes / 4
          case .fresh: heads.cacheType == .f16 ? 0 : limits.rows * CacheWriteKernel.width(heads)
          }
        offsets.append(byteCount)
        byteCount += (max(floats, 1) * 4 + 255) / 256 * 256
      }
    }

    private static func dequantizedBytes(_ program: Program, _ traits: DeviceTraits) -> Int {
      program.stages.filter(\.isOfLayer).flatMap { $0.matrixSpecs(rowInterleave: traits.rowInterleave) }
        .filter { DequantizeKernel.takes($0.format) }
        .reduce(0) { max($0, DequantizedProduct.byteCount(rows: $1.rows, columns: $1.columns)) }
    }
  }
}

/// What one step holds: written by the host into a slot, read by the recorded Plan.
package final class StepSlot: Sendable {
  package let data: Buffer
  /// Results, read by the host: token ids or log-probabilities, one for each output.
  package let results: Buffer
  private let limits: StepLimits
  /// Which of the slots it is.
  package let index: Int
  private let tilesOffset: Int
  private let samplesOffset: Int

  package init(device: Device, limits: StepLimits, index: Int) throws {
    self.limits = limits
    self.index = index
    let rowBytes = MemoryLayout<StepRow>.stride
    tilesOffset = 256 + (limits.rows * rowBytes + 255) / 256 * 256
    samplesOffset = tilesOffset + (limits.rows * MemoryLayout<AttentionTile>.stride + 255) / 256 * 256
    let byteCount = samplesOffset + limits.outputs * MemoryLayout<SampleParameters>.stride
    data = try device.makeBuffer(byteCount: byteCount, memory: .mappedDevice, label: "step \(index)")
    results = try device.makeBuffer(
      byteCount: 4 * limits.outputs, memory: .download, label: "results of step \(index)")
    guard data.contents != nil, results.contents != nil else {
      throw KernelError.unsupported("\(device.physical.name): step memory cannot be mapped")
    }
  }

  package var stepAddress: UInt64 { data.address }
  package var tilesAddress: UInt64 { data.address + UInt64(tilesOffset) }
  package var samplesAddress: UInt64 { data.address + UInt64(samplesOffset) }

  /// Writes a step; the device must not be reading the slot.
  package func write(_ step: StepContents) {
    precondition(step.rows.count <= limits.rows && step.outputs.count <= limits.outputs)
    let base = data.contents!
    var rows = step.rows
    for (index, row) in step.outputs.enumerated() { rows[index].output_row = UInt32(row) }
    base.storeBytes(
      of: SIMD4<UInt32>(
        UInt32(rows.count), UInt32(step.outputs.count), UInt32(step.tiles.count), 0), as: SIMD4<UInt32>.self)
    rows.withUnsafeBytes { (base + 16).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    step.tiles.withUnsafeBytes { (base + tilesOffset).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    step.samples.withUnsafeBytes { bytes in
      guard let source = bytes.baseAddress else { return }
      (base + samplesOffset).copyMemory(from: source, byteCount: bytes.count)
    }
  }

  /// Whether a stage of the step that last ran gave up waiting for the one before it: its results are worthless.
  package var isAbandoned: Bool { data.contents!.load(fromByteOffset: 12, as: UInt32.self) != 0 }

  /// The results of the step that last ran; it must be done.
  package func readResults(count: Int) -> [UInt32] {
    let words = results.contents!.assumingMemoryBound(to: UInt32.self)
    return (0..<count).map { words[$0] }
  }
}

/// The tokens of one step and what is wanted of them.
package struct StepContents: Sendable {
  package var rows: [StepRow]
  /// Rows whose logits are wanted.
  package var outputs: [Int]
  /// One for each output.
  package var samples: [SampleParameters]
  package private(set) var tiles: [AttentionTile]

  /// - Parameter tileRows: most rows of an attention tile; rows of one sequence at neighbouring positions share one.
  package init(rows: [StepRow], outputs: [Int], samples: [SampleParameters], tileRows: Int) {
    precondition(!rows.isEmpty && outputs.count <= rows.count)
    self.rows = rows
    self.outputs = outputs
    self.samples = samples
    tiles = []
    for (index, row) in rows.enumerated() {
      if var last = tiles.last, last.row_count < tileRows, last.sequence == row.sequence,
        rows[index - 1].position + 1 == row.position
      {
        last.row_count += 1
        tiles[tiles.count - 1] = last
      } else {
        tiles.append(
          AttentionTile(
            first_row: UInt32(index), row_count: 1, sequence: row.sequence,
            first_position: row.position))
      }
    }
  }
}

extension Stage {
  fileprivate var isOfLayer: Bool {
    switch self {
    case .embed, .logits: false
    case .queryKeyValue, .attention, .residualProjection, .gatedFeedForward, .collective: true
    }
  }
}
