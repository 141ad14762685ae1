import Kernels
import ModelFiles
import Placement
import Transformer
import VulkanRuntime

extension EngineOptions {
  /// Sets the devices of a mesh, with commas between, and how they share the work. Devices alone say that each layer is
  /// split over all of them.
  public mutating func setMesh(
    devices: String?, tensorParallel: Int?, pipelineParallel: Int?, dataParallel: Int? = nil
  ) {
    self.devices = (devices ?? "").split(separator: ",").map(String.init)
    let isPlain = tensorParallel == nil && pipelineParallel == nil && dataParallel == nil
    self.tensorParallel = tensorParallel ?? (isPlain ? max(1, self.devices.count) : 1)
    self.pipelineParallel = pipelineParallel ?? 1
    self.dataParallel = dataParallel ?? 1
  }
}

/// Which devices run a model, and what each has of it.
struct MeshPlacement {
  let mesh: MeshShape
  let devices: [PhysicalDevice]
  let traits: [DeviceTraits]
  let programs: [Program]
  /// How many share each device's memory.
  private let sharers: [Int]
  /// Where the devices may leave things for one another, as far as is known before they are opened.
  let memory: MeshMemory
  private let isApart: Bool

  /// - Throws: devices that are not there, or a mesh that the model cannot be split over.
  init(_ options: EngineOptions, program: Program, instance: VulkanInstance) throws {
    let (tensor, pipeline) = (options.tensorParallel, options.pipelineParallel)
    guard tensor >= 1, pipeline >= 1, tensor <= 64, pipeline <= 64 else {
      throw EngineError(.option, "\(tensor) x \(pipeline) devices are not possible: use 1 to 64 of each")
    }
    let mesh = MeshShape(tensor: tensor, pipeline: pipeline)
    let wanted = mesh.deviceCount * options.dataParallel
    let specs =
      options.devices.isEmpty
      ? [String?](repeating: options.device, count: wanted) : options.devices.map { $0 }
    guard specs.count == wanted else {
      throw EngineError(
        .option,
        "\(specs.count) devices are given, but tensor-parallel \(tensor) times pipeline-parallel \(pipeline)"
          + (options.dataParallel > 1 ? " times data-parallel \(options.dataParallel)" : "")
          + " takes \(wanted): name as many, or none to use one several times")
    }
    let all = try specs.map { try DeviceSelection.select(spec: $0, from: instance.physicalDevices) }
    let first = options.replica * mesh.deviceCount
    let devices = Array(all[first..<first + mesh.deviceCount])
    // What engines before this one took shows in the budget, where there is one.
    let sharers = devices.map { device in
      all.dropFirst(device.memoryBudget() == nil ? 0 : first).count { $0.index == device.index }
    }
    try self.init(mesh: mesh, devices: devices, sharers: sharers, options: options, program: program)
  }

  private init(
    mesh: MeshShape, devices: [PhysicalDevice], sharers: [Int], options: EngineOptions, program: Program
  ) throws {
    self.mesh = mesh
    self.devices = devices
    self.sharers = sharers
    traits = devices.map { DeviceTraits($0, method: options.method) }
    isApart = options.meshIsApart
    memory = options.meshMemory ?? (devices.allSatisfy { $0.kind == .cpu } ? .host : .device)
    // Nine tenths of what the devices of each stage have: the rest is for the cache and all else.
    let rooms = (0..<mesh.pipeline).map { stage in
      (0..<mesh.tensor).map { rank in
        let index = stage * mesh.tensor + rank
        return options.memory.device ?? Engine.availableMemory(devices[index]) / sharers[index] / 10 * 9
      }
    }
    programs = try program.shared(
      over: mesh,
      split: options.stageLayers.isEmpty
        ? LayerSplit.within(rooms.map { ($0.min() ?? 0) * mesh.tensor }) : .counts(options.stageLayers))
  }

  /// The model on some of the devices, after others were lost.
  ///
  /// - Parameters:
  ///   - chosen: the numbers of those devices.
  ///   - hung: devices whose memory is not free again.
  func reduced(
    to mesh: MeshShape, of chosen: [Int], hung: Set<Int>, options: EngineOptions, program: Program
  ) throws -> MeshPlacement {
    let free = devices.indices.filter { !chosen.contains($0) && !hung.contains($0) }
    return try MeshPlacement(
      mesh: mesh, devices: chosen.map { devices[$0] },
      sharers: chosen.map { seat in
        sharers[seat] - free.count { devices[$0].index == devices[seat].index }
      }, options: options, program: program)
  }

  /// Free memory for one device: one that is there several times shares its memory out.
  func availableMemory(_ index: Int) -> Int {
    Engine.availableMemory(devices[index]) / sharers[index]
  }

  /// What a device needs, with what it gives to the mesh.
  func plan(_ index: Int, contextLength: Int, limits: StepLimits) -> MemoryPlan {
    var plan = Engine.memoryPlan(
      program: programs[index], contextLength: contextLength, limits: limits, traits: traits[index])
    plan.workspace += sharedBytes(index, limits: limits, memory: memory)
    return plan
  }

  /// Where memory goes on each device, with the context that fits all of them.
  func plans(
    contextLength: Int, mayShorten: Bool, limits: (Int) -> StepLimits
  ) throws -> [MemoryPlan] {
    var plans = try programs.indices.map { index in
      try plan(index, contextLength: contextLength, limits: limits(contextLength)).fitted(
        available: availableMemory(index), pageTokens: KVCache.pageTokens, mayShorten: mayShorten)
    }
    let shortest = plans.map(\.contextLength).min() ?? contextLength
    for index in plans.indices { plans[index].contextLength = shortest }
    return plans
  }

  /// Where weights are, if devices may have no room for all; each device has as much memory as the options say, and an
  /// equal share of the host's.
  ///
  /// - Parameters:
  ///   - options: chunks of prompts and the cache, which are the same for all, are set.
  ///   - wholes: what a run would need with all weights on their devices.
  func streamed(
    _ options: inout EngineOptions, wholes: [MemoryPlan], source: any TensorSource
  ) throws -> [StreamedPlacement] {
    // What all sequences may need, within a quarter of each device's memory.
    let tokens = wholes.indices.map { index in
      let (whole, budget) = (wholes[index], options.memory.budget(available: availableMemory(index)))
      return max(
        whole.contextLength,
        min(
          whole.contextLength * options.maxSequences, budget.device / 4 / max(whole.cachePerToken, 1)))
    }
    options.cacheTokens = options.cacheTokens ?? tokens.min()
    while true {
      let placed = try wholes.indices.map { try streamed($0, options, whole: wholes[$0], source: source) }
      let chunk = placed.map(\.promptChunk).min() ?? 1
      options.promptChunk = chunk
      if placed.allSatisfy({ $0.promptChunk == chunk }) { return placed }
    }
  }

  private func streamed(
    _ index: Int, _ options: EngineOptions, whole: MemoryPlan, source: any TensorSource
  ) throws -> StreamedPlacement {
    let (available, traits) = (availableMemory(index), traits[index])
    let pages = KVCache.pages(forTokens: max(options.cacheTokens ?? 0, whole.contextLength))
    // Weights that stream are brought once for all tokens of a step: the more the better.
    let usual = Engine.promptChunk(options, traits: traits)
    let chunk = options.promptChunk == nil && traits.matrixUnits != nil ? 2 * usual : usual
    return try StreamedPlacement(
      program: programs[index], source: source, memory: memoryShare(index, options), available: available,
      cacheBytes: pages * whole.cachePerToken * KVCache.pageTokens, chunk: min(chunk, whole.contextLength),
      traits: traits, sharedBytes: { sharedBytes(index, limits: $0, memory: self.memory) }
    ) { stepLimits(index, options, contextLength: whole.contextLength, promptChunk: $0) }
  }

  /// The most that a step asks of a device with prompts in chunks of so many tokens.
  func stepLimits(
    _ index: Int, _ options: EngineOptions, contextLength: Int, promptChunk: Int
  ) -> StepLimits {
    var options = options
    options.promptChunk = promptChunk
    return Engine.stepLimits(options, context: contextLength, traits: traits[index])
  }

  /// What a device may take: of the host's memory an equal share.
  func memoryShare(_ index: Int, _ options: EngineOptions) -> MemoryOptions {
    var memory = options.memory
    // What engines before this one took shows in what is free, but not in what is given.
    let engines = memory.host == nil ? 1 : options.dataParallel
    memory.host = memory.budget(available: availableMemory(index)).host / (devices.count * engines)
    return memory
  }

  /// What is where on all devices, in a line.
  static func text(_ texts: [String]) -> String {
    guard texts.count > 1 else { return texts[0] }
    return texts.enumerated().map { "device \($0): \($1)" }.joined(separator: "; ")
  }

  /// A line for each device: what it has of the model.
  var texts: [String] {
    zip(devices, programs).enumerated().map { index, pair in
      let (device, program) = pair
      return "device \(index) (\(device.name)): layers \(program.share.layers.lowerBound) to "
        + "\(program.share.layers.upperBound - 1), \(program.heads.headCount) heads over \(program.heads.kvHeadCount), "
        + "\(program.feedForwardWidth) feed-forward columns, \(program.share.vocabulary.count) tokens, "
        + "\(megabytes(DeviceModel.weightBytes(of: program))) of weights"
    }
  }

  /// The devices' runners, joined to one where there are several.
  ///
  /// - Parameter trial: how they work together; nil for one device.
  func runner(
    opened: [Device], caches: [KernelCache], models: [DeviceModel], limits: StepLimits, pageCount: Int,
    overlaps: Bool, trial: MeshTrial?, cacheResidencies: [CacheResidency]?
  ) throws -> any StepRunner {
    guard let trial else {
      return try ModelRunner(
        cache: caches[0], model: models[0], limits: limits, pageCount: pageCount, overlaps: overlaps,
        cacheResidency: cacheResidencies?[0])
    }
    let layout = layout(trial.transport.memory, limits: limits)
    let memory = try layout.homes.allocate(devices: opened, byteCount: layout.byteCount)
    let ports = try opened.indices.map { index in
      try MeshPort(
        layout: layout, memory: memory, device: opened[index], index: index, path: trial.transport.path)
    }
    let runners = try opened.indices.map { index in
      try ModelRunner(
        cache: caches[index], model: models[index], limits: limits, pageCount: pageCount, port: ports[index],
        depth: layout.slotCount, overlaps: overlaps, cacheResidency: cacheResidencies?[index])
    }
    let signals = ports.compactMap(\.signals)
    return try MeshRunner(
      runners: runners, limits: limits, board: signals.isEmpty ? nil : MeshBoard(signals),
      path: trial.transport.path, pathText: trial.text)
  }

  /// Where the devices leave things for one another.
  private func layout(_ memory: MeshMemory, limits: StepLimits) -> MeshLayout {
    MeshLayout(
      programs: programs, homes: MeshHomes(memory: memory, devices: devices, areApart: isApart),
      limits: limits, slotCount: MeshRunner.depth(of: mesh),
      ringBytes: isApart ? 0 : MeshLayout.usualRingBytes)
  }

  /// Bytes that a device was meant to give to the mesh, and need not, as the devices turned out to share `memory`.
  func spared(_ memory: MeshMemory, _ index: Int, limits: StepLimits) -> Int {
    sharedBytes(index, limits: limits, memory: self.memory)
      - sharedBytes(index, limits: limits, memory: memory)
  }

  /// Bytes of its own memory that a device gives to the mesh.
  func sharedBytes(_ index: Int, limits: StepLimits, memory: MeshMemory) -> Int {
    mesh.deviceCount > 1 ? layout(memory, limits: limits).ownedBytes(device: index) : 0
  }
}
