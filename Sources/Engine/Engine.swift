import CShaderInterface
import Kernels
import ModelFiles
import Placement
import Tokenization
import Transformer
import VulkanRuntime

public typealias KVCacheType = Transformer.KVCacheType

/// What an engine is made with.
public struct EngineOptions: Sendable {
  /// A device's number in `vkinfer devices`, or part of its name; nil takes the best.
  public var device: String?
  /// The devices of a mesh, as `device` names one; the same one may be there several times. None takes `device` for all.
  public var devices: [String] = []
  /// Devices that split every layer, and stages of consecutive layers.
  public var tensorParallel = 1
  public var pipelineParallel = 1
  /// How the devices of a mesh wait for one another, and where they leave things; nil tries and takes the fastest.
  package var meshPath: MeshPath?
  package var meshMemory: MeshMemory?
  /// Engines of an `EngineGroup`, each on a mesh of its own; `devices` then names those of one after the other.
  public var dataParallel = 1
  /// Which of them an engine is.
  package var replica = 0
  /// Tokens of prompt and text together; nil takes what the model was trained for, as far as memory allows.
  public var contextLength: Int?
  /// Tokens of all requests together whose keys and values are kept: at least a context's. nil takes what the requests
  /// that run at the same time may need, as far as memory allows.
  public var cacheTokens: Int?
  /// Whether a shorter context is taken when memory does not hold `contextLength`.
  public var mayShortenContext = false
  /// Most requests that are generated at the same time; further ones wait.
  public var maxSequences = 1
  /// Most tokens whose logits are wanted in one step: 1 generates, more are for scoring a text.
  public var maxOutputs = 1
  /// Most tokens of a prompt that are processed at once; nil chooses.
  public var promptChunk: Int?
  /// Tokens of the prompt that comes first: what it and the text after it need is compiled while loading. nil leaves
  /// that to the first request.
  public var expectedPrompt: Int?
  /// Where compiled pipelines are kept between runs; nil keeps none.
  public var pipelineCacheDirectory: String?
  /// Whether the fastest of several ways to cut products is measured at first use of a device, within two seconds.
  public var tunes = true
  /// Whether stages of a token may start while the one before still runs, on devices that are found to be able to.
  public var overlaps = true
  /// How keys and values are kept: fewer bytes make room for more tokens, and are read faster.
  public var cacheType = KVCacheType.f16
  /// Memory that may be taken.
  public var memory = MemoryOptions()
  /// How weights are read from a file while the model runs.
  package var reading = ReadOptions()
  /// Layers of each pipeline stage; empty divides them so that all take the same time, as far as memory allows.
  public var stageLayers: [Int] = []
  /// Whether stages of a pipeline are measured while loading, so that prompts are cut as they pass it soonest; nil
  /// measures where products are tuned and the device is no CPU.
  package var measuresStages: Bool?
  /// How each step of a mesh is made to last longer, groups of texts, and whether all of them end a token before the next
  /// begins: for measurements of the schedule.
  package var stageDelay: StageDelay?
  package var groups: Int?
  package var flushes = false
  /// How steps are computed.
  package var method = StepMethod()
  /// Whether the time that steps take decides how much of prompts enters beside running texts, so that those get their
  /// tokens evenly; else that is a constant, and the same requests make the same steps in every run.
  public var pacesPrompts = false

  public init() {}
}

extension EngineOptions {
  func measures(isCPU: Bool) -> Bool {
    measuresStages ?? (tunes && !isCPU && promptChunk == nil && pipelineParallel > 1)
  }
}

/// How far the making of an engine is.
public enum LoadProgress: Sendable {
  /// Bytes of weights loaded so far, and in all.
  case weights(loaded: Int, total: Int)
  /// Seconds since kernels began to be compiled: nobody knows how long it takes.
  case kernels(seconds: Double)
}

/// A model loaded onto a device, ready to generate.
public final class Engine: Sendable {
  public let model: LanguageModel
  /// Tokens of prompt and text that fit.
  public let contextLength: Int
  /// What the device is called.
  public let deviceName: String
  /// A CPU driver runs the shaders: slow, for tests.
  public let isCPUDevice: Bool

  /// Requests that are generated at the same time.
  public let maxSequences: Int
  /// Tokens of all of them whose keys and values are kept.
  public let cacheTokens: Int

  /// Where weights are, in a line; nil where all are on the device as usual.
  public let placementText: String?
  /// Bytes of weights that a step brings to the device.
  public let streamedBytes: Int

  /// Most tokens of a prompt that a step has.
  package let promptChunk: Int
  /// What each device was meant to take: weights, cache and activations.
  package let memoryShares: [Int]
  /// How long pipeline stages take, if that was measured.
  package let stageTimes: StageTimes?
  let intake = Guarded(Intake())
  private let batch: Batch
  /// Held by the thread that uses `batch`.
  private let turn = Lock()
  private let devices: [Device]
  private let tunings: [LinearTuning]
  private let weightStreams: [WeightStream]
  /// What each device has of the model, a line each.
  public let placementTexts: [String]
  /// How the devices of a mesh wait for one another, in a line; nil for one device.
  public let meshPathText: String?
  private let instance: VulkanInstance

  /// Loads `model` onto a device.
  ///
  /// - Parameter onProgress: called some times a second; throwing stops the load.
  public init(
    model: LanguageModel, options: EngineOptions = EngineOptions(),
    onProgress: @escaping (LoadProgress) throws -> Void = { _ in }
  ) throws {
    self.model = model
    instance = try VulkanInstance()
    let program = try model.program(cacheType: options.cacheType)
    let placement = try MeshPlacement(options, program: program, instance: instance)
    let first = placement.devices[0]
    let count = placement.devices.count
    deviceName =
      count == 1
      ? first.name
      : placement.devices.allSatisfy { $0.name == first.name }
        ? "\(count) x \(first.name)" : placement.devices.map(\.name).joined(separator: ", ")
    isCPUDevice = placement.traits.contains(where: \.isCPU)
    placementTexts = placement.texts

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
    let limits: (Int) -> StepLimits
    let plans: [MemoryPlan]
    var streamed: [StreamedPlacement]?
    let traits = placement.traits[0]
    let wholes = placement.programs.indices.map { index in
      placement.plan(
        index, contextLength: requested,
        limits: Engine.stepLimits(options, context: requested, traits: traits))
    }
    let fits = wholes.enumerated().allSatisfy { index, whole in
      whole.weights + whole.workspace < placement.availableMemory(index)
    }
    // As long as weights fit, contexts are shortened; only then do weights stream.
    if !options.memory.isGiven, fits {
      plans = try placement.plans(
        contextLength: requested, mayShorten: options.contextLength == nil || options.mayShortenContext
      ) { [options] in Engine.stepLimits(options, context: $0, traits: traits) }
    } else {
      if !givesChunk { options.promptChunk = nil }
      let placed = try placement.streamed(&options, wholes: wholes, source: model.source)
      streamed = placed
      plans = wholes
    }
    limits = { [options] in Engine.stepLimits(options, context: $0, traits: traits) }
    let streams = streamed?.contains { $0.weights.copiedBytes > 0 } ?? false
    guard options.method.isFast || (count == 1 && !streams) else {
      throw EngineError(
        .option,
        "unfused steps and naive products want one device with room for all weights: give it more memory")
    }
    contextLength = plans[0].contextLength
    promptChunk = min(Engine.promptChunk(options, traits: traits), contextLength)
    placementText = streamed.map { MeshPlacement.text($0.map(\.weights)) }
    streamedBytes = streamed?.reduce(0) { $0 + $1.weights.copiedBytes } ?? 0
    maxSequences = options.maxSequences

    devices = try placement.devices.map { [instance] in
      try Device(instance: instance, physical: $0, pipelineCacheDirectory: options.pipelineCacheDirectory)
    }
    let caches = devices.map { [options] in KernelCache(device: $0, method: options.method) }
    tunings = caches.map(\.tuning)
    // Asked before weights are there.
    let pageCounts = placement.programs.indices.map { index in
      Engine.pageCount(
        options, plan: plans[index], available: placement.availableMemory(index),
        device: placement.devices[index],
        program: placement.programs[index])
    }
    var times = StartTimes()
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
    let pageCount =
      streamed != nil
      ? Engine.pages(forTokens: max(options.cacheTokens ?? 0, contextLength)) : pageCounts.min() ?? 1
    cacheTokens = pageCount * KVCache.pageTokens
    let kept = cacheTokens
    let trial =
      count == 1
      ? nil
      : try MeshTrial(
        devices: devices, caches: caches, memory: options.meshMemory,
        path: options.meshPath ?? (options.stageDelay == nil ? nil : .threads),
        waitsLong: options.pipelineParallel > 1)
    // What was planned may be more than what is shared in fact.
    let spared = placement.programs.indices.map { [limits, contextLength] index in
      let limits = limits(contextLength)
      return placement.sharedBytes(index, limits: limits, memory: placement.memory)
        - placement.sharedBytes(index, limits: limits, memory: trial?.transport.memory ?? placement.memory)
    }
    memoryShares = plans.enumerated().map { index, plan in
      let weights = streamed.map { $0[index].weights.residentBytes + $0[index].weights.streamBytes }
      return (weights ?? plan.weights) + plan.workspace - spared[index] + plan.cachePerToken * kept
    }
    let runner = try placement.runner(
      opened: devices, caches: caches, models: models, limits: limits(contextLength), pageCount: pageCount,
      overlaps: options.overlaps, trial: trial)
    meshPathText = (runner as? MeshRunner)?.pathText
    times.runner = lap()
    if options.tunes { try runner.tune(sequences: maxSequences) }
    times.tuning = lap()
    if let prompt = options.expectedPrompt, (1...contextLength).contains(prompt),
      let runner = runner as? ModelRunner
    {
      let start = ContinuousClock.now
      try runner.prepare(Engine.steps(ofPrompt: prompt, promptChunk: promptChunk)) {
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
    stageTimes = schedule.stageTimes
    times.steps = lap()
    for device in devices {
      times.pipelines += device.pipelinesMade.count
      times.pipelineSeconds += device.pipelinesMade.time / .seconds(1)
    }
    startTimes = times
    let scheduler = Scheduler(
      limits: schedule, pages: PageAllocator(pageCount: pageCount, pageTokens: KVCache.pageTokens),
      hostPageCount: Engine.hostPageCount(
        options, pages: pageCount, plans: plans,
        weights: streamed?.reduce(0) { $0 + $1.weights.hostBytes } ?? 0))
    batch = Batch(
      runner: runner, model: model, scheduler: scheduler, pacesPrompts: options.pacesPrompts,
      flushes: options.flushes)
  }

  /// Notes when each device of a mesh computes what while `body` runs; nil without a mesh.
  package func timeline(_ body: () throws -> Void) throws -> MeshTimeline? {
    try withBatch { try ($0.runner as? MeshRunner)?.startTimeline() }
    let outcome = Result { try body() }
    let timeline = try withBatch { try ($0.runner as? MeshRunner)?.endTimeline() }
    try outcome.get()
    return timeline
  }

  /// Waits until no other thread uses the batch.
  func withBatch<Result: Sendable>(_ body: (Batch) throws -> Result) rethrows -> Result {
    try turn.withLock { try body(batch) }
  }

  /// Tokens and outputs of the steps that a prompt alone is made of, and of the one for each token after it.
  private static func steps(ofPrompt count: Int, promptChunk: Int) -> [(rows: Int, outputs: Int)] {
    let last = (count - 1) % promptChunk + 1
    return (count > promptChunk ? [(promptChunk, 0)] : []) + [(last, 1), (1, 1)]
  }

  /// Bytes of device memory in use now, and the most that ever were.
  public var deviceMemory: (now: Int, peak: Int) {
    deviceMemories.reduce((0, 0)) { ($0.0 + $1.now, $0.1 + $1.peak) }
  }

  /// The same for each device of a mesh.
  public var deviceMemories: [(now: Int, peak: Int)] {
    devices.map { ($0.allocatedBytes, $0.peakAllocatedBytes) }
  }

  /// Devices of a mesh (their places in it) that were lost or hang: an engine made on the others works.
  public var lostDevices: [Int] {
    withBatch { ($0.runner as? MeshRunner)?.lost.sorted() ?? [] }
  }

  /// What streams to each device that has not all its weights, how fast link and disk are, and what they did so far;
  /// empty where all weights are on their devices.
  package var streaming: [StreamFigures] { withBatch { _ in weightStreams.map(\.figures) } }

  /// How often all weights that stream have been through the devices, since the engine was made. Can be asked while
  /// steps run.
  package var weightPasses: Double { weightStreams.map(\.passes).min() ?? 0 }

  /// Watches what those devices wait for, until the watches are ended.
  package func watchStreams() -> [StreamWatch] { weightStreams.map { $0.watch() } }

  /// The most host memory that was ever pinned for weights that stream and all else that goes between host and devices,
  /// in bytes: the sum of the devices' own peaks, in which memory that they share counts for each.
  public var peakPinnedMemory: Int { devices.reduce(0) { $0 + $1.peakHostBytes } }

  /// Pages of the KV cache that went to host memory, since there was no room for all that ran, and came back.
  public var returnedPages: Int { withBatch { $0.scheduler.returnedPageCount } }

  /// Keeps the pipelines compiled so far for the next start. Failing to is no harm: the error says why.
  public func savePipelineCache() throws {
    for device in devices { try device.savePipelineCache() }
  }

  /// Where the time of the start went.
  public let startTimes: StartTimes

  /// Seconds of the parts of a start.
  public struct StartTimes: Sendable {
    /// Weights, from their file to the devices.
    public var weights = 0.0
    /// The runner: caches, and what a device is tried for.
    public var runner = 0.0
    /// Measuring how to cut products; 0 where that is known.
    public var tuning = 0.0
    /// Recording and trying the steps of the first request: kernels are compiled on the way.
    public var steps = 0.0
    /// Pipelines that were made in all of these, and the time of the driver in making them.
    public var pipelines = 0
    public var pipelineSeconds = 0.0
  }

  /// How products are cut on this device, a line each: what was measured at its first use.
  public var tuningTexts: [String] { tunings[0].texts }

  /// Messages of a Vulkan validation layer so far; 0 without one.
  public var validationMessageCount: Int { instance.validationMessageCount }

  // MARK: - Memory

  /// Tokens of a step that has some of prompts: more would make those who wait for their next token wait noticeably. Where
  /// weights stream to a GPU they wait for those anyway.
  private static let mixedTokens = 256

  /// Most tokens of a prompt that are processed at once.
  package static func promptChunk(_ options: EngineOptions, traits: DeviceTraits) -> Int {
    // Products on matrix units are the faster the more tokens they have, up to some thousands.
    max(1, options.promptChunk ?? (traits.isCPU ? 64 : traits.matrixUnits == nil ? 512 : 2048))
  }

  /// The most that one step may ask for, with a context of that many tokens.
  static func stepLimits(_ options: EngineOptions, context: Int, traits: DeviceTraits) -> StepLimits {
    let chunk = promptChunk(options, traits: traits)
    let sequences = options.maxSequences
    // A chunk of prompts beside a token of every other sequence.
    let rows = min(chunk, max(context, 1) * sequences) + sequences - 1
    return StepLimits(
      rows: rows, outputs: min(max(options.maxOutputs, sequences), rows), sequences: sequences,
      pagesPerSequence: pages(forTokens: context))
  }

  static func pages(forTokens tokens: Int) -> Int {
    (tokens + KVCache.pageTokens - 1) / KVCache.pageTokens
  }

  /// Pages of the cache: what all sequences may need, or as many as memory that the plan leaves has room for.
  private static func pageCount(
    _ options: EngineOptions, plan: MemoryPlan, available: Int, device: PhysicalDevice, program: Program
  ) -> Int {
    let least = pages(forTokens: plan.contextLength)
    let wanted = options.cacheTokens.map(pages) ?? least * options.maxSequences
    let room = (available - plan.weights - plan.workspace) / (plan.cachePerToken * KVCache.pageTokens)
    // A layer's pages lie in one allocation.
    let most = Int(clamping: device.capabilities.maxAllocationBytes) / KVCache.pageBytes(heads: program.heads)
    return max(least, min(wanted, room, most))
  }

  /// Pages that go to host memory when the cache has no room for all that runs: what is missing, as far as half of the
  /// host memory that `weights` bytes leave has room for it.
  private static func hostPageCount(
    _ options: EngineOptions, pages: Int, plans: [MemoryPlan], weights: Int
  ) -> Int {
    let missing = Engine.pages(forTokens: plans[0].contextLength) * options.maxSequences - pages
    let pageBytes = plans.reduce(0) { $0 + $1.cachePerToken } * KVCache.pageTokens
    let room = (options.memory.budget(available: 0).host - weights) / 2
    return max(0, min(missing, room / max(pageBytes, 1)))
  }

  /// What a run needs on a device, in bytes.
  static func memoryPlan(
    program: Program, contextLength: Int, limits: StepLimits, traits: DeviceTraits
  ) -> MemoryPlan {
    let pageBytes = KVCache.pageBytes(heads: program.heads) * program.layerCount
    return MemoryPlan(
      weights: DeviceModel.weightBytes(of: program), cachePerToken: pageBytes / KVCache.pageTokens,
      contextLength: contextLength,
      workspace: Workspace.byteCount(program: program, limits: limits, traits: traits))
  }

  /// Free device memory, less a reserve for the driver and staging.
  package static func availableMemory(_ physical: PhysicalDevice) -> Int {
    let total = Int(clamping: physical.deviceMemory)
    let free =
      physical.memoryBudget().map { Int(clamping: $0.budget) - Int(clamping: $0.used) } ?? total / 10 * 9
    return min(free, total) - min(256 << 20, total / 20)
  }

  private static func sourceBytes(of program: Program) -> Int {
    Set(program.stages.flatMap(\.matrices)).reduce(0) { $0 + $1.byteCount }
  }
}
