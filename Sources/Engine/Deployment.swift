import Kernels
import Placement
import Transformer
import VulkanRuntime

/// A model on the devices of an engine: what each has of it, the runner that joins them, and what follows from their
/// memory. An engine that loses a device makes another one on those that are left.
final class Deployment {
  /// What can be told of it.
  struct Facts: Sendable {
    var contextLength: Int
    var deviceName: String
    var isCPUDevice: Bool
    var cacheTokens: Int
    var promptChunk: Int
    var placementText: String?
    var streamedBytes: Int
    var placementTexts: [String]
    var meshPathText: String?
    var meshTransport: MeshTransport?
    var deviceNumbers: [Int]
    var memoryShares: [Int]
    var stageTimes: StageTimes?
    var tuningTexts: [String]
    var startTimes: Engine.StartTimes
  }

  let facts: Facts
  let placement: MeshPlacement
  /// The number of each device in the mesh that the engine was made with.
  let seats: [Int]
  let devices: [Device]
  let runner: any StepRunner
  let weightStreams: [WeightStream]
  private let schedule: Scheduler.Limits
  private let pageCount: Int
  private let hostPageCount: Int

  /// Loads `model` onto the devices of `placement`.
  ///
  /// - Parameters:
  ///   - options: of a mesh as `placement` has it.
  ///   - seats: the number of each device in the mesh that the engine was made with.
  ///   - mayStream: whether devices may have no room for all weights.
  ///   - onProgress: called some times a second; throwing stops the load.
  init(
    model: LanguageModel, options: EngineOptions, placement: MeshPlacement, seats: [Int],
    instance: VulkanInstance, mayStream: Bool = true,
    onProgress: @escaping (LoadProgress) throws -> Void
  ) throws {
    self.placement = placement
    self.seats = seats
    let first = placement.devices[0]
    let count = placement.devices.count
    let deviceName =
      count == 1
      ? first.name
      : placement.devices.allSatisfy { $0.name == first.name }
        ? "\(count) x \(first.name)" : placement.devices.map(\.name).joined(separator: ", ")
    let isCPUDevice = placement.traits.contains(where: \.isCPU)

    // One chunk for all devices: they run the same steps.
    var options = options
    let givesChunk = options.promptChunk != nil
    let measuresStages = options.measures(isCPU: isCPUDevice)
    if !givesChunk {
      let most = placement.traits.map { Engine.promptChunk(options, traits: $0) }.min() ?? 1
      // The stages of a pipeline work on chunks of the same prompt at the same time: twice as many as there are stages
      // leave a stage idle for a third of the time at most, and products of fewer tokens would be slower.
      options.promptChunk =
        options.pipelineParallel == 1 || measuresStages
        ? most : max(min(most, isCPUDevice ? 16 : 256), most / (2 * options.pipelineParallel))
    }
    guard (1...4096).contains(options.maxSequences) else {
      throw EngineError(.option, "\(options.maxSequences) requests at a time are not possible: use 1 to 4096")
    }
    let requested = options.contextLength ?? model.contextLength
    guard requested > 0, requested <= Int(Int32.max) else {
      throw EngineError(.option, "a context of \(requested) tokens is not possible: use 1 to \(Int32.max)")
    }
    let traits = placement.traits[0]
    let plan = try placement.plan(
      &options, contextLength: requested, givesChunk: givesChunk, source: model.source)
    let (plans, streamed) = (plan.plans, plan.streamed)
    let limits: (Int) -> StepLimits = { [options] in
      Engine.stepLimits(options, context: $0, traits: traits)
    }
    let streams = plan.caches != nil || streamed?.contains { $0.weights.copiedBytes > 0 } ?? false
    guard mayStream || !streams else {
      throw EngineError(.device, "the devices have no room for all weights, keys and values")
    }
    guard options.method.isFast || (count == 1 && !streams) else {
      throw EngineError(
        .option,
        "unfused steps and naive products want one device with room for all weights, keys and values: give it more memory"
      )
    }
    let contextLength = plans[0].contextLength
    let promptChunk = min(Engine.promptChunk(options, traits: traits), contextLength)
    let maxSequences = options.maxSequences

    devices = try Device.open(
      instance: instance, physicals: placement.devices,
      pipelineCacheDirectory: options.pipelineCacheDirectory,
      faults: options.allocationFaults)
    let caches = devices.map { [options] in KernelCache(device: $0, method: options.method) }
    for cache in caches { try cache.checkMethod() }
    // Asked before weights are there.
    let pageCounts = placement.programs.indices.map { index in
      Engine.pageCount(
        options, plan: plans[index], available: placement.availableMemory(index),
        device: placement.devices[index],
        program: placement.programs[index])
    }
    var times = Engine.StartTimes()
    var begin = ContinuousClock.now
    func lap() -> Double {
      defer { begin = .now }
      return (ContinuousClock.now - begin) / .seconds(1)
    }
    let total = placement.programs.reduce(0) { $0 + Engine.sourceBytes(of: $1) }
    var loaded = 0
    try onProgress(.weights(loaded: 0, total: total))
    let models = try placement.programs.indices.map { index in
      try DeviceModel(
        program: placement.programs[index], source: model.source, cache: caches[index],
        residency: streamed?[index].weights.residency, reading: options.reading
      ) { bytes in
        loaded += bytes
        try onProgress(.weights(loaded: min(loaded, total), total: total))
      }
    }
    weightStreams = models.compactMap(\.stream)
    times.weights = lap()
    pageCount =
      plan.caches?[0].pageCount
      ?? (streamed != nil
        ? KVCache.pages(forTokens: max(options.cacheTokens ?? 0, contextLength)) : pageCounts.min() ?? 1)
    let cacheTokens = pageCount * KVCache.pageTokens
    let trial =
      count == 1
      ? nil
      : try MeshTrial(
        devices: devices, caches: caches, memory: options.meshMemory,
        path: options.meshPath ?? (options.stageDelay == nil ? nil : .threads),
        waitsLong: options.pipelineParallel > 1)
    let memoryShares = plans.indices.map { index in
      let memory = plans[index]
      let weights = streamed.map { $0[index].weights.residentBytes + $0[index].weights.streamBytes }
      // What was planned may be more than what is shared in fact.
      let spared =
        trial.map { placement.spared($0.transport.memory, index, limits: limits(contextLength)) } ?? 0
      return (weights ?? memory.weights) + memory.workspace - spared
        + (plan.caches?[index].deviceBytes ?? memory.cachePerToken * cacheTokens)
    }
    runner = try placement.runner(
      opened: devices, caches: caches, models: models, limits: limits(contextLength), pageCount: pageCount,
      overlaps: options.overlaps, trial: trial, cacheResidencies: plan.caches?.map(\.residency))
    times.runner = lap()
    if options.tunes { try runner.tune(sequences: maxSequences) }
    times.tuning = lap()
    if let prompt = options.expectedPrompt, (1...contextLength).contains(prompt),
      let runner = runner as? ModelRunner
    {
      let start = ContinuousClock.now
      try runner.prepare(Self.steps(ofPrompt: prompt, promptChunk: promptChunk)) {
        try onProgress(.kernels(seconds: (ContinuousClock.now - start) / .seconds(1)))
      }
    }
    var schedule = Scheduler.Limits(
      sequences: maxSequences, promptTokens: promptChunk,
      mixedTokens: weightStreams.isEmpty || isCPUDevice
        ? max(1, min(promptChunk / 2, Engine.mixedTokens)) : promptChunk,
      groups: options.groups ?? options.pipelineParallel, stages: options.pipelineParallel)
    if let mesh = runner as? MeshRunner {
      if let delay = options.stageDelay { try mesh.setDelay(delay) }
      if measuresStages, options.pipelineParallel > 1 {
        let most = promptChunk
        let sizes = [1, 16, 64, 256, 1024].filter { $0 < most } + [most]
        if devices.allSatisfy({ $0.physical.capabilities.timestampBits > 0 }) {
          schedule.stageTimes = try mesh.measureStages(tokens: sizes)
        } else {
          schedule.promptTokens = max(1, most / (2 * options.pipelineParallel))
        }
      }
    }
    self.schedule = schedule
    times.steps = lap()
    for device in devices {
      times.pipelines += device.pipelinesMade.count
      times.pipelineSeconds += device.pipelinesMade.time / .seconds(1)
    }
    hostPageCount = Engine.hostPageCount(
      options, pages: pageCount, plans: plans,
      taken: (plan.caches?.reduce(0) { $0 + $1.hostBytes } ?? 0)
        + (streamed?.reduce(0) { $0 + $1.weights.hostBytes } ?? 0))
    facts = Facts(
      contextLength: contextLength, deviceName: deviceName, isCPUDevice: isCPUDevice,
      cacheTokens: cacheTokens, promptChunk: promptChunk,
      placementText: plan.text,
      streamedBytes: streamed?.reduce(0) { $0 + $1.weights.copiedBytes } ?? 0,
      placementTexts: placement.texts, meshPathText: (runner as? MeshRunner)?.pathText,
      meshTransport: trial?.transport, deviceNumbers: placement.devices.map(\.index),
      memoryShares: memoryShares, stageTimes: schedule.stageTimes, tuningTexts: caches[0].tuning.texts,
      startTimes: times)
  }

  /// A scheduler that knows of no sequence, and of nothing in the cache.
  func makeScheduler() -> Scheduler {
    Scheduler(
      limits: schedule, pages: PageAllocator(pageCount: pageCount, pageTokens: KVCache.pageTokens),
      hostPageCount: hostPageCount)
  }

  /// Tokens and outputs of the steps that a prompt alone is made of, and of the one for each token after it.
  private static func steps(ofPrompt count: Int, promptChunk: Int) -> [(rows: Int, outputs: Int)] {
    let last = (count - 1) % promptChunk + 1
    return (count > promptChunk ? [(promptChunk, 0)] : []) + [(last, 1), (1, 1)]
  }
}
