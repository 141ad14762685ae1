import Kernels
import ModelFiles
import Transformer

/// Where weights may be taken from when the device has no room for all.
public enum WeightsFrom: String, Sendable, CaseIterable {
  /// From pinned host memory, which must have room for them.
  case host
  /// From the model's file, in every step.
  case file
  /// From host memory as far as that goes, then from the file.
  case auto
}

/// How much memory a run may take, in bytes.
package struct MemoryBudget: Sendable, Hashable {
  package var device: Int
  package var host: Int
  package var from: WeightsFrom

  package init(device: Int, host: Int, from: WeightsFrom) {
    self.device = device
    self.host = host
    self.from = from
  }
}

/// Which weights stay on the device, which in host memory, and which in the file.
///
/// Bytes that stream cost the same whichever they are, so what counts is how many stay, and that those which stream are
/// spread evenly over the stages: layers that stay are interleaved with those that do not. An embedding table, of which
/// a step reads a row a token, stays on the host.
package struct WeightPlacement: Sendable {
  package var residency: WeightResidency
  package var layout: StreamLayout?
  /// Bytes of weights on the device, without the ring.
  package var residentBytes = 0
  /// Ring and unpacking area.
  package var streamBytes = 0
  package var hostBytes = 0
  package var residentLayers = 0
  package var layerCount: Int

  /// Bytes that a step copies.
  package var copiedBytes: Int { hostStreamBytes + fileBytes }
  package var hostStreamBytes: Int { layout?.byteCount(from: .host) ?? 0 }
  package var fileBytes: Int { layout?.byteCount(from: .file) ?? 0 }

  /// What small data takes beside matrices: norms, rope tables, and the staging memory of loading.
  package static let smallBytes = 6 << 20

  /// What goes between host and device beside weights: steps, results, logits.
  private static let smallHostBytes = 1 << 20

  /// - Parameters:
  ///   - fixed: device bytes that cache, activations and all else take.
  ///   - prefetch, rowInterleave: see `WeightResidency`.
  package init(
    program: Program, source: any TensorSource, budget: MemoryBudget, fixed: Int, prefetch: Int?,
    rowInterleave: Int = 1
  ) throws {
    layerCount = program.layerCount
    let room = budget.device - fixed - Self.smallBytes
    let all = DeviceModel.weightBytes(of: program)
    if all <= room {
      residency = WeightResidency(residentStages: program.stages.count)
      residentBytes = all
      residentLayers = layerCount
      return
    }
    // Random weights are in no file.
    guard budget.from != .file || !source.paths.isEmpty else {
      throw PlacementError("weights that are made at random are in no file: leave out --weights-from file")
    }
    let isHostOnly = budget.from == .host || source.paths.isEmpty
    var needed = 0
    var neededOfHost: Int?
    for fromFile in budget.from == .file ? [true] : isHostOnly ? [false] : [false, true] {
      let choice = Self.choose(program, room: room, host: budget.host, usesFile: fromFile, from: budget.from)
      needed = choice.needed
      guard var residency = choice.residency else { continue }
      residency.prefetch = prefetch
      residency.rowInterleave = rowInterleave
      let layout = try StreamLayout(program: program, residency: residency, source: source)
      let table = program.stages.enumerated().reduce(0) { sum, entry in
        guard case .embed = entry.element, residency.tiers[entry.offset] == .host else { return sum }
        return sum + entry.element.matrixSpecs[0].byteCount
      }
      let host =
        layout.byteCount(from: .host) + table + WeightStream.readSlots * layout.largestFileUnit
        + 2 * WeightLoader.smallSlotBytes + Self.smallHostBytes
      guard host <= budget.host else {
        neededOfHost = host
        if fromFile || isHostOnly {
          throw PlacementError(
            "too little host memory: weights that the device has no room for take \(megabytes(host)) of it, but only "
              + "\(megabytes(budget.host)) may be used; raise --host-memory or --gpu-memory"
              + (budget.from == .host ? ", or use --weights-from auto" : ""))
        }
        continue
      }
      self.residency = residency
      self.layout = layout
      hostBytes = host
      streamBytes = residency.ringBytes + layout.unpackedBytes
      residentBytes = choice.residentBytes
      residentLayers = choice.residentLayers
      return
    }
    if let neededOfHost {
      throw PlacementError(
        "too little memory: weights that the device has no room for take \(megabytes(neededOfHost)) of the host's, but "
          + "only \(megabytes(budget.host)) may be used; from the file, cache, activations and weights take "
          + "\(megabytes(fixed + needed + Self.smallBytes)) of the device's, but only \(megabytes(budget.device)) may be "
          + "used; raise --host-memory or --gpu-memory")
    }
    throw PlacementError(
      "too little device memory: cache and activations take \(megabytes(fixed)) and weights that stream "
        + "\(megabytes(needed + Self.smallBytes)) more, but only \(megabytes(budget.device)) may be used; raise --gpu-memory, "
        + "or use a smaller --context")
  }

  private struct Choice {
    var residency: WeightResidency?
    var needed = 0
    var residentBytes = 0
    var residentLayers = 0
  }

  private static func choose(
    _ program: Program, room: Int, host: Int, usesFile: Bool, from: WeightsFrom
  ) -> Choice {
    var choice = Choice()
    let specs = program.stages.map(\.matrixSpecs)
    // A file's rows may start anywhere: some bytes more than planes have.
    let slack = 64 << 10
    let largest = specs.joined().reduce(0) { max($0, $1.leastPieceBytes) } + slack
    // Small copies cost more than their bytes; several must fit, so that one arrives while another is computed with.
    let shares = usesFile ? 5 : 4
    let unit = max(largest, min(64 << 20, room / (2 * shares)))
    var ring = 3 * unit
    let unpacked = usesFile ? unit : 0
    if ring + unpacked > room { ring = 2 * unit }
    choice.needed = ring + unpacked
    guard ring + unpacked <= room else { return choice }
    var left = room - ring - unpacked

    var residency = WeightResidency(residentStages: program.stages.count)
    residency.ringBytes = ring
    residency.unitBytes = unit
    let away: WeightTier = .host
    func bytes(_ stage: Int) -> Int { specs[stage].reduce(0) { $0 + $1.byteCount } }
    residency.tiers = Array(repeating: away, count: program.stages.count)
    // Layers that stay, spread evenly.
    let layers = Self.layers(of: program)
    let layerBytes = layers.map { $0.reduce(0) { $0 + bytes($1) } }
    let largestLayer = layerBytes.max() ?? 0
    let stay = largestLayer > 0 ? min(layers.count, left / largestLayer) : 0
    for (index, layer) in layers.enumerated()
    where (index + 1) * stay / layers.count > index * stay / layers.count {
      for stage in layer { residency.tiers[stage] = .device }
      left -= layerBytes[index]
      choice.residentBytes += layerBytes[index]
      choice.residentLayers += 1
    }
    // What fits of the rest, spread out too: stages of every other layer, the large ones first.
    let rest = program.stages.indices.filter { residency.tiers[$0] != .device && bytes($0) > 0 }
      .filter { if case .embed = program.stages[$0] { false } else { true } }
      .sorted { (bytes($0), $1 * 7919 % 101) > (bytes($1), $0 * 7919 % 101) }
    for stage in rest where bytes(stage) <= left {
      residency.tiers[stage] = .device
      left -= bytes(stage)
      choice.residentBytes += bytes(stage)
    }
    Self.shareTable(program, &residency)
    if usesFile {
      // From the file: all of it, or as many layers as the host has no room for.
      var hostLeft =
        from == .file
        ? 0 : host - WeightStream.readSlots * unit - 2 * WeightLoader.smallSlotBytes - smallHostBytes
      if from != .file {
        for (index, stage) in program.stages.enumerated() {
          if case .embed = stage, residency.tiers[index] == .host { hostLeft -= bytes(index) }
        }
      }
      let streaming = program.stages.indices.filter { residency.streams(program.stages[$0], $0) }
      let total = streaming.reduce(0) { $0 + bytes($1) }
      var kept = 0
      var passed = 0
      for stage in streaming {
        passed += bytes(stage)
        // Host and file take turns, so that neither the link nor the disk rests for long.
        let due = total > 0 ? Int(Double(max(hostLeft, 0)) * Double(passed) / Double(total)) : 0
        if kept + bytes(stage) <= due { kept += bytes(stage) } else { residency.tiers[stage] = .file }
      }
    }
    choice.residency = residency
    return choice
  }

  /// A table that products read on the device serves as embedding table there too.
  private static func shareTable(_ program: Program, _ residency: inout WeightResidency) {
    for (index, stage) in program.stages.enumerated() {
      guard case .embed(let embed) = stage else { continue }
      for (other, stage) in program.stages.enumerated() {
        if case .logits(let logits) = stage, logits.table == embed.table, residency.tiers[other] == .device {
          residency.tiers[index] = .device
        }
      }
    }
  }

  /// The stages of each layer.
  private static func layers(of program: Program) -> [[Int]] {
    var layers: [[Int]] = []
    for (index, stage) in program.stages.enumerated() {
      switch stage {
      case .embed, .logits: continue
      case .queryKeyValue: layers.append([index])
      default: if !layers.isEmpty { layers[layers.count - 1].append(index) }
      }
    }
    return layers
  }

  /// The decision, in a line.
  package var text: String {
    guard layout != nil else {
      return "all weights on the device: \(megabytes(residentBytes))"
    }
    var parts = [
      "\(residentLayers) of \(layerCount) layers on the device (\(megabytes(residentBytes)))"
    ]
    if hostStreamBytes > 0 { parts.append("\(megabytes(hostStreamBytes)) a step from host memory") }
    if fileBytes > 0 { parts.append("\(megabytes(fileBytes)) a step from the file") }
    return parts.joined(separator: ", ")
      + ", through a ring of \(megabytes(residency.ringBytes)) in \(layout?.units.count ?? 0) copies"
  }
}
