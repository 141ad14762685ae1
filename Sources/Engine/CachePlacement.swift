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
  ///   - chunk, limits: see `StreamedPlacement`.
  package init(
    program: Program, source: any TensorSource, memory: MemoryOptions, available: Int, wanted: Int,
    least: Int, keepsNone: Bool, chunk: Int, traits: DeviceTraits, limits: (Int) -> StepLimits
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
            chunk: chunk, traits: traits, limits: limits)
        } catch {
          failure = error
          continue
        }
        var resident = 0
        if !keepsNone, streamed.weights.layout == nil {
          let workspace = Workspace.byteCount(program: program, limits: streamed.limits, traits: traits)
          let room =
            budget.device - ringBytes - workspace - streamed.weights.residentBytes
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

  /// Whether a step with a full cache brings clearly less to the device than where weights make room for keys and values.
  package func bringsLess(than other: StreamedPlacement) -> Bool {
    let bytes = streamed.weights.copiedBytes + hostBytes
    return bytes + bytes / 20 < other.weights.copiedBytes
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
  /// Where keys and values are, where the device has no room for all.
  var cache: CachePlacement?

  /// In a line; nil where all is on the devices as usual.
  var text: String? {
    guard let streamed else { return nil }
    return MeshPlacement.text(streamed.map(\.weights)) + (cache.map { "; \($0.text)" } ?? "")
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
    let offload = options.memory.kvOffload
    guard offload != .on || mesh.deviceCount == 1 else {
      throw EngineError(
        .option,
        "--kv-offload on is for one device: leave out the options that share a model out, or --kv-offload")
    }
    let wholes = programs.indices.map { index in
      plan(
        index, contextLength: contextLength,
        limits: Engine.stepLimits(options, context: contextLength, traits: traits[0]))
    }
    guard offload != .on else {
      return try offloaded(
        &options, whole: wholes[0], givesChunk: givesChunk, keepsNone: true, source: source)
    }
    let mayOffload = offload == .auto && mesh.deviceCount == 1 && options.method.isFast
    var asked = options
    func offloadedIfPossible() -> EnginePlan? {
      try? offloaded(
        &asked, whole: wholes[0], givesChunk: givesChunk, keepsNone: false, source: source)
    }
    do {
      let plan = try planWithoutOffload(
        &options, wholes: wholes, contextLength: contextLength, givesChunk: givesChunk, source: source)
      guard mayOffload, let streamed = plan.streamed?.first, streamed.weights.copiedBytes > 0 else {
        return plan
      }
      asked.cacheTokens = options.cacheTokens
      guard let other = offloadedIfPossible(), other.cache?.bringsLess(than: streamed) == true else {
        return plan
      }
      options = asked
      return other
    } catch let error as PlacementError {
      // What would fit says more than what is missing in the other place, too.
      guard mayOffload, let plan = offloadedIfPossible() else { throw error }
      options = asked
      return plan
    }
  }

  private func planWithoutOffload(
    _ options: inout EngineOptions, wholes: [MemoryPlan], contextLength: Int, givesChunk: Bool,
    source: any TensorSource
  ) throws -> EnginePlan {
    let fits = wholes.enumerated().allSatisfy { index, whole in
      whole.weights + whole.workspace < availableMemory(index)
    }
    // As long as weights fit, contexts are shortened; only then do weights stream.
    if !options.memory.isGiven, fits {
      let mayShorten = options.contextLength == nil || options.mayShortenContext
      return EnginePlan(
        plans: try plans(contextLength: contextLength, mayShorten: mayShorten) { [options] in
          Engine.stepLimits(options, context: $0, traits: traits[0])
        })
    }
    if !givesChunk { options.promptChunk = nil }
    let streamed = try streamed(&options, wholes: wholes, source: source)
    return EnginePlan(plans: wholes, streamed: streamed)
  }

  /// Where all is if keys and values may be in host memory.
  private func offloaded(
    _ options: inout EngineOptions, whole: MemoryPlan, givesChunk: Bool, keepsNone: Bool,
    source: any TensorSource
  ) throws -> EnginePlan {
    if !givesChunk { options.promptChunk = nil }
    let traits = traits[0]
    let least = KVCache.pages(forTokens: whole.contextLength)
    // A layer's pages lie in one allocation.
    let most =
      Int(clamping: devices[0].capabilities.maxAllocationBytes) / KVCache.pageBytes(heads: programs[0].heads)
    guard least <= most else {
      throw PlacementError(
        "the device has no allocation as large as keys and values of \(whole.contextLength) tokens in a layer: "
          + "--context \(most * KVCache.pageTokens) would fit")
    }
    let wanted = options.cacheTokens.map(KVCache.pages) ?? least * options.maxSequences
    let base = options
    let cache = try CachePlacement(
      program: programs[0], source: source, memory: options.memory, available: availableMemory(0),
      wanted: min(wanted, most), least: least, keepsNone: keepsNone,
      chunk: min(Engine.promptChunk(options, traits: traits), whole.contextLength), traits: traits
    ) { chunk in
      var options = base
      options.promptChunk = chunk
      return Engine.stepLimits(options, context: whole.contextLength, traits: traits)
    }
    options.promptChunk = cache.streamed.promptChunk
    return EnginePlan(plans: [whole], streamed: [cache.streamed], cache: cache)
  }
}
