import CShaderInterface
import Kernels
import ModelFiles
import Transformer
import VulkanRuntime

/// Runs steps of a model, or of a device's share of one, on one device: it does not decide what is in them.
///
/// Several steps are in flight at a time, each in a slot of its own with its own recorded Plans, so the host reads
/// results behind and never stands between two steps.
package final class ModelRunner: StepRunner {
  let device: Device
  var traits: DeviceTraits { cache.traits }
  let cache: KernelCache
  let model: DeviceModel
  package let kvCache: KVCache
  /// Pages of sequences that wait.
  let hostPages: HostPages
  /// Brings keys and values of layers that the device has no room for; nil where it has room for all.
  package let cacheStream: CacheStream?
  /// The pages of each sequence, where they are brought for each step.
  var pagesOfSequences: [Int: [UInt32]] = [:]
  let workspace: Workspace
  package let limits: StepLimits

  private let recorder: PlanRecorder
  private let submission: StepSubmission
  private let signals: MeshSignals?
  /// Whether the device may find what it read of others' memory before, in the same submission.
  private let findsStale: Bool
  /// Called again and again while the host waits for the device; throws to end that.
  var whileWaiting: (() throws -> Void)?
  private var slots: [Slot] = []
  /// Counts the parts of steps that are done: a step that no other device takes part in has one.
  let done: TimelineSemaphore
  /// Parts that were submitted.
  private(set) var partCount: UInt64 = 0
  private(set) var stepCount: UInt64 = 0

  /// Steps that may be in flight.
  package let depth: Int

  /// Whether each part of a step notes when it begins and ends; nothing may be in flight when that changes.
  var isTracing = false {
    didSet {
      for index in slots.indices where oldValue != isTracing { slots[index].plans = [:] }
      trace = []
    }
  }
  /// The steps of which the device's clock is read, while tracing.
  private(set) var trace: [StepTrace] = []
  /// What makes steps last longer, for measurements.
  var pad: StagePad?

  private struct Slot {
    var step: StepSlot
    var plans: [PlanShape: Plan] = [:]
    /// The count of parts when its last step begins, and when it is done.
    var start: UInt64 = 0
    var end: UInt64 = 0
    /// Logits and states that are read back; made when first asked for.
    var logits: Buffer?
    var states: Buffer?
    /// What is known of its last step before the device's clock is read.
    var traced: (step: StepTrace, stamps: StepRecording.Stamps)?
  }

  /// A step as it was recorded: one part, or where other devices take part one for each time that they are waited for.
  private struct Plan {
    var parts: [StepRecording.Part]
    var stops: [StepRecording.Stop]
    var stamps: StepRecording.Stamps?
    var chain: StageChain?
  }

  /// - Parameters:
  ///   - port: what the device shares with others, where it has a share of the model.
  ///   - depth: steps that may be in flight.
  ///   - overlaps: whether stages of a token may start while the one before still runs, where the device can.
  ///   - cacheResidency: where keys and values are between steps; nil for all on the device.
  package init(
    cache: KernelCache, model: DeviceModel, limits: StepLimits, pageCount: Int, port: MeshPort? = nil,
    depth: Int = ModelRunner.usualDepth, overlaps: Bool = true, cacheResidency: CacheResidency? = nil
  ) throws {
    self.depth = depth
    device = cache.device
    self.cache = cache
    self.model = model
    self.limits = limits
    let traits = cache.traits
    let program = model.program
    kvCache = try KVCache(
      device: device, heads: program.heads, layerCount: program.layerCount,
      firstLayer: program.share.layers.lowerBound, pageCount: pageCount, residency: cacheResidency)
    hostPages = HostPages(device: device, pageBytes: kvCache.pageByteCount)
    workspace = try Workspace(device: device, program: program, limits: limits, traits: traits)
    cacheStream =
      kvCache.residency.hostLayers > 0
      ? try CacheStream(device: device, cache: kvCache, windows: program.attentionWindows) : nil
    submission = StepSubmission(queue: device.computeQueue, weights: model.stream, cache: cacheStream)
    signals = port?.signals
    findsStale = port?.layout.homes.readsLast == true
    recorder = try PlanRecorder(
      cache: cache, model: model, kvCache: kvCache, workspace: workspace, port: port,
      chainsStages: overlaps && !submission.copies && !traits.isCPU && traits.method.isFast
        && ChainProbe.succeeds(cache: cache))
    done = try device.makeSemaphore()
    for index in 0..<depth {
      slots.append(Slot(step: try StepSlot(device: device, limits: limits, index: index)))
    }
  }

  // Memory that the device still uses must not be freed.
  deinit { try? device.computeQueue.waitIdle() }

  /// Queues a step; waits only if `depth` steps are in flight already.
  ///
  /// - Parameters:
  ///   - logitsOf: outputs whose logits are read back, penalties applied.
  ///   - statesOf: rows whose states after the last layer are read back.
  package func submit(
    rows: [StepRow], outputs: [Int], samples: [SampleParameters], output: OutputKernel, logitsOf: [Int] = [],
    statesOf: [Int] = []
  ) throws -> StepTicket {
    try submit(
      rows: rows, outputs: outputs, samples: samples, output: output, logitsOf: logitsOf, statesOf: statesOf,
      after: [], drawn: nil, signalling: { _ in [] }, resolving: { _ in [] })
  }

  /// The same on a device of a mesh.
  ///
  /// - Parameters:
  ///   - after: what the step waits for.
  ///   - signalling: what it signals besides when it has done so many parts.
  ///   - drawn: the step that draws tokens which this one needs.
  ///   - resolving: what a part of it that waits for other devices waits for.
  func submit(
    rows: [StepRow], outputs: [Int], samples: [SampleParameters], output: OutputKernel, logitsOf: [Int],
    statesOf: [Int], after: [(TimelineSemaphore, UInt64)], drawn: UInt64?,
    signalling: (_ parts: UInt64) -> [(TimelineSemaphore, UInt64)],
    resolving: (MeshWait) -> [(TimelineSemaphore, UInt64)]
  ) throws -> StepTicket {
    let cut = recorder.cut(rows)
    let step = StepContents(rows: rows, outputs: outputs, samples: samples, tileRows: cut.tileRows)
    var shape = PlanShape(step, cut: cut, output: output, limits: limits)
    shape.readsStates = !statesOf.isEmpty
    return try submit(
      step, shape: shape, logitsOf: logitsOf, statesOf: statesOf, after: after, drawn: drawn,
      signalling: signalling, resolving: resolving)
  }

  private func submit(
    _ step: StepContents, shape: PlanShape, logitsOf: [Int] = [], statesOf: [Int] = [],
    after: [(TimelineSemaphore, UInt64)] = [], drawn: UInt64? = nil,
    signalling: (UInt64) -> [(TimelineSemaphore, UInt64)] = { _ in [] },
    resolving: (MeshWait) -> [(TimelineSemaphore, UInt64)] = { _ in [] }
  ) throws -> StepTicket {
    let index = Int(stepCount % UInt64(depth))
    try waitForSlot()
    readClock(slot: index)
    let plan = try plan(shape, slot: index)
    plan.chain?.reset()
    let last =
      logitsOf.isEmpty && statesOf.isEmpty ? [] : [try readBack(logitsOf, states: statesOf, slot: index)]
    slots[index].step.write(step)
    signals?.begin(slot: index, step: stepCount + 1, drawn: drawn)
    model.stream?.beginStep()
    if let cacheStream {
      let spans = spans(of: step.rows)
      cacheStream.beginStep(spans.positions, pages: spans.pages)
    }
    let start = partCount
    slots[index].start = start
    // What was handed over counts, even where what comes next cannot be.
    func handOver(_ count: Int, _ body: () throws -> Void) throws {
      try body()
      partCount += UInt64(count)
      slots[index].end = partCount
    }
    var batches: [Queue.Batch] = []
    for (number, part) in plan.parts.enumerated() {
      var waits = (number == 0 ? after : []) + part.waits.flatMap(resolving)
      let isLast = number == plan.parts.count - 1
      let last = isLast ? last : []
      var signal = (done, start + UInt64(number) + 1)
      let others = signalling(signal.1)
      if let pad {
        // The step before has ended when its time is over.
        if number == 0, start > 0 { waits.append((done, start)) }
        if isLast { signal = pad.extend(signal, tokens: step.rows.count) }
      }
      if submission.copies {
        try handOver(1) {
          try submission.submit(part, waits: waits, last: last, done: [signal] + others)
        }
      } else {
        batches.append(
          Queue.Batch(commandBuffers: [part.commands] + last, wait: waits, signal: [signal] + others))
      }
    }
    if findsStale {
      // Each is a submission of its own, which finds all that was written to host memory before it starts; of several
      // in one, drivers promise that of the first.
      for batch in batches { try handOver(1) { try device.computeQueue.submit([batch]) } }
    } else if !batches.isEmpty {
      try handOver(batches.count) { try device.computeQueue.submit(batches) }
    }
    if let stamps = plan.stamps {
      let trace = StepTrace(
        step: Int(stepCount), tokens: step.rows.count, outputs: step.outputs.count, parts: plan.parts.count,
        stops: plan.stops, pad: pad?.count)
      slots[index].traced = (trace, stamps)
    }
    stepCount += 1
    return StepTicket(
      end: partCount, slot: index, outputs: step.outputs.count, reads: [model.stream?.reads ?? 0])
  }

  /// How far the device is: steps that are done, and parts of the next one.
  var position: (steps: UInt64, parts: UInt64) {
    get throws {
      let count = try done.value
      let unfinished = slots.filter { $0.end > count }
      let parts = unfinished.map(\.start).min().map { count > $0 ? count - $0 : 0 }
      return (stepCount - min(stepCount, UInt64(unfinished.count)), parts ?? 0)
    }
  }

  /// Devices of a mesh must have their steps in slots of the same number; nothing may be in flight.
  func alignSteps(to count: UInt64) { stepCount = count }

  /// Reads the device's clock of all steps; nothing may be in flight.
  func readClocks() { for index in slots.indices { readClock(slot: index) } }

  private func readClock(slot: Int) {
    guard let (step, stamps) = slots[slot].traced else { return }
    slots[slot].traced = nil
    var trace = step
    if let ticks = stamps.ticks.contents?.assumingMemoryBound(to: UInt64.self) {
      trace.ticks = Array(UnsafeBufferPointer(start: ticks, count: 2 * step.parts))
      trace.stopTicks = Array(
        UnsafeBufferPointer(start: ticks + 2 * stamps.parts, count: 2 * step.stops.count))
    }
    self.trace.append(trace)
  }

  /// Waits until the next step has a slot.
  func waitForSlot() throws { try wait(for: slots[Int(stepCount % UInt64(depth))].end) }

  /// Throws if a stage of the step, which is done, gave up waiting for the one before.
  func checkOrder(_ ticket: StepTicket) throws {
    guard !slots[ticket.slot].step.isAbandoned else {
      throw EngineError(
        .device,
        "\(device.physical.name) did not run the stages of a step in their order, as it did when tried; use --no-overlap"
      )
    }
  }

  /// The results of a step, once it is done: must be read before `depth` further steps are submitted.
  package func results(_ ticket: StepTicket) throws -> [UInt32] {
    try wait(for: ticket.end)
    try checkReads(ticket.reads[0])
    try checkOrder(ticket)
    return slots[ticket.slot].step.readResults(count: ticket.outputs)
  }

  /// Throws what went wrong with one of the first `count` reads of weights that stream.
  func checkReads(_ count: UInt64) throws { try model.stream?.check(reads: count) }

  /// The logits of the output that was entry `entry` of `logitsOf`, once the step is done and as long as its results.
  package func logits(_ ticket: StepTicket, _ entry: Int) -> [Float] {
    let count = model.program.vocabularySize
    guard let floats = slots[ticket.slot].logits?.contents?.assumingMemoryBound(to: Float.self) else {
      return []
    }
    return Array(UnsafeBufferPointer(start: floats + entry * count, count: count))
  }

  /// The state of the row that was entry `entry` of `statesOf`, once the step is done and as long as its results.
  package func state(_ ticket: StepTicket, _ entry: Int) -> [Float] {
    guard let floats = slots[ticket.slot].states?.contents?.assumingMemoryBound(to: Float.self) else {
      return []
    }
    let row = floats + entry * workspace.residualStride
    return (0..<model.program.width).map { row[activationIndex($0)] }
  }

  /// Commands that bring logits and states of the step before them to the host, before the next step overwrites them.
  private func readBack(_ outputs: [Int], states: [Int], slot: Int) throws -> CommandBuffer {
    let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: false)
    try commands.begin()
    commands.barrier()
    func copy(_ rows: [Int], bytes: Int, from offset: Int, stride: Int, to buffer: inout Buffer?) throws {
      guard !rows.isEmpty else { return }
      if buffer == nil || buffer!.byteCount < bytes * rows.count {
        buffer = try device.makeBuffer(
          byteCount: bytes * rows.count, memory: .download, label: "what is read of step \(slot)")
      }
      for (entry, row) in rows.enumerated() {
        commands.copy(
          from: workspace.memory, offset: offset + stride * row, to: buffer!, offset: bytes * entry,
          byteCount: bytes)
      }
    }
    try copy(
      outputs, bytes: 4 * model.program.vocabularySize, from: workspace.offset(.logits),
      stride: 4 * workspace.logitsStride, to: &slots[slot].logits)
    try copy(
      states, bytes: 4 * workspace.residualStride, from: workspace.offset(.residual),
      stride: 4 * workspace.residualStride, to: &slots[slot].states)
    commands.barrier()
    commands.barrierToHost()
    try commands.end()
    return commands
  }

  /// Makes ready for steps of so many tokens, of the last of which the next token is drawn if `outputs` is 1: records
  /// their Plans, and runs each Plan once with a single token, since some drivers compile a pipeline only when it first
  /// runs. The contents of page 0 are lost.
  ///
  /// - Parameter whileWaiting: called before each Plan, then some ten times a second; throwing stops the work.
  func prepare(_ steps: [(rows: Int, outputs: Int)], whileWaiting: () throws -> Void) throws {
    try setPages([0], sequence: 0, from: 0)
    for (count, outputs) in steps {
      let rows = (0..<count).map { StepRow(token: 0, position: UInt32($0), sequence: 0, output_row: 0) }
      let cut = recorder.cut(rows)
      func contents(_ rows: [StepRow]) -> StepContents {
        StepContents(
          rows: rows, outputs: outputs == 0 ? [] : [rows.count - 1],
          samples: outputs == 0 ? [] : [SamplingParameters().device(sequence: 0, position: rows.count)],
          tileRows: cut.tileRows)
      }
      let shape = PlanShape(contents(rows), cut: cut, output: .sample, limits: limits)
      guard slots[0].plans[shape] == nil else { continue }
      try whileWaiting()
      for index in slots.indices { _ = try plan(shape, slot: index) }
      // Weights that stream may take long to come, and only CPU drivers compile that late.
      if model.stream != nil, !traits.isCPU { continue }
      let ticket = try submit(contents([rows[0]]), shape: shape)
      while try !done.wait(for: ticket.end, timeoutNanoseconds: 100_000_000) { try whileWaiting() }
    }
  }

  /// How long one stage of a step took on the device, in microseconds.
  package struct StageTime: Sendable {
    /// The stage's index in the Program; nil is sampling.
    package var stage: Int?
    /// From the end of the barrier before to the end of its last dispatch, without barriers in between.
    package var microseconds: Double
    /// What its barriers took: from the end of a dispatch before one to the end of that barrier.
    package var idleMicroseconds: Double
  }

  /// Runs one step by itself, with time stamps on both sides of every barrier.
  package func trace(
    rows: [StepRow], outputs: [Int], samples: [SampleParameters]
  ) throws -> [StageTime] {
    try drain()
    let cut = recorder.cut(rows)
    let step = StepContents(rows: rows, outputs: outputs, samples: samples, tileRows: cut.tileRows)
    let shape = PlanShape(step, cut: cut, output: .sample, limits: limits)
    slots[0].step.write(step)
    // Two stamps a barrier; few stages have more than one, but for unfused ones, which have up to twenty.
    let mostStamps = traits.method.fuses ? 8 : 40
    let pool = try device.makeTimestampPool(count: 1 + mostStamps * (model.stages.count + 1))
    var stampCount = 1
    var ends: [(stage: Int?, stampCount: Int)] = []
    try device.run { commands in
      commands.resetTimestamps(pool)
      commands.writeTimestamp(pool, index: 0)
      commands.onBarrier = { [unowned commands] in
        commands.writeTimestamp(pool, index: stampCount)
        stampCount += 1
      }
      defer { commands.onBarrier = nil }
      try recorder.record(commands, shape: shape, slot: slots[0].step) { ends.append(($0, stampCount)) }
    }
    let stamps = try pool.read(count: stampCount).map { $0 / 1000 }
    var start = 0
    return ends.map { stage, count in
      // A stage without a barrier of its own runs beside the next one, whose time is that of both.
      guard count - start > 2 else { return StageTime(stage: stage, microseconds: 0, idleMicroseconds: 0) }
      defer { start = count - 1 }
      let idle = stride(from: start + 1, to: count - 1, by: 2).reduce(0) { $0 + stamps[$1 + 1] - stamps[$1] }
      return StageTime(
        stage: stage, microseconds: stamps[count - 1] - stamps[start] - idle, idleMicroseconds: idle)
    }
  }

  /// Measures the tilings of products in steps of single tokens of up to `sequences` sequences, where they are not
  /// known for the device. Nothing may be in flight; page 0 of the cache is overwritten.
  package func tune(sequences: Int) throws {
    var steps: [(StepContents, PlanShape)] = []
    var count = 1
    while count <= min(sequences, limits.rows, limits.outputs, 8) {
      let rows = (0..<count).map {
        StepRow(token: 0, position: 0, sequence: UInt32($0 % limits.sequences), output_row: 0)
      }
      let cut = StepCut(tileRows: 1, usesMatrixUnits: false)
      let step = StepContents(
        rows: rows, outputs: Array(rows.indices),
        samples: rows.indices.map { _ in SamplingParameters().device(sequence: 0, position: 1) }, tileRows: 1)
      steps.append((step, PlanShape(step, cut: cut, output: .sample, limits: limits)))
      count *= 2
    }
    try setPages([0], sequence: 0, from: 0)
    try LinearTuner(recorder: recorder, slot: slots[0].step).tune(steps)
  }

  /// A step that fails says so itself.
  package var hasFailed: Bool { false }

  package func recover() throws -> Set<Int> {
    defer { model.stream?.recover() }
    do { try drain() } catch let error as VulkanError where error.kind == .deviceLost { return [0] }
    return []
  }

  /// What is done so far: as long as it changes, the device gets on.
  var progress: [UInt64] {
    // A step may take long to bring its weights.
    get throws { [try done.value] + (model.stream.map { [$0.passes.bitPattern] } ?? []) }
  }

  /// Waits until nothing is in flight.
  ///
  /// - Returns: false where the device does not get on for as long as `patience`.
  func comesToRest(within patience: Duration) -> Bool {
    var last: [UInt64] = []
    var since = ContinuousClock.now
    while ContinuousClock.now - since < patience {
      // On a device that is lost nothing runs.
      guard let isDone = try? done.wait(for: partCount, timeoutNanoseconds: 20_000_000), !isDone,
        let now = try? progress
      else { return true }
      if now != last { (last, since) = (now, ContinuousClock.now) }
    }
    return false
  }

  /// Waits until nothing is in flight.
  package func drain() throws {
    try wait(for: partCount)
    try cacheStream?.drain()
  }

  /// Sets how often a sequence holds each token (penalties): those of the prompt are marked, generated ones counted.
  package func setTokenCounts(prompt: [Int32], generated: [Int32], sequence: Int) throws {
    let vocabulary = model.program.vocabularySize
    var counts = [UInt32](repeating: 0, count: vocabulary)
    for token in prompt { counts[Int(token)] = 0x8000_0000 }
    for token in generated { counts[Int(token)] += 1 }
    try upload(counts, to: workspace.counts, offset: 4 * sequence * vocabulary)
  }

  /// The logits of output `index` of the step that last ran.
  package func readLogits(output index: Int) throws -> [Float] {
    try drain()
    let count = model.program.vocabularySize
    let buffer = try device.makeBuffer(byteCount: count * 4, memory: .download, label: "logits")
    try run { commands in
      commands.copy(
        from: workspace.memory, offset: workspace.offset(.logits) + 4 * index * workspace.logitsStride,
        to: buffer, offset: 0, byteCount: count * 4)
      commands.barrierToHost()
    }
    guard let floats = buffer.contents?.assumingMemoryBound(to: Float.self) else { return [] }
    return (0..<count).map { floats[$0] }
  }

  private func upload(_ words: [UInt32], to buffer: Buffer, offset: Int) throws {
    let staging = try device.makeBuffer(byteCount: words.count * 4, memory: .upload, label: "staging")
    words.withUnsafeBytes { staging.contents?.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    try run { commands in
      commands.copy(from: staging, offset: 0, to: buffer, offset: offset, byteCount: words.count * 4)
      commands.barrier()
    }
  }

  /// Runs commands after all that is queued, and waits for them.
  func run(_ record: (CommandBuffer) throws -> Void) throws {
    let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: false)
    try commands.begin()
    try record(commands)
    try commands.end()
    let finished = try device.makeSemaphore()
    try device.computeQueue.submit([commands], signal: [(finished, 1)])
    try wait(until: finished, reaches: 1)
  }

  private func wait(for number: UInt64) throws {
    guard number > 0 else { return }
    try wait(until: done, reaches: number)
  }

  /// Waits for the device, and looks after whoever wants that meanwhile.
  func wait(until semaphore: TimelineSemaphore, reaches value: UInt64) throws {
    let interval: UInt64? = whileWaiting == nil ? model.stream?.lookInterval : 20_000_000
    guard let interval else {
      _ = try semaphore.wait(for: value, timeoutNanoseconds: UInt64.max)
      return
    }
    while try !semaphore.wait(for: value, timeoutNanoseconds: interval) {
      model.stream?.look()
      try whileWaiting?()
    }
  }

  private func plan(_ shape: PlanShape, slot: Int) throws -> Plan {
    if let known = slots[slot].plans[shape] { return known }
    // No stage ends more than one part, or is more than one stop.
    let count = model.stages.count + 1
    let stamps =
      isTracing ? try StepRecording.Stamps(device: device, parts: count, stops: count) : nil
    let recording = try makeRecording(stamps)
    let chain = try recorder.makeChain(shape)
    try recorder.record(recording, shape: shape, slot: slots[slot].step, chain: chain)
    try recording.end()
    let plan = Plan(parts: recording.parts, stops: recording.stops, stamps: stamps, chain: chain)
    slots[slot].plans[shape] = plan
    return plan
  }

  private func makeRecording(_ stamps: StepRecording.Stamps?) throws -> StepRecording {
    func begin() throws -> CommandBuffer {
      let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: true)
      try commands.begin()
      return commands
    }
    let first = try begin()
    // What other devices have written may be host memory to this one.
    if recorder.isShared { first.barrier() }
    return StepRecording(first, next: begin, stamps: stamps) { [model, cache] unit, commands in
      try model.recordArrival(of: unit, commands, cache: cache)
    }
  }
}
