import Synchronization
import VulkanRuntime

/// Measures the sound tilings of a model's products on its device, where they are not known yet.
///
/// Each candidate runs as it will in a step: over the same stage of several layers, each after the one before, so that
/// weights come from memory as they will then. Activations and the first page of the KV cache are overwritten.
///
/// Compiling takes most of the time. So all products get their first candidates before any gets its last, and what has
/// not been tried when time is up is tried at the next start.
package final class LinearTuner {
  private let recorder: PlanRecorder
  private let slot: StepSlot
  private let deadline: ContinuousClock.Instant
  private let runsOnCPU: Bool
  private var isWarm = false
  /// The step that the slot holds.
  private var written: Int?
  /// What compiling one pipeline took at most.
  private var slowest = Duration.zero

  /// What all measuring together may take.
  package static let usualBudget = Duration.seconds(2)
  /// What a GPU needs to bring its clock up.
  private static let warmUp = Duration.milliseconds(300)
  /// Layers that a candidate runs over.
  private static let mostLayers = 12
  /// Candidates of each product that are compiled at once.
  private static let candidatesAtOnce = 3

  /// - Parameters:
  ///   - slot: where the steps that are measured with are written; nothing may be in flight.
  ///   - budget: what all measuring may take; the pipeline that is being compiled then is waited for.
  ///   - runsOnCPU: whether CPU drivers are tuned too, whose best tilings are known: for tests.
  package init(
    recorder: PlanRecorder, slot: StepSlot, budget: Duration = usualBudget, runsOnCPU: Bool = false
  ) {
    self.recorder = recorder
    self.slot = slot
    self.runsOnCPU = runsOnCPU
    deadline = .now + budget
  }

  /// One product, of several layers.
  fileprivate struct Subject {
    var key: LinearTuning.Key
    /// Which of the steps it is of.
    var step: Int
    var products: [PlanRecorder.Product]
    /// What is still to be timed: first the best of those that were tried before, if any were.
    var waiting: ArraySlice<LinearKernel.Tiling>
    /// Candidates that were tried.
    var tried: Int
    var best: (tiling: LinearKernel.Tiling, seconds: Double)?
    /// Whether the first that waits was tried before.
    var retries: Bool
  }

  /// What a run has done.
  package struct Outcome: Sendable {
    /// Candidates that were tried.
    package var tried = 0
    /// Products with candidates that were not, for want of time.
    package var unfinished = 0
  }

  /// Measures what `steps` need, as far as time goes. Does nothing on a device without a clock.
  @discardableResult
  package func tune(_ steps: [(contents: StepContents, shape: PlanShape)]) throws -> Outcome {
    let (cache, traits) = (recorder.cache, recorder.traits)
    guard !traits.isCPU || runsOnCPU, cache.device.capabilities.timestampBits > 0 else { return Outcome() }
    var subjects = steps.enumerated().flatMap { index, step in
      step.shape.usesMatrixUnits ? [] : self.subjects(step.shape, index)
    }
    let pool = try cache.device.makeTimestampPool(count: 2)
    var outcome = Outcome()
    while subjects.contains(where: { !$0.waiting.isEmpty }), hasTime {
      let before = outcome.tried
      let batches = subjects.map { $0.waiting.prefix(Self.candidatesAtOnce + ($0.retries ? 1 : 0)) }
      let compiled = compile(zip(subjects, batches).map { ($0.products[0].kernel, $1) })
      for index in subjects.indices where !batches[index].isEmpty {
        if written != subjects[index].step {
          slot.write(steps[subjects[index].step].contents)
          written = subjects[index].step
        }
        for (tiling, isReady) in zip(batches[index], compiled[index]) {
          guard isReady, hasTime else { break }
          subjects[index].take(tiling, seconds: try time(subjects[index], tiling, pool: pool))
          outcome.tried += 1
        }
        if let best = subjects[index].best {
          cache.tuning.set(best.tiling, tried: subjects[index].tried, for: subjects[index].key)
        }
      }
      // The time left is shorter than what a pipeline may take.
      if outcome.tried == before { break }
    }
    outcome.unfinished = subjects.count { !$0.waiting.isEmpty }
    if outcome.tried > 0 { try? cache.tuning.save() }
    return outcome
  }

  private var hasTime: Bool { ContinuousClock.now < deadline }

  /// The products of a step with tilings that were not tried: those whose sums of squares others read come first.
  private func subjects(_ shape: PlanShape, _ step: Int) -> [Subject] {
    var found: [LinearTuning.Key: Subject] = [:]
    var order: [LinearTuning.Key] = []
    for index in recorder.stageIndices {
      for product in recorder.products(at: index, shape: shape, slot: slot, squareCount: 256)
      where product.columnCount > 0 && !product.kernel.isNaive && recorder.tileKernel(product) == nil {
        let key = LinearTuning.Key(
          product.kernel, columnCount: product.columnCount, isChained: recorder.chainsStages,
          traits: recorder.traits)
        if found[key] == nil {
          let candidates = product.kernel.candidates(
            columnCount: product.columnCount, isChained: recorder.chainsStages, traits: recorder.traits)
          let known = recorder.cache.tuning.known(key, among: candidates)
          let tried = min(known?.tried ?? 0, candidates.count)
          guard tried < candidates.count else { continue }
          order.append(key)
          found[key] = Subject(
            key: key, step: step, products: [],
            waiting: ((known.map { [$0.tiling] } ?? []) + candidates[tried...])[...], tried: tried,
            retries: known != nil)
        }
        if found[key]!.products.count < Self.mostLayers { found[key]!.products.append(product) }
      }
    }
    return order.compactMap { found[$0] }
  }

  /// Compiles candidates, several at a time, as far as time goes: those that there was time for are ready, if only to
  /// find that the device has no room for them.
  private func compile(_ batches: [(LinearKernel, ArraySlice<LinearKernel.Tiling>)]) -> [[Bool]] {
    let cache = recorder.cache
    // Breadth first, so that what there is no time for is the last of each.
    let all = (0...Self.candidatesAtOnce).flatMap { place in
      batches.indices.compactMap { index in
        batches[index].1.dropFirst(place).first.map { (index, place, batches[index].0, $0) }
      }
    }
    let ready = Mutex(batches.map { [Bool](repeating: false, count: $0.1.count) })
    let (deadline, isChained) = (deadline, recorder.chainsStages)
    let slowest = Mutex(slowest)
    Thread.concurrently(all.count) { entry in
      let (index, place, kernel, tiling) = all[entry]
      let start = ContinuousClock.now
      guard start + slowest.withLock({ $0 }) < deadline else { return }
      _ = try? kernel.pipeline(tiling, isChained: isChained, cache: cache)
      let duration = ContinuousClock.now - start
      slowest.withLock { $0 = max($0, duration) }
      ready.withLock { $0[index][place] = true }
    }
    self.slowest = slowest.withLock { $0 }
    return ready.withLock { $0 }
  }

  /// Seconds of the subject's products with that tiling; nil where the device has no room for it.
  private func time(
    _ subject: Subject, _ tiling: LinearKernel.Tiling, pool: TimestampPool
  ) throws -> Double? {
    let device = recorder.cache.device
    let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: true)
    try commands.begin()
    recorder.keepAlive(commands, slot: slot)
    let chain =
      recorder.chainsStages ? try StageChain(device: device, stageCount: subject.products.count) : nil
    chain?.keepAlive(commands)
    commands.resetTimestamps(pool)
    commands.writeTimestamp(pool, index: 0)
    do {
      for product in subject.products {
        try product.kernel.record(
          commands, push: product.push, columnCount: product.columnCount, cache: recorder.cache,
          tiling: tiling, chain: chain)
        if let chain { chain.endStage() } else { commands.dispatchBarrier() }
      }
    } catch let error as VulkanError where error.kind == .unsupported {
      return nil
    }
    commands.writeTimestamp(pool, index: 1)
    try commands.end()
    func run() throws -> Double {
      chain?.reset()
      try device.computeQueue.submit([commands])
      try device.computeQueue.waitIdle()
      return try pool.read()[1]
    }
    if !isWarm, !recorder.traits.isCPU {
      let begin = ContinuousClock.now
      while ContinuousClock.now - begin < Self.warmUp { _ = try run() }
    }
    isWarm = true
    return try (0..<3).map { _ in try run() }.min()
  }
}

extension LinearTuner.Subject {
  /// Takes what was measured of the first that waits.
  fileprivate mutating func take(_ tiling: LinearKernel.Tiling, seconds: Double?) {
    waiting = waiting.dropFirst()
    if retries { retries = false } else { tried += 1 }
    guard let seconds, seconds < best?.seconds ?? .infinity else { return }
    best = (tiling, seconds)
  }
}
