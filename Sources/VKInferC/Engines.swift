import CVKInfer
import Engine
import Transformer
import VulkanRuntime

extension vkinfer_engine_options {
  static var usual: vkinfer_engine_options {
    var options = vkinfer_engine_options()
    options.size = UInt32(MemoryLayout<vkinfer_engine_options>.size)
    options.parallel = 1
    options.expected_prompt = 16
    options.prefetch = -1
    return options
  }

  /// The engine's options.
  func options(for model: LanguageModel) throws -> EngineOptions {
    var options = EngineOptions()
    options.device = try Arguments.optionalText(device, "device")
    options.contextLength = context_length == 0 ? min(model.contextLength, 4096) : Int(context_length)
    options.mayShortenContext = context_length == 0
    let engines = max(1, Int(data_parallel))
    options.maxSequences = (Int(parallel) + engines - 1) / engines
    guard prompt_chunk <= 1 << 20 else {
      throw Failure(
        VKINFER_ERROR_ARGUMENT, "prompt_chunk \(prompt_chunk) is not possible: use 1 to \(1 << 20)")
    }
    if prompt_chunk > 0 { options.promptChunk = Int(prompt_chunk) }
    if expected_prompt > 0 { options.expectedPrompt = Int(expected_prompt) }
    options.tunes = no_tuning == 0
    guard cache_tokens <= UInt64(Int32.max) else {
      throw Failure(
        VKINFER_ERROR_ARGUMENT, "cache_tokens \(cache_tokens) is not possible: use up to \(Int32.max)")
    }
    if cache_tokens > 0 { options.cacheTokens = Int(cache_tokens) }
    let directory = try Arguments.optionalText(cache_directory, "cache_directory")
    options.pipelineCacheDirectory = directory ?? EngineOptions.usualCacheDirectory
    if directory?.isEmpty == true { options.pipelineCacheDirectory = nil }
    options.overlaps = no_overlap == 0
    options.pacesPrompts = paced != 0
    options.rebuilds = no_rebuild == 0
    try setPlacement(&options)
    try setMesh(&options)
    return options
  }

  /// How embeddings are made.
  func pooling(of model: LanguageModel) throws -> Pooling {
    switch Int32(truncatingIfNeeded: pooling) {
    case VKINFER_POOLING_MODEL: return model.pooling ?? .last
    case VKINFER_POOLING_LAST: return .last
    case VKINFER_POOLING_MEAN: return .mean
    default: throw Failure(VKINFER_ERROR_ARGUMENT, "pooling \(pooling) is none of VKINFER_POOLING_*")
    }
  }

  /// Where weights, keys and values go.
  private func setPlacement(_ options: inout EngineOptions) throws {
    if gpu_memory > 0 { options.memory.device = Int(clamping: gpu_memory) }
    if host_memory > 0 { options.memory.host = Int(clamping: host_memory) }
    options.memory.weightsFrom =
      switch Int32(truncatingIfNeeded: weights_from) {
      case VKINFER_WEIGHTS_AUTO: .auto
      case VKINFER_WEIGHTS_HOST: .host
      case VKINFER_WEIGHTS_FILE: .file
      default:
        throw Failure(VKINFER_ERROR_ARGUMENT, "weights_from \(weights_from) is none of VKINFER_WEIGHTS_*")
      }
    guard prefetch >= -1 else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "prefetch \(prefetch) is not possible: use -1 or more")
    }
    if prefetch >= 0 { options.memory.prefetch = Int(prefetch) }
    options.memory.kvOffload =
      switch Int32(truncatingIfNeeded: kv_offload) {
      case VKINFER_KV_OFFLOAD_AUTO: .auto
      case VKINFER_KV_OFFLOAD_ON: .on
      case VKINFER_KV_OFFLOAD_OFF: .off
      default:
        throw Failure(VKINFER_ERROR_ARGUMENT, "kv_offload \(kv_offload) is none of VKINFER_KV_OFFLOAD_*")
      }
    if let name = try Arguments.optionalText(kv_type, "kv_type") {
      guard let type = KVCacheType(rawValue: name) else {
        let known = KVCacheType.allCases.map(\.rawValue).joined(separator: ", ")
        throw Failure(VKINFER_ERROR_UNSUPPORTED, "kv_type \"\(name)\" is none of \(known)")
      }
      options.cacheType = type
    }
  }

  /// Which devices share the work, and how.
  private func setMesh(_ options: inout EngineOptions) throws {
    let mesh = try Arguments.optionalText(mesh, "mesh")
    guard mesh == nil || device == nil else {
      throw Failure(
        VKINFER_ERROR_ARGUMENT, "device and mesh both say where the model runs: set one of them")
    }
    options.setMesh(
      devices: mesh, tensorParallel: tensor_parallel == 0 ? nil : Int(tensor_parallel),
      pipelineParallel: pipeline_parallel == 0 ? nil : Int(pipeline_parallel),
      dataParallel: data_parallel == 0 ? nil : Int(data_parallel))
    options.meshPath =
      switch Int32(truncatingIfNeeded: mesh_path) {
      case VKINFER_MESH_PATH_AUTO: nil
      case VKINFER_MESH_PATH_FLAGS: .flags
      case VKINFER_MESH_PATH_SEMAPHORES: .semaphores
      case VKINFER_MESH_PATH_THREADS: .threads
      default:
        throw Failure(VKINFER_ERROR_ARGUMENT, "mesh_path \(mesh_path) is none of VKINFER_MESH_PATH_*")
      }
    options.meshMemory =
      switch Int32(truncatingIfNeeded: mesh_memory) {
      case VKINFER_MESH_MEMORY_AUTO: nil
      case VKINFER_MESH_MEMORY_HOST: .host
      case VKINFER_MESH_MEMORY_DEVICE: .device
      default:
        throw Failure(VKINFER_ERROR_ARGUMENT, "mesh_memory \(mesh_memory) is none of VKINFER_MESH_MEMORY_*")
      }
    guard stage_count <= 64 else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "stage_count \(stage_count) is not possible: use up to 64")
    }
    options.stageLayers = try Arguments.elements(
      stage_layers, count: Int(stage_count), "stage_layers"
    ).map { Int($0) }
  }
}

@c @implementation
public func vkinfer_engine_options_default(
  _ options: UnsafeMutablePointer<vkinfer_engine_options>?, _ size: Int
) -> vkinfer_status {
  reporting { try Arguments.fillDefaults(options, size: size, with: .usual, "vkinfer_engine_options") }
}

@c @implementation
public func vkinfer_engine_open(
  _ model: OpaquePointer?, _ options: UnsafePointer<vkinfer_engine_options>?,
  _ engine: UnsafeMutablePointer<OpaquePointer?>?
) -> vkinfer_status {
  reporting {
    let model = try find(model, ModelObject.self).model
    let out = try Arguments.out(engine, "engine")
    let given = try Arguments.options(options, defaults: .usual, "vkinfer_engine_options")
    let object = try EngineObject(
      model: model, options: given.options(for: model), pooling: given.pooling(of: model),
      callbacks: EngineObject.Callbacks(
        progress: given.progress, progressUser: given.progress_user, log: given.log, logUser: given.log_user))
    do {
      out.pointee = try HandleTable.shared.withLock { try $0.insert(object) }
    } catch {
      _ = object.close()
      throw error
    }
    // A thread must not run on in code that goes away. Drivers register what they do at the end when they are loaded,
    // and the last registered is the first called: so this comes before, for this engine.
    call_at_unload { closeAllEngines() }
  }
}

/// Closes an engine that is out of the table; its sessions' handles go, too.
private func close(_ engine: EngineObject, freesHere: Bool = false) {
  let orphans = engine.close(freesHere: freesHere)
  HandleTable.shared.withLock { table in
    // Each may just have been closed by another thread.
    for session in orphans { _ = try? table.remove(session.handle, SessionObject.self) }
  }
}

private func closeAllEngines() {
  for engine in HandleTable.shared.withLock({ $0.removeAll(EngineObject.self) }) {
    close(engine, freesHere: true)
  }
}

@c @implementation
public func vkinfer_engine_close(_ engine: OpaquePointer?) -> vkinfer_status {
  reporting {
    let object = try HandleTable.shared.withLock { table in
      try table.remove(engine, EngineObject.self) { try $0.checkMayWait() }
    }
    close(object)
  }
}

@c @implementation
public func vkinfer_engine_inspect(
  _ engine: OpaquePointer?, _ info: UnsafeMutablePointer<vkinfer_engine_info>?
) -> vkinfer_status {
  reporting {
    let known = try find(engine, EngineObject.self).inspect { vkinfer_engine_info($0.engines) }
    try Arguments.fill(info, with: known, "vkinfer_engine_info")
  }
}

extension vkinfer_engine_info {
  /// Of engines that share out sessions: together, and what holds for each.
  init(_ engines: [Engine]) {
    self.init()
    func sum(_ part: (Engine) -> Int) -> Int { engines.reduce(0) { $0 + part($1) } }
    context_length = UInt32(clamping: engines.map(\.contextLength).min() ?? 0)
    parallel = UInt32(clamping: sum(\.maxSequences))
    is_cpu = engines.contains(where: \.isCPUDevice) ? 1 : 0
    cache_tokens = UInt64(clamping: sum(\.cacheTokens))
    memory_bytes = UInt64(clamping: sum(\.deviceMemory.now))
    memory_peak = UInt64(clamping: sum(\.deviceMemory.peak))
    streamed_bytes = UInt64(clamping: sum(\.streamedBytes))
    device_count = UInt32(clamping: sum(\.deviceMemories.count))
    lost_count = UInt32(clamping: sum(\.knownLostDevices.count))
    engine_count = UInt32(clamping: engines.count)
    var names: [String] = []
    for name in engines.map(\.deviceName) where !names.contains(name) { names.append(name) }
    Arguments.set(&device_name, names.joined(separator: ", "))
  }
}

@c @implementation
public func vkinfer_engine_wait(
  _ engine: OpaquePointer?, _ timeout: Int32, _ session: UnsafeMutablePointer<OpaquePointer?>?
) -> vkinfer_status {
  answering {
    let out = try Arguments.out(session, "session")
    let (status, handle) = try find(engine, EngineObject.self).wait(Deadline(milliseconds: timeout))
    out.pointee = handle
    return status
  }
}
