import CShaderInterface
import Foundation
import Kernels
import ModelFiles
import Testing
import Transformer
import VulkanRuntime

/// Tuning keeps to its time, and goes on at the next start where it ended.
@Suite(.enabled(if: TestDevice.absence == nil, "needs a Vulkan device"), .serialized)
struct LinearTunerTests {
  private let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
    "vkinfer-\(UUID().uuidString)"
  ).path

  /// A start of the program: a device with what is kept, and what one budget's tuning made of it.
  private func start(budget: Duration) throws -> (
    outcome: LinearTuner.Outcome, texts: [String], took: Duration
  ) {
    let device = try TestDevice.open(pipelineCacheDirectory: directory)
    let cache = KernelCache(device: device)
    let info = try #require(TensorInfo(name: "down", shape: [512, 128], type: .f16))
    let stage = Stage.residualProjection(
      ResidualProjectionStage(
        layer: 0, input: .feedForward, weight: TensorSlice(info), bias: nil, postNorm: nil))
    let program = Program(
      width: 128, layerCount: 1, heads: HeadLayout(headCount: 2, kvHeadCount: 1, headSize: 64),
      feedForwardWidth: 512, vocabularySize: 64, stages: [stage])
    // As GPUs have matrices: those of CPU drivers have one tiling.
    let model = try DeviceModel(
      program: program, source: RandomTensorSource(tensors: [info], seed: 1), cache: cache, rowInterleave: 1,
      onProgress: { _ in })
    let limits = StepLimits(rows: 1, outputs: 1, sequences: 1, pagesPerSequence: 1)
    let kvCache = try KVCache(device: device, heads: program.heads, layerCount: 1, pageCount: 1)
    let recorder = try PlanRecorder(
      cache: cache, model: model, kvCache: kvCache,
      workspace: try Workspace(device: device, program: program, limits: limits, traits: cache.traits))
    let slot = try StepSlot(device: device, limits: limits, index: 0)
    let step = StepContents(
      rows: [StepRow(token: 0, position: 0, sequence: 0, output_row: 0)], outputs: [], samples: [],
      tileRows: 1)
    let shape = PlanShape(
      step, cut: StepCut(tileRows: 1, usesMatrixUnits: false), output: .sample, limits: limits)
    let begin = ContinuousClock.now
    let outcome = try LinearTuner(recorder: recorder, slot: slot, budget: budget, runsOnCPU: true)
      .tune([(step, shape)])
    let took = ContinuousClock.now - begin
    try device.savePipelineCache()
    return (outcome, cache.tuning.texts, took)
  }

  @Test func goesOnWhereTimeRanOut() throws {
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let none = try start(budget: .zero)
    #expect(none.outcome.tried == 0 && none.texts.isEmpty && none.outcome.unfinished == 1)
    // One round of pipelines, however long the first takes to compile.
    let first = try start(budget: .milliseconds(1))
    #expect(first.outcome.tried <= 3)
    #expect(first.outcome.unfinished == 1)
    let rest = try start(budget: .seconds(600))
    #expect(rest.outcome.tried > 3 && rest.outcome.unfinished == 0)
    #expect(rest.texts.count == 1)
    // What is known holds for the format that it was measured with.
    #expect(rest.texts.allSatisfy { $0.hasPrefix("linear.f16 128x512 ") })
    let known = try start(budget: .seconds(600))
    #expect(known.outcome.tried == 0 && known.outcome.unfinished == 0)
    #expect(known.texts == rest.texts)
  }
}
