import Kernels
import ModelFiles
import Placement
import Transformer
import VulkanRuntime

/// Where keys and values are that a device has no room for.
public enum KVOffload: String, Sendable, CaseIterable {
  /// Nowhere: contexts must fit the device.
  case off
  /// In host memory, those of as many layers as it takes, if the device has no room for them otherwise, or steps with
  /// full contexts bring less to it so than if weights made room for them.
  case auto
  /// In host memory, those of all layers.
  case on
}

/// Where keys and values are, and weights beside them, on a device that has no room for the caches of all layers.
package struct CachePlacement: Sendable {
  package var residency: CacheResidency
  /// The weights: most of them on the device, usually.
  package var streamed: StreamedPlacement
  package var pageCount: Int
  private var layerPageBytes: Int

  /// Host bytes of keys and values.
  package var hostBytes: Int { residency.hostLayers * pageCount * layerPageBytes }
  /// Device bytes of keys and values, the ring among them.
  package var deviceBytes: Int { residency.deviceLayers * pageCount * layerPageBytes }

  /// Layers that the ring has room for: pages of one arrive, of another are computed with, of a third return. Two are
  /// enough where memory is short: whatever returns is little.
  private static let ringLayers = [3, 2]

  /// Takes as many tokens as are wanted if there is memory for them, and the larger ring if there is.
  ///
  /// - Parameters:
  ///   - wanted: pages of the cache.
  ///   - least: pages that there must be.
  ///   - keepsNone: whether the pages of all layers are in host memory, even where the device has room for some.
  ///   - chunk, sharedBytes, limits: see `StreamedPlacement`.
  package init(
    program: Program, source: any TensorSource, memory: MemoryOptions, available: Int, wanted: Int,
    least: Int, keepsNone: Bool, chunk: Int, traits: DeviceTraits,
    sharedBytes: (StepLimits) -> Int = { _ in 0 },
    limits: (Int) -> StepLimits
  ) throws {
    let layerCount = program.layerCount
    let pageBytes = KVCache.pageBytes(heads: program.heads)
    let budget = memory.budget(available: available)
    layerPageBytes = pageBytes
    var counts = [max(wanted, least)]
    while let last = counts.last, last > least { counts.append(max(last / 2, least)) }
    var failure: (any Error)?
    for pages in counts {
      let hostBytes = layerCount * pages * pageBytes
      guard hostBytes < budget.host else {
        failure = PlacementError(
          "too little host memory: keys and values of \(pages * KVCache.pageTokens) tokens take "
            + "\(megabytes(hostBytes)) of it, but only \(megabytes(budget.host)) may be used; raise --host-memory, or "
            + "use a smaller --context")
        continue
      }
      var memory = memory
      memory.host = budget.host - hostBytes
      for ring in Set(Self.ringLayers.map { min($0, layerCount) }).sorted(by: >) {
        let ringBytes = ring * pages * pageBytes
        do {
          streamed = try StreamedPlacement(
            program: program, source: source, memory: memory, available: available, cacheBytes: ringBytes,
            chunk: chunk, traits: traits, sharedBytes: sharedBytes, limits: limits)
        } catch {
          failure = error
          continue
        }
        var resident = 0
        if !keepsNone, streamed.weights.layout == nil {
          let workspace = Workspace.byteCount(program: program, limits: streamed.limits, traits: traits)
          let room =
            budget.device - ringBytes - workspace - sharedBytes(streamed.limits)
            - streamed.weights.residentBytes
            - WeightPlacement.smallBytes
          resident = max(0, min(layerCount - ring, room / (pages * pageBytes)))
        }
        residency = CacheResidency(layerCount: layerCount, resident: resident, ringLayers: ring)
        pageCount = pages
        return
      }
    }
    throw failure ?? PlacementError("a model without layers has no keys and values")
  }

  /// Decides between weights and caches that are not all on the device.
  ///
  /// - Parameters:
  ///   - offload: what was asked for.
  ///   - canOffload: whether steps can do with keys and values in host memory.
  ///   - weights: where weights are if caches stay on the device.
  ///   - caches: where all is if they may be in host memory.
  package static func choose<Plan>(
    _ offload: KVOffload, canOffload: Bool, weights: () throws -> Plan, caches: () throws -> Plan,
    bytesBrought: (Plan) -> Int
  ) throws -> Plan {
    if offload == .on { return try caches() }
    let mayOffload = offload == .auto && canOffload
    do {
      let plan = try weights()
      guard mayOffload, bytesBrought(plan) > 0, let other = try? caches() else { return plan }
      // It must be clearly less that a step with full contexts brings.
      let bytes = bytesBrought(other)
      return bytes + bytes / 20 < bytesBrought(plan) ? other : plan
    } catch let error as PlacementError {
      // What would fit says more than what is missing in the other place, too.
      guard mayOffload, let plan = try? caches() else { throw error }
      return plan
    }
  }

  /// The decision, in a line.
  package var text: String {
    "keys and values of \(residency.hostLayers) of \(residency.places.count) layers in host memory "
      + "(\(megabytes(hostBytes)) for \(pageCount * KVCache.pageTokens) tokens), through a ring of "
      + "\(residency.ringLayers) layers (\(megabytes(residency.ringLayers * pageCount * layerPageBytes)))"
  }
}

/// What goes where on the devices of an engine.
struct EnginePlan {
  var plans: [MemoryPlan]
  /// Where weights are, where devices may have no room for all.
  var streamed: [StreamedPlacement]?
  /// Where keys and values are, where devices have no room for all.
  var caches: [CachePlacement]?
  /// The options that it was made for, with the chunks of prompts that it has.
  var options: EngineOptions

  /// In a line; nil where all is on the devices as usual.
  var text: String? {
    guard let streamed else { return nil }
    let texts = [streamed.map(\.weights.text), caches?.map(\.text)]
    return texts.compactMap { $0.map(MeshPlacement.text) }.joined(separator: "; ")
  }

  /// Bytes that a step with full contexts brings to the device that it brings most to.
  fileprivate var bytesBrought: Int {
    plans.indices.map { (streamed?[$0].weights.copiedBytes ?? 0) + (caches?[$0].hostBytes ?? 0) }.max() ?? 0
  }
}

extension MeshPlacement {
  /// Decides what goes where.
  ///
  /// - Parameters:
  ///   - options: chunks of prompts and the cache, which are the same for all devices, are set.
  ///   - givesChunk: whether the size of chunks was asked for.
  func plan(
    _ options: inout EngineOptions, contextLength: Int, givesChunk: Bool, source: any TensorSource
  ) throws -> EnginePlan {
    let wholes = programs.indices.map { index in
      plan(
        index, contextLength: contextLength,
        limits: Engine.stepLimits(options, context: contextLength, traits: traits[0]))
    }
    var asked = options
    let chosen = try CachePlacement.choose(
      options.memory.kvOffload, canOffload: options.method.isFast,
      weights: {
        let plan = try planWithoutOffload(
          asked, wholes: wholes, contextLength: contextLength, givesChunk: givesChunk, source: source)
        // Compared with as many tokens in host memory.
        asked.cacheTokens = plan.options.cacheTokens
        return plan
      },
      caches: { try offloaded(asked, wholes: wholes, givesChunk: givesChunk, source: source) },
      bytesBrought: \.bytesBrought)
    options = chosen.options
    return chosen
  }

  private func planWithoutOffload(
    _ options: EngineOptions, wholes: [MemoryPlan], contextLength: Int, givesChunk: Bool,
    source: any TensorSource
  ) throws -> EnginePlan {
    var options = options
    let fits = wholes.enumerated().allSatisfy { index, whole in
      whole.weights + whole.workspace < availableMemory(index)
    }
    // As long as weights fit, contexts are shortened; only then do weights stream.
    if !options.memory.isGiven, fits {
      let mayShorten = options.contextLength == nil || options.mayShortenContext
      let plans = try plans(contextLength: contextLength, mayShorten: mayShorten) {
        Engine.stepLimits(options, context: $0, traits: traits[0])
      }
      return EnginePlan(plans: plans, options: options)
    }
    if !givesChunk { options.promptChunk = nil }
    let streamed = try streamed(&options, wholes: wholes, source: source)
    return EnginePlan(plans: wholes, streamed: streamed, options: options)
  }

  /// Where all is if keys and values may be in host memory: as many tokens and as long chunks on all devices.
  private func offloaded(
    _ options: EngineOptions, wholes: [MemoryPlan], givesChunk: Bool, source: any TensorSource
  ) throws -> EnginePlan {
    var options = options
    // The stages of a pipeline keep theirs.
    if !givesChunk, mesh.pipeline == 1 { options.promptChunk = nil }
    let contextLength = wholes[0].contextLength
    let least = KVCache.pages(forTokens: contextLength)
    // A layer's pages lie in one allocation.
    let most =
      zip(devices, programs).map { device, program in
        Int(clamping: device.capabilities.maxAllocationBytes) / KVCache.pageBytes(heads: program.heads)
      }.min() ?? 0
    guard least <= most else {
      throw PlacementError(
        "the device has no allocation as large as keys and values of \(contextLength) tokens in a layer: "
          + "--context \(most * KVCache.pageTokens) would fit")
    }
    var wanted = min(options.cacheTokens.map(KVCache.pages) ?? least * options.maxSequences, most)
    while true {
      let caches = try programs.indices.map { index in
        try cachePlacement(
          index, options, contextLength: contextLength, wanted: wanted, least: least, source: source)
      }
      let pages = caches.map(\.pageCount).min() ?? least
      let chunk = caches.map(\.streamed.promptChunk).min() ?? 1
      options.promptChunk = chunk
      if caches.allSatisfy({ $0.pageCount == pages && $0.streamed.promptChunk == chunk }) {
        return EnginePlan(plans: wholes, streamed: caches.map(\.streamed), caches: caches, options: options)
      }
      wanted = pages
    }
  }

  private func cachePlacement(
    _ index: Int, _ options: EngineOptions, contextLength: Int, wanted: Int, least: Int,
    source: any TensorSource
  ) throws -> CachePlacement {
    let traits = traits[index]
    return try CachePlacement(
      program: programs[index], source: source, memory: memoryShare(index, options),
      available: availableMemory(index), wanted: wanted, least: least,
      keepsNone: options.memory.kvOffload == .on,
      chunk: min(Engine.promptChunk(options, traits: traits), contextLength), traits: traits,
      sharedBytes: { sharedBytes(index, limits: $0, memory: self.memory) }
    ) { stepLimits(index, options, contextLength: contextLength, promptChunk: $0) }
  }
}
