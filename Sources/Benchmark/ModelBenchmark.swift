import CShaderInterface
import Engine
import Kernels
import Placement
import Transformer
import VulkanRuntime

/// What is to be measured of a model.
package struct ModelWorkload: Sendable {
  /// Tokens of prompts, each measured alone.
  package var prompts: [Int]
  /// Tokens that are in the cache when generation starts.
  package var depths: [Int]
  /// Sequences that generate at the same time.
  package var batches: [Int]
  /// Tokens that each of them generates.
  package var tokens: Int
  /// Whether the tilings of products are measured first, where they are not known: see `ModelRunner.tune`.
  package var tunes: Bool
  package var overlaps: Bool
  /// How steps are computed.
  package var method: StepMethod
  /// Memory that may be taken.
  package var memory: MemoryOptions
  /// What is kept of keys and values.
  package var cacheType: KVCacheType

  package init(
    prompts: [Int], depths: [Int], batches: [Int], tokens: Int, tunes: Bool, overlaps: Bool = true,
    method: StepMethod = StepMethod(), memory: MemoryOptions = MemoryOptions(), cacheType: KVCacheType = .f16
  ) {
    self.method = method
    self.cacheType = cacheType
    self.memory = memory
    self.prompts = prompts
    self.depths = depths
    self.batches = batches
    self.tokens = tokens
    self.tunes = tunes
    self.overlaps = overlaps
  }

  /// The same with keys and values in host memory as that says.
  package func offloading(_ offload: KVOffload) -> ModelWorkload {
    var workload = self
    workload.memory.kvOffload = offload
    return workload
  }

  /// Positions of one sequence of each figure with its number of sequences.
  private var spans: [(sequences: Int, positions: Int)] {
    prompts.map { (1, $0) } + batches.flatMap { batch in depths.map { (batch, $0 + tokens + 8) } }
  }

  var sequences: Int { max(1, spans.map(\.sequences).max() ?? 1) }

  var pagesPerSequence: Int { max(1, spans.map { KVCache.pages(forTokens: $0.positions) }.max() ?? 1) }

  /// Pages that the most demanding figure needs.
  var pageCount: Int {
    max(1, spans.map { $0.sequences * KVCache.pages(forTokens: $0.positions) }.max() ?? 1)
  }

  /// Sequences that may generate at once.
  package static let mostSequences = 4096

  /// The most that a step asks for, with prompts in chunks of so many tokens.
  func limits(promptChunk: Int) -> StepLimits {
    StepLimits(
      rows: max(promptChunk, sequences), outputs: sequences, sequences: sequences,
      pagesPerSequence: pagesPerSequence)
  }
}

/// Speed of one model on one device: steps are driven directly, with as many sequences as asked for.
package final class ModelBenchmark {
  package let benchmark: BenchmarkDevice
  package let model: LanguageModel
  /// Host seconds from the start of loading to readiness.
  package let loadSeconds: Double
  /// Bytes of weights that a step reads, however few tokens it has.
  package let weightBytes: Int
  private let workload: ModelWorkload
  private let runner: ModelRunner
  private let promptChunk: Int
  private let deviceModel: DeviceModel
  /// Where weights are, in a line; nil where all are on the device as usual.
  package let placementText: String?

  /// Loads `model` and makes a cache for all that `workload` asks for, filled with random keys and values.
  ///
  /// - Parameter onProgress: called with the bytes loaded so far and in all; throwing stops the load.
  package init(
    benchmark: BenchmarkDevice, model: LanguageModel, workload: ModelWorkload,
    onProgress: @escaping (_ loaded: Int, _ total: Int) throws -> Void = { _, _ in }
  ) throws {
    self.benchmark = benchmark
    self.model = model
    self.workload = workload
    let start = ContinuousClock.now
    let program = try model.program(cacheType: workload.cacheType)
    let kernels = benchmark.cache(for: workload.method)
    let usualChunk = Engine.promptChunk(EngineOptions(), traits: kernels.traits)
    let placed = try Self.place(
      traits: kernels.traits, benchmark: benchmark, model: model, workload: workload)
    let weights = DeviceModel.weightBytes(of: program)
    promptChunk = placed.streamed?.promptChunk ?? usualChunk
    placementText = placed.streamed.map {
      "\($0.weights.text); " + (placed.cache.map { "\($0.text); " } ?? "")
        + "prompts in chunks of \($0.promptChunk)"
    }
    var loaded = 0
    try onProgress(0, weights)
    deviceModel = try DeviceModel(
      program: program, source: model.source, cache: kernels, residency: placed.streamed?.weights.residency
    ) { bytes in
      loaded += bytes
      try onProgress(min(loaded, weights), weights)
    }
    runner = try ModelRunner(
      cache: kernels, model: deviceModel, limits: workload.limits(promptChunk: promptChunk),
      pageCount: workload.pageCount,
      overlaps: workload.overlaps, cacheResidency: placed.cache?.residency)
    if workload.tunes { try runner.tune(sequences: workload.sequences) }
    weightBytes = deviceModel.stages.reduce(0) { $0 + $1.matrixBytes }
    loadSeconds = (ContinuousClock.now - start) / .seconds(1)
    for layer in 0..<program.layerCount {
      try benchmark.fill(
        runner.kvCache.keys(layer: layer), byteCount: runner.kvCache.layerByteCount,
        keepAlive: [])
    }
  }

  /// What is where; nothing is said where all has room on the device.
  private struct Placed {
    var streamed: StreamedPlacement?
    var cache: CachePlacement?
  }

  private static func place(
    traits: DeviceTraits, benchmark: BenchmarkDevice, model: LanguageModel, workload: ModelWorkload
  ) throws -> Placed {
    let offload = workload.memory.kvOffload
    guard offload != .on || workload.method.isFast else {
      throw BenchmarkError(
        "unfused steps and naive products want keys and values on the device: leave out --kv-offload")
    }
    return try CachePlacement.choose(
      offload, canOffload: workload.method.isFast,
      weights: {
        Placed(
          streamed: try placeWeights(
            traits: traits, benchmark: benchmark, model: model, workload: workload))
      },
      caches: {
        let cache = try CachePlacement(
          program: try model.program(cacheType: workload.cacheType), source: model.source,
          memory: workload.memory, available: benchmark.availableMemory, wanted: workload.pageCount,
          least: workload.pageCount, keepsNone: offload == .on,
          chunk: Engine.promptChunk(EngineOptions(), traits: traits), traits: traits, limits: workload.limits)
        return Placed(streamed: cache.streamed, cache: cache)
      },
      bytesBrought: { ($0.streamed?.weights.copiedBytes ?? 0) + ($0.cache?.hostBytes ?? 0) })
  }

  /// Where weights stay and how long chunks of prompts are; nil where all has room on the device.
  private static func placeWeights(
    traits: DeviceTraits, benchmark: BenchmarkDevice, model: LanguageModel, workload: ModelWorkload
  ) throws -> StreamedPlacement? {
    let program = try model.program(cacheType: workload.cacheType)
    let usualChunk = Engine.promptChunk(EngineOptions(), traits: traits)
    let cache = workload.pageCount * KVCache.pageBytes(heads: program.heads) * program.layerCount
    let workspace = Workspace.byteCount(
      program: program, limits: workload.limits(promptChunk: usualChunk), traits: traits)
    let available = benchmark.availableMemory
    guard
      workload.memory.isGiven || DeviceModel.weightBytes(of: program) + cache + workspace > available
    else { return nil }
    guard workload.method.isFast else {
      throw BenchmarkError(
        "unfused steps and naive products want room for all weights, "
          + "\(gigabytes(DeviceModel.weightBytes(of: program) + cache + workspace)): \(gigabytes(available)) are free; "
          + "take a smaller model, or fewer tokens")
    }
    // Weights that stream are brought once for all tokens of a step: the more the better.
    let wanted = workload.prompts.max() ?? 1
    return try StreamedPlacement(
      program: program, source: model.source, memory: workload.memory, available: available,
      cacheBytes: cache, chunk: traits.isCPU ? usualChunk : max(16, min(wanted, 8192)),
      traits: traits, limits: workload.limits)
  }

  /// The most sequences that memory has room for at once, with no more weights brought in each step than have to be.
  package static func largestBatch(
    benchmark: BenchmarkDevice, model: LanguageModel, workload: ModelWorkload
  ) throws -> Int {
    let heads = try model.program(cacheType: workload.cacheType).heads
    func placement(_ batch: Int) throws -> StreamedPlacement? {
      // Batches are not made larger than what keys and values on the device allow, unless that is asked for.
      var workload = workload.memory.kvOffload == .auto ? workload.offloading(.off) : workload
      workload.batches = [batch]
      return try place(
        traits: benchmark.cache(for: workload.method).traits, benchmark: benchmark, model: model,
        workload: workload
      ).streamed
    }
    // What is on the device already for one sequence stays there.
    let streams = try placement(1)?.weights.layout != nil
    func fits(_ batch: Int) -> Bool {
      // A layer's pages lie in one allocation.
      var pages = workload
      pages.batches = [batch]
      guard
        pages.pageCount * KVCache.pageBytes(heads: heads)
          <= Int(clamping: benchmark.device.capabilities.maxAllocationBytes)
      else { return false }
      do {
        let placed = try placement(batch)
        return streams || placed?.weights.layout == nil
      } catch {
        return false
      }
    }
    var (most, tooMany) = (1, ModelWorkload.mostSequences + 1)
    while tooMany - most > 1 {
      let middle = (most + tooMany) / 2
      if fits(middle) { most = middle } else { tooMany = middle }
    }
    return most
  }

  /// Sequences that generate at once, one figure each.
  package var batches: [Int] { workload.batches }

  // MARK: Prompts

  /// Seconds to process a prompt and to choose the token after it.
  package func prompt(_ count: Int, repetitions: Int) throws -> Samples {
    try givePages(sequences: 1, positions: count)
    return try benchmark.repeated(repetitions) {
      let start = ContinuousClock.now
      var position = 0
      while position < count {
        let end = min(position + promptChunk, count)
        let rows = (position..<end).map { row(token: UInt32($0 % 997 + 1), position: $0, sequence: 0) }
        let isLast = end == count
        let ticket = try runner.submit(
          rows: rows, outputs: isLast ? [rows.count - 1] : [],
          samples: isLast ? [greedy(sequence: 0, position: end)] : [], output: .sample)
        if isLast { _ = try runner.results(ticket) }
        position = end
      }
      return (ContinuousClock.now - start) / .seconds(1)
    }
  }

  /// Floating-point operations of the matrix products for `count` tokens.
  package func promptOperations(_ count: Int) -> Double {
    let weights = model.program.stages.flatMap(\.matrices).reduce(0.0) { sum, slice in
      sum + Double(slice.rows.count) * Double(slice.columns.count)
    }
    let tables = model.program.stages.reduce(0.0) { sum, stage in
      switch stage {
      case .embed(let stage): sum + Double(stage.table.rows.count) * Double(stage.table.columns.count)
      case .logits(let stage): sum + Double(stage.table.rows.count) * Double(stage.table.columns.count)
      default: sum
      }
    }
    return 2 * Double(count) * (weights - tables)
  }

  // MARK: Generation

  /// Seconds of one step that generates a token for each of `batch` sequences, `tokens` steps in a row.
  ///
  /// Tokens stay on the device; steps are queued ahead and their results read behind, as in generation.
  package func decode(depth: Int, batch: Int, repetitions: Int) throws -> Samples {
    try givePages(sequences: batch, positions: depth + workload.tokens + 8)
    func run(_ steps: Int) throws -> Double {
      var tickets: [StepTicket] = []
      var start = ContinuousClock.now
      var queued = 0
      // The first step's result starts the clock.
      for done in 0...steps {
        while queued <= steps, tickets.count < runner.depth - 1 {
          tickets.append(try submit(position: depth + queued, batch: batch))
          queued += 1
        }
        _ = try runner.results(tickets.removeFirst())
        if done == 0 { start = ContinuousClock.now }
      }
      return (ContinuousClock.now - start) / .seconds(1) / Double(steps)
    }
    try benchmark.warmUp { _ = try run(min(workload.tokens, 8)) }
    return Samples(try (0..<repetitions).map { _ in try run(workload.tokens) })
  }

  /// What streams to the device, how fast link and disk are, and what they did so far; nil where no weights stream.
  package var streaming: StreamFigures? { deviceModel.stream?.figures }

  /// What moves of keys and values between host and device; nil where all are on the device.
  package var cacheStreaming: CacheStreamFigures? { runner.cacheStream?.figures }

  /// Watches what the device waits for, until it is ended; nil where no weights stream.
  package func watchStream() -> StreamWatch? { deviceModel.stream?.watch() }

  /// Device memory in use, in bytes.
  package var deviceMemory: Int { benchmark.device.allocatedBytes }

  private func submit(position: Int, batch: Int) throws -> StepTicket {
    try runner.submit(
      rows: (0..<batch).map { row(token: TOKEN_FROM_DEVICE, position: position, sequence: $0) },
      outputs: Array(0..<batch), samples: (0..<batch).map { greedy(sequence: $0, position: position + 1) },
      output: .sample)
  }

  /// Bytes of weights and cache that a step for `batch` sequences reads, in the middle of a run.
  package func bytesRead(depth: Int, batch: Int) -> Double {
    let position = Double(depth) + Double(workload.tokens) / 2
    return Double(weightBytes)
      + Double(batch)
      * deviceModel.program.stages.reduce(0) { sum, stage in
        guard case .attention(let stage) = stage else { return sum }
        return sum + Self.cacheBytes(stage, position: position)
      }
  }

  /// Bytes of keys and values that a token at `position` attends to in one layer.
  private static func cacheBytes(_ stage: AttentionStage, position: Double) -> Double {
    let seen = min(position + 1, stage.window.map(Double.init) ?? .infinity)
    return seen * Double(2 * stage.heads.kvHeadCount * stage.heads.cacheType.byteCount(stage.heads.headSize))
  }

  // MARK: Profile

  /// One step that generates a token for each of `batch` sequences, kind of stage by kind of stage; medians.
  package func profile(depth: Int, batch: Int, repetitions: Int) throws -> StepProfile {
    try givePages(sequences: batch, positions: depth + workload.tokens + 8)
    let rows = (0..<batch).map { row(token: UInt32($0 % 997 + 1), position: depth, sequence: $0) }
    let samples = (0..<batch).map { greedy(sequence: $0, position: depth + 1) }
    var builder = StepProfile.Builder()
    try benchmark.warmUp { _ = try runner.results(try submit(position: depth, batch: batch)) }
    for _ in 0..<repetitions {
      builder.add(
        try runner.trace(rows: rows, outputs: Array(0..<batch), samples: samples).map { time in
          let (name, bytes) = time.stage.map { describe($0, depth: depth, batch: batch) } ?? ("sampling", 0)
          return (name, bytes, time)
        })
    }
    return builder.profile
  }

  /// What a stage is called, and the bytes of weights or cache that it reads.
  private func describe(_ index: Int, depth: Int, batch: Int) -> (String, Double) {
    let stage = deviceModel.program.stages[index]
    let bytes =
      if case .attention(let attention) = stage {
        Double(batch) * Self.cacheBytes(attention, position: Double(depth))
      } else {
        Double(deviceModel.stages[index].matrixBytes)
      }
    return (stage.kindName, bytes)
  }

  // MARK: -

  /// Gives the first `sequences` sequences pages of their own.
  private func givePages(sequences: Int, positions: Int) throws {
    try runner.drain()
    let count = KVCache.pages(forTokens: positions)
    for sequence in 0..<sequences {
      let pages = (0..<count).map { UInt32(sequence * count + $0) }
      try runner.setPages(pages, sequence: sequence, from: 0)
    }
  }

  private func row(token: UInt32, position: Int, sequence: Int) -> StepRow {
    StepRow(token: token, position: UInt32(position), sequence: UInt32(sequence), output_row: 0)
  }

  private func greedy(sequence: Int, position: Int) -> SampleParameters {
    .greedy(sequence: sequence, position: position)
  }
}

extension SampleParameters {
  /// The best token, for the place `position` of a sequence.
  static func greedy(sequence: Int, position: Int) -> SampleParameters {
    var parameters = SampleParameters()
    parameters.top_p = 1
    parameters.repeat_penalty = 1
    parameters.sequence = UInt32(sequence)
    parameters.position = UInt32(position)
    return parameters
  }
}

extension Stage {
  /// What stages of this kind are called in a table.
  package var kindName: String {
    switch self {
    case .embed: "embed"
    case .queryKeyValue: "norm+QKV+rope"
    case .attention: "attention"
    case .residualProjection(let stage): stage.input == .attention ? "output projection" : "down projection"
    case .gatedFeedForward: "norm+gate/up"
    case .logits: "norm+logits"
    case .collective: "collective"
    }
  }
}

/// What cannot be measured, in one line.
package struct BenchmarkError: Error, CustomStringConvertible, Sendable {
  package let description: String
  package init(_ description: String) { self.description = description }
}

/// "12.3 GB".
func gigabytes(_ bytes: Int) -> String {
  let tenths = Int((Double(bytes) / 1e8).rounded(.up))
  return "\(tenths / 10).\(tenths % 10) GB"
}
