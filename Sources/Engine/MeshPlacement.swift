import Kernels
import Placement
import Transformer
import VulkanRuntime

/// Which devices run a model, and what each has of it.
struct MeshPlacement {
  let mesh: MeshShape
  let devices: [PhysicalDevice]
  let traits: [DeviceTraits]
  let programs: [Program]

  /// - Throws: devices that are not there, or a mesh that the model cannot be split over.
  init(_ options: EngineOptions, program: Program, instance: VulkanInstance) throws {
    let (tensor, pipeline) = (options.tensorParallel, options.pipelineParallel)
    guard tensor >= 1, pipeline >= 1, tensor <= 64, pipeline <= 64 else {
      throw EngineError(.option, "\(tensor) x \(pipeline) devices are not possible: use 1 to 64 of each")
    }
    mesh = MeshShape(tensor: tensor, pipeline: pipeline)
    let specs =
      options.devices.isEmpty
      ? [String?](repeating: options.device, count: mesh.deviceCount) : options.devices.map { $0 }
    guard specs.count == mesh.deviceCount else {
      throw EngineError(
        .option,
        "\(specs.count) devices are given for a tensor-parallel \(tensor) times pipeline-parallel \(pipeline) mesh, which "
          + "has \(mesh.deviceCount): name as many, or none to use one several times")
    }
    devices = try specs.map { try DeviceSelection.select(spec: $0, from: instance.physicalDevices) }
    traits = devices.map(DeviceTraits.init)
    programs = try program.shared(over: mesh)
  }

  /// Free memory for one device: one that is there several times shares its memory out.
  func availableMemory(_ index: Int) -> Int {
    Engine.availableMemory(devices[index]) / devices.count { $0.index == devices[index].index }
  }

  /// Where memory goes on each device, with the context that fits all of them.
  func plans(
    contextLength: Int, mayShorten: Bool, limits: (Int) -> StepLimits
  ) throws -> [MemoryPlan] {
    var plans = try programs.indices.map { index in
      try Engine.memoryPlan(
        program: programs[index], contextLength: contextLength, limits: limits(contextLength),
        traits: traits[index]
      ).fitted(available: availableMemory(index), pageTokens: KVCache.pageTokens, mayShorten: mayShorten)
    }
    let shortest = plans.map(\.contextLength).min() ?? contextLength
    for index in plans.indices { plans[index].contextLength = shortest }
    return plans
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
  func runner(
    opened: [Device], caches: [KernelCache], models: [DeviceModel], limits: StepLimits, pageCount: Int,
    overlaps: Bool, path: MeshPath?
  ) throws -> any StepRunner {
    if mesh.deviceCount > 1 {
      return try meshRunner(
        opened: opened, caches: caches, models: models, limits: limits, pageCount: pageCount,
        path: path)
    }
    return try ModelRunner(
      cache: caches[0], model: models[0], limits: limits, pageCount: pageCount, overlaps: overlaps)
  }

  private func meshRunner(
    opened: [Device], caches: [KernelCache], models: [DeviceModel], limits: StepLimits, pageCount: Int,
    path: MeshPath?
  ) throws -> MeshRunner {
    let trial = try MeshTrial(devices: opened, caches: caches, wanted: path)
    let depth = MeshRunner.depth(of: mesh)
    let layout = MeshLayout(programs: programs, limits: limits, slotCount: depth)
    let alignment = devices.compactMap(\.capabilities.externalMemoryHostAlignment).max() ?? 4096
    let memory = try HostMemory(byteCount: layout.byteCount, alignment: Int(clamping: alignment))
    var runners: [ModelRunner] = []
    for index in opened.indices {
      let port = try MeshPort(
        layout: layout, memory: memory, device: opened[index], index: index, path: trial.path)
      let runner = try ModelRunner(
        cache: caches[index], model: models[index], limits: limits, pageCount: pageCount, port: port,
        depth: depth, overlaps: false)
      runners.append(runner)
    }
    return try MeshRunner(
      runners: runners, limits: limits, board: trial.path == .flags ? layout.board(in: memory) : nil,
      pathText: trial.text)
  }
}
