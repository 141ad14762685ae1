import Dispatch
import Synchronization
import VulkanRuntime

/// Measures the sound tilings of a model's products on its device, where they are not known yet.
///
/// Each candidate runs as it will in a step: over the same stage of several layers, each after the one before, so that
/// weights come from memory as they will then. Activations and the first page of the KV cache are overwritten.
package struct LinearTuner {
  private let recorder: PlanRecorder
  private let slot: StepSlot
  private let start = ContinuousClock.now

  /// What all measuring together may take: what is not reached keeps its default, and is measured another time.
  private static let budget = Duration.seconds(2)
  /// What a GPU needs to bring its clock up.
  private static let warmUp = Duration.milliseconds(300)
  /// Layers that a candidate runs over.
  private static let mostLayers = 12

  /// - Parameter slot: where the step that is measured with is written; nothing may be in flight.
  package init(recorder: PlanRecorder, slot: StepSlot) {
    self.recorder = recorder
    self.slot = slot
  }

  /// One product, of several layers.
  private struct Subject {
    var key: LinearTuning.Key
    var products: [PlanRecorder.Product]
    var candidates: [LinearKernel.Tiling]
  }

  /// Measures what steps of `columnCount` tokens need. Does nothing on a device without a clock, or on a CPU driver,
  /// whose best tilings are known.
  ///
  /// - Returns: how many products were measured.
  @discardableResult
  package func tune(_ step: StepContents, shape: PlanShape) throws -> Int {
    let (cache, traits) = (recorder.cache, recorder.traits)
    guard !traits.isCPU, cache.device.capabilities.timestampBits > 0, !shape.usesMatrixUnits else { return 0 }
    let subjects = subjects(shape)
    guard !subjects.isEmpty else { return 0 }
    slot.write(step)
    compile(subjects)
    let pool = try cache.device.makeTimestampPool(count: 2)
    var isWarm = false
    var count = 0
    for subject in subjects {
      var best: (tiling: LinearKernel.Tiling, seconds: Double)?
      for tiling in subject.candidates {
        if ContinuousClock.now - start > Self.budget { break }
        guard let seconds = try time(subject, tiling, pool: pool, isWarm: &isWarm) else { continue }
        if best == nil || seconds < best!.seconds { best = (tiling, seconds) }
      }
      if ContinuousClock.now - start > Self.budget { break }
      guard let best else { continue }
      cache.tuning.set(best.tiling, for: subject.key)
      count += 1
    }
    if count > 0 { try? cache.tuning.save() }
    return count
  }

  /// The products of a step whose best tilings are not known: those whose sums of squares others read come first.
  private func subjects(_ shape: PlanShape) -> [Subject] {
    var found: [LinearTuning.Key: Subject] = [:]
    var order: [LinearTuning.Key] = []
    for index in recorder.stageIndices {
      for product in recorder.products(at: index, shape: shape, slot: slot, squareCount: 256)
      where product.columnCount > 0 {
        let key = LinearTuning.Key(
          product.kernel, columnCount: product.columnCount, isChained: recorder.chainsStages)
        if recorder.cache.tuning.isKnown(key) { continue }
        if found[key] == nil {
          order.append(key)
          found[key] = Subject(
            key: key, products: [],
            candidates: product.kernel.candidates(columnCount: product.columnCount, traits: recorder.traits))
        }
        if found[key]!.products.count < Self.mostLayers { found[key]!.products.append(product) }
      }
    }
    return order.compactMap { found[$0] }
  }

  /// Compiles all candidates, several at a time; those that the device has no room for are left out when timed.
  private func compile(_ subjects: [Subject]) {
    let (cache, traits) = (recorder.cache, recorder.traits)
    let all = subjects.flatMap { subject in subject.candidates.map { (subject.products[0].kernel, $0) } }
    let (first, isChained) = (start, recorder.chainsStages)
    DispatchQueue.concurrentPerform(iterations: all.count) { index in
      if ContinuousClock.now - first > Self.budget { return }
      _ = try? all[index].0.pipeline(
        all[index].1, isChained: isChained, cache: cache, traits: traits)
    }
  }

  /// Seconds of the subject's products with that tiling; nil where the device has no room for it.
  private func time(
    _ subject: Subject, _ tiling: LinearKernel.Tiling, pool: TimestampPool, isWarm: inout Bool
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
          traits: recorder.traits, tiling: tiling, chain: chain)
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
    if !isWarm {
      let begin = ContinuousClock.now
      while ContinuousClock.now - begin < Self.warmUp { _ = try run() }
      isWarm = true
    }
    return try (0..<3).map { _ in try run() }.min()
  }
}
