import CShaderInterface
import Kernels
import ModelFiles
import Transformer
import VulkanRuntime

/// One stage of a model alone on a device, as many times as it takes for no cache to hold its weights.
///
/// The copies are a Program of their own, recorded as the engine records models: whatever kernel the engine takes for
/// the stage is what is measured.
final class StageSubject {
  let benchmark: BenchmarkDevice
  let copies: Int
  let model: DeviceModel
  let kvCache: KVCache
  let workspace: Workspace
  private let limits: StepLimits
  let recorder: PlanRecorder
  let slot: StepSlot

  /// What a step holds.
  struct Step: Sendable, Hashable {
    /// Tokens.
    var columns: Int
    /// Tokens in the cache before them.
    var depth = 0
    /// Whether they follow each other in one sequence; else each is of its own.
    var isPrompt = false
    /// Whether the logits of each are wanted.
    var hasOutputs = false

    var sequences: Int { isPrompt ? 1 : columns }
    var pagesPerSequence: Int { KVCache.pages(forTokens: depth + (isPrompt ? columns : 1)) }
  }

  /// - Parameters:
  ///   - program: a model of one layer that has `stage` (nil: no stage, only sampling).
  ///   - bytesPerCopy: weights or cache that one copy reads.
  ///   - most: the step for which there must be room.
  init(
    benchmark: BenchmarkDevice, method: StepMethod = StepMethod(), stage: Stage?, of program: Program,
    source: [TensorInfo], bytesPerCopy: Int,
    most: Step
  ) throws {
    self.benchmark = benchmark
    let cache = benchmark.cache(for: method)
    // Twice the largest last-level caches.
    let rotation = benchmark.traits.isCPU ? 128 << 20 : 512 << 20
    let wanted = (rotation + bytesPerCopy - 1) / max(bytesPerCopy, 1)
    let room = max(1, benchmark.availableMemory / 2 / max(bytesPerCopy, 1))
    let copies = stage == nil ? 0 : min(max(wanted, benchmark.traits.isCPU ? 1 : 3), 512, room)
    self.copies = copies

    var tensors = source
    var stages: [Stage] = []
    for index in 0..<copies {
      guard let stage else { break }
      for slice in Set(stage.matrices) {
        guard var info = source.first(where: { $0.name == slice.tensor }) else { continue }
        info.name = slice.copy(index).tensor
        tensors.append(info)
      }
      stages.append(stage.copy(index))
    }
    let isAttention = if case .attention = stage { true } else { false }
    let layers = isAttention ? copies : 1
    var copied = program
    copied.layerCount = layers
    copied.stages = stages
    model = try DeviceModel(
      program: copied, source: RandomTensorSource(tensors: tensors, seed: 1, hasRecipes: true),
      cache: cache, onProgress: { _ in })
    limits = StepLimits(
      rows: most.columns, outputs: most.columns, sequences: most.sequences,
      pagesPerSequence: most.pagesPerSequence)
    let device = benchmark.device
    kvCache = try KVCache(
      device: device, heads: program.heads, layerCount: layers,
      pageCount: most.sequences * most.pagesPerSequence)
    workspace = try Workspace(
      device: device, program: copied, limits: limits, traits: cache.traits)
    recorder = try PlanRecorder(
      cache: cache, model: model, kvCache: kvCache, workspace: workspace)
    slot = try StepSlot(device: device, limits: limits, index: 0)
    try fill()
  }

  /// Cache and activations as a model would have them, roughly: no zeros, nothing that grows without bounds.
  private func fill() throws {
    for layer in 0..<model.program.layerCount {
      try benchmark.fill(
        kvCache.keys(layer: layer), byteCount: kvCache.layerByteCount, keepAlive: [])
    }
    let rows = limits.rows
    let arrays: [(Workspace.Array, Int)] = [
      (.residual, rows * workspace.residualStride), (.queries, rows * workspace.queryStride),
      (.attention, rows * workspace.attentionWidth), (.hidden, rows * workspace.hiddenWidth),
      (.normed, rows * workspace.residualStride), (.normedScales, rows * workspace.residualStride / 16),
      (.attentionScales, rows * workspace.attentionWidth / 16),
      (.hiddenScales, rows * workspace.hiddenWidth / 16),
      (.logits, limits.outputs * workspace.logitsStride),
    ]
    for (array, floats) in arrays {
      try benchmark.fill(
        workspace.address(array), byteCount: 4 * floats, type: .f32, keepAlive: [workspace.memory])
    }
  }

  /// Seconds of one copy in a step, with the barrier behind it; without a stage, of sampling.
  ///
  /// - Parameter isWarm: whether the device's clock is up already.
  func time(
    _ step: Step, samples: SampleParameters? = nil, repetitions: Int, isWarm: Bool = false
  ) throws -> Timing {
    let shape = prepare(step, samples: samples)
    let count = copies > 0 ? copies : 20
    let timing = try benchmark.time(repetitions: repetitions, isWarm: isWarm) { commands, end in
      if copies > 0 {
        try recorder.record(commands, shape: shape, slot: slot) { if $0 == copies - 1 { end() } }
      } else {
        for _ in 0..<count { try recorder.record(commands, shape: shape, slot: slot) }
        end()
      }
    }
    return Timing(seconds: timing.seconds.map { $0 / Double(count) }, pipelines: timing.pipelines)
  }

  /// Writes the step for the device to read, and returns its shape.
  func prepare(_ step: Step, samples: SampleParameters? = nil) -> PlanShape {
    let table = workspace.blockTables.contents?.assumingMemoryBound(to: UInt32.self)
    for sequence in 0..<step.sequences {
      for page in 0..<step.pagesPerSequence {
        table?[sequence * limits.pagesPerSequence + page] = UInt32(sequence * step.pagesPerSequence + page)
      }
    }
    let rows = (0..<step.columns).map { index in
      StepRow(
        token: UInt32(index * 997 % model.program.vocabularySize),
        position: UInt32(step.depth + (step.isPrompt ? index : 0)),
        sequence: step.isPrompt ? 0 : UInt32(index), output_row: 0)
    }
    let cut = recorder.cut(rows)
    let outputs = step.hasOutputs ? Array(0..<step.columns) : []
    let contents = StepContents(
      rows: rows, outputs: outputs,
      samples: outputs.map { index in
        var parameters = samples ?? .greedy(sequence: 0, position: step.depth + 1)
        parameters.sequence = step.isPrompt ? 0 : UInt32(index)
        return parameters
      }, tileRows: cut.tileRows)
    slot.write(contents)
    return PlanShape(contents, cut: cut, output: .sample, limits: limits)
  }
}

extension TensorSlice {
  /// The same slice of another tensor.
  fileprivate func copy(_ index: Int) -> TensorSlice {
    var slice = self
    slice.tensor = "copy \(index) of \(tensor)"
    return slice
  }
}

extension Stage {
  /// The stage with matrices of its own, and its own layer of the cache if it reads that.
  fileprivate func copy(_ index: Int) -> Stage {
    switch self {
    case .embed(var stage):
      stage.table = stage.table.copy(index)
      return .embed(stage)
    case .queryKeyValue(var stage):
      stage.query = stage.query.copy(index)
      stage.key = stage.key.copy(index)
      stage.value = stage.value.copy(index)
      return .queryKeyValue(stage)
    case .attention(var stage):
      stage.layer = index
      return .attention(stage)
    case .residualProjection(var stage):
      stage.weight = stage.weight.copy(index)
      return .residualProjection(stage)
    case .gatedFeedForward(var stage):
      stage.gate = stage.gate.copy(index)
      stage.up = stage.up.copy(index)
      return .gatedFeedForward(stage)
    case .logits(var stage):
      stage.table = stage.table.copy(index)
      return .logits(stage)
    case .collective:
      return self
    }
  }
}
