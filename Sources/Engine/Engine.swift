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
  /// Whether logical devices of one physical device leave things for one another as if they were of several: for tests.
  package var meshIsApart = false
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
  /// What makes allocations of memory fail, and counts what is held.
  package var allocationFaults: AllocationFaults?
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
  /// Whether an engine that loses a device of its mesh goes on with those that are left: it loads the model onto them
  /// before its next step. Else it only fails from then on.
  public var rebuilds = true

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

/// A model loaded onto a device, or onto the devices of a mesh, ready to generate.
///
/// What it says of its devices is true until one of a mesh is lost, and the model runs on those that are left.
public final class Engine: Sendable {
  public let model: LanguageModel
  /// Requests that are generated at the same time.
  public let maxSequences: Int

  let intake = Guarded(Intake())
  let options: EngineOptions
  let instance: VulkanInstance
  private let batch: Batch
  /// Held by the thread that uses `batch`.
  private let turn = Lock()
  /// What can be asked while a step runs, or the model is loaded anew.
  let current: Guarded<Current>

  struct Current: Sendable {
    var facts: Deployment.Facts
    var devices: [Device]
    var weightStreams: [WeightStream]
    /// Devices that were lost, and what was done about it.
    var lost: Set<Int> = []
    var lossText: String?

    init(_ deployment: Deployment) {
      facts = deployment.facts
      devices = deployment.devices
      weightStreams = deployment.weightStreams
    }
  }

  /// Loads `model` onto a device.
  ///
  /// - Parameter onProgress: called some times a second; throwing stops the load.
  public init(
    model: LanguageModel, options: EngineOptions = EngineOptions(),
    onProgress: @escaping (LoadProgress) throws -> Void = { _ in }
  ) throws {
    self.model = model
    self.options = options
    instance = try VulkanInstance()
    let program = try model.program(cacheType: options.cacheType)
    let placement = try MeshPlacement(options, program: program, instance: instance)
    let deployment = try Deployment(
      model: model, options: options, placement: placement, seats: Array(placement.devices.indices),
      instance: instance, onProgress: onProgress)
    maxSequences = options.maxSequences
    current = Guarded(Current(deployment))
    batch = Batch(
      deployment: deployment, model: model, pacesPrompts: options.pacesPrompts, flushes: options.flushes)
  }

  private var facts: Deployment.Facts { current.withLock(\.facts) }

  /// Tokens of prompt and text that fit.
  public var contextLength: Int { facts.contextLength }
  /// What the device is called.
  public var deviceName: String { facts.deviceName }
  /// A CPU driver runs the shaders: slow, for tests.
  public var isCPUDevice: Bool { facts.isCPUDevice }
  /// Tokens of all requests whose keys and values are kept.
  public var cacheTokens: Int { facts.cacheTokens }
  /// Where weights are, in a line; nil where all are on the device as usual.
  public var placementText: String? { facts.placementText }
  /// Bytes of weights that a step brings to the device.
  public var streamedBytes: Int { facts.streamedBytes }
  /// What each device has of the model, a line each.
  public var placementTexts: [String] { facts.placementTexts }
  /// How the devices of a mesh wait for one another, in a line; nil for one device.
  public var meshPathText: String? { facts.meshPathText }
  /// Where they leave things for one another, and how they wait for that; nil for one device.
  package var meshTransport: MeshTransport? { facts.meshTransport }
  /// The number of each device in `vkinfer devices`.
  package var deviceNumbers: [Int] { facts.deviceNumbers }
  /// Most tokens of a prompt that a step has.
  package var promptChunk: Int { facts.promptChunk }
  /// What each device was meant to take: weights, cache and activations.
  package var memoryShares: [Int] { facts.memoryShares }
  /// How long pipeline stages take, if that was measured.
  package var stageTimes: StageTimes? { facts.stageTimes }
  /// How products are cut on this device, a line each: what was measured at its first use.
  public var tuningTexts: [String] { facts.tuningTexts }
  /// Where the time of the start went.
  public var startTimes: StartTimes { facts.startTimes }

  /// Waits until no other thread uses the batch.
  func withBatch<Result: Sendable>(_ body: (Batch) throws -> Result) rethrows -> Result {
    try turn.withLock { try body(batch) }
  }

  /// The same, with devices that work: those that failed are made ready first.
  func withWorkingBatch<Result: Sendable>(_ body: (Batch) throws -> Result) throws -> Result {
    try withBatch { batch in
      try repair(batch)
      do { return try body(batch) } catch {
        batch.noteFailure()
        throw error
      }
    }
  }

  /// Notes when each device of a mesh computes what while `body` runs; nil without a mesh, or where a device has no clock.
  package func timeline(_ body: () throws -> Void) throws -> MeshTimeline? {
    func mesh(_ batch: Batch) throws -> MeshRunner? {
      let runner = try batch.runner as? MeshRunner
      return runner?.hasClocks == true ? runner : nil
    }
    try withWorkingBatch { try mesh($0)?.startTimeline() }
    let outcome = Result { try body() }
    let timeline = try withBatch { try mesh($0)?.endTimeline() }
    try outcome.get()
    return timeline
  }

  /// Bytes of device memory in use now, and the most that ever were.
  public var deviceMemory: (now: Int, peak: Int) {
    deviceMemories.reduce((0, 0)) { ($0.0 + $1.now, $0.1 + $1.peak) }
  }

  /// The same for each device of a mesh.
  public var deviceMemories: [(now: Int, peak: Int)] {
    current.withLock { $0.devices.map { ($0.allocatedBytes, $0.peakAllocatedBytes) } }
  }

  /// What streams to each device that has not all its weights, how fast link and disk are, and what they did so far;
  /// empty where all weights are on their devices.
  package var streaming: [StreamFigures] {
    withBatch { _ in current.withLock { $0.weightStreams.map(\.figures) } }
  }

  /// What moves of keys and values between host and device, and how fast it could; nil where all are on the device.
  package var cacheStreaming: CacheStreamFigures? {
    withBatch { batch in
      let runner = try? batch.runner
      let runners = (runner as? MeshRunner)?.runners ?? [runner as? ModelRunner].compactMap { $0 }
      return runners.compactMap { $0.cacheStream?.figures }
        .max { $0.byteCount(positions: 1) < $1.byteCount(positions: 1) }
    }
  }

  /// How often all weights that stream have been through the devices, since the engine was made. Can be asked while
  /// steps run.
  package var weightPasses: Double { current.withLock { $0.weightStreams.map(\.passes).min() ?? 0 } }

  /// Watches what those devices wait for, until the watches are ended.
  package func watchStreams() -> [StreamWatch] { current.withLock { $0.weightStreams.map { $0.watch() } } }

  /// The most host memory that was ever pinned for weights that stream and all else that goes between host and devices,
  /// in bytes: the sum of the devices' own peaks, in which memory that several import counts for each.
  public var peakPinnedMemory: Int { current.withLock { $0.devices.reduce(0) { $0 + $1.peakHostBytes } } }

  /// Pages of the KV cache that went to host memory, since there was no room for all that ran, and came back.
  public var returnedPages: Int { withBatch { $0.scheduler.returnedPageCount } }

  /// Keeps the pipelines compiled so far for the next start. Failing to is no harm: the error says why.
  public func savePipelineCache() throws {
    try withBatch { _ in try current.withLock(\.devices).forEach { try $0.savePipelineCache() } }
  }

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

  /// Messages of a Vulkan validation layer so far; 0 without one.
  public var validationMessageCount: Int { instance.validationMessageCount }

  // MARK: - Memory

  /// Tokens of a step that has some of prompts: more would make those who wait for their next token wait noticeably. Where
  /// weights stream to a GPU they wait for those anyway.
  static let mixedTokens = 256

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
      pagesPerSequence: KVCache.pages(forTokens: context))
  }

  /// Pages of the cache: what all sequences may need, or as many as memory that the plan leaves has room for.
  static func pageCount(
    _ options: EngineOptions, plan: MemoryPlan, available: Int, device: PhysicalDevice, program: Program
  ) -> Int {
    let least = KVCache.pages(forTokens: plan.contextLength)
    let wanted = options.cacheTokens.map(KVCache.pages) ?? least * options.maxSequences
    let room = (available - plan.weights - plan.workspace) / (plan.cachePerToken * KVCache.pageTokens)
    // A layer's pages lie in one allocation.
    let most = Int(clamping: device.capabilities.maxAllocationBytes) / KVCache.pageBytes(heads: program.heads)
    return max(least, min(wanted, room, most))
  }

  /// Pages that go to host memory when the cache has no room for all that runs: what is missing, as far as half of the
  /// host memory that `taken` bytes leave has room for it.
  static func hostPageCount(
    _ options: EngineOptions, pages: Int, plans: [MemoryPlan], taken: Int
  ) -> Int {
    let missing = KVCache.pages(forTokens: plans[0].contextLength) * options.maxSequences - pages
    let pageBytes = plans.reduce(0) { $0 + $1.cachePerToken } * KVCache.pageTokens
    let room = (options.memory.budget(available: 0).host - taken) / 2
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

  static func sourceBytes(of program: Program) -> Int {
    Set(program.stages.flatMap(\.matrices)).reduce(0) { $0 + $1.byteCount }
  }
}
