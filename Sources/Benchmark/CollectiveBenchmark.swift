import CShaderInterface
import Engine
import Kernels
import ModelFiles
import Transformer
import VulkanRuntime

/// How long all-reduces take between devices: steps of nothing but them, as a model's Program has them.
package struct CollectiveBenchmark {
  private let runner: MeshRunner
  /// All-reduces of a step, so that what a step itself costs is small beside them.
  private static let count = 32

  /// - Parameters:
  ///   - devices: by index or part of the name; the same one may be there several times.
  ///   - byteCount: of what each device has and gets, float32.
  package init(devices specs: [String], byteCount: Int, pipelineDirectory: String?) throws {
    let floats = max(32, byteCount / 4 / 32 * 32)
    let width = min(floats, 4096)
    let rows = floats / width
    let instance = try VulkanInstance()
    let mesh = MeshShape(tensor: specs.count)
    let stage = Stage.collective(.allReduce(postNorm: nil, addsResidual: true))
    let programs = (0..<specs.count).map { rank in
      Program(
        width: width, layerCount: 1, heads: HeadLayout(headCount: 1, kvHeadCount: 1, headSize: 64),
        feedForwardWidth: 32, vocabularySize: 64, stages: Array(repeating: stage, count: Self.count),
        share: ModelShare(mesh: mesh, stage: 0, rank: rank, layers: 0..<1, vocabulary: 0..<64))
    }
    let limits = StepLimits(rows: rows, outputs: 1, sequences: 1, pagesPerSequence: 1)
    let layout = MeshLayout(programs: programs, limits: limits, slotCount: ModelRunner.usualDepth)
    let physicals = try specs.map { try DeviceSelection.select(spec: $0, from: instance.physicalDevices) }
    let alignment = physicals.compactMap(\.capabilities.externalMemoryHostAlignment).max() ?? 4096
    let memory = try HostMemory(byteCount: layout.byteCount, alignment: Int(clamping: alignment))
    let runners = try zip(physicals, programs).map { physical, program in
      let device = try Device(
        instance: instance, physical: physical, pipelineCacheDirectory: pipelineDirectory)
      let cache = KernelCache(device: device)
      let model = try DeviceModel(
        program: program, source: RandomTensorSource(tensors: [], seed: 1), cache: cache, onProgress: { _ in }
      )
      return try ModelRunner(
        cache: cache, model: model, limits: limits, pageCount: 1,
        port: MeshPort(layout: layout, memory: memory, device: device))
    }
    runner = try MeshRunner(runners: runners, limits: limits)
  }

  /// Seconds of one all-reduce.
  package func run(repetitions: Int, checkpoint: () throws -> Void) throws -> Samples {
    let rows = (0..<runner.limits.rows).map {
      StepRow(token: 0, position: UInt32($0), sequence: 0, output_row: 0)
    }
    func step() throws -> Double {
      try checkpoint()
      let start = ContinuousClock.now
      let ticket = try runner.submit(
        rows: rows, outputs: [], samples: [], output: .sample, logitsOf: [], statesOf: [])
      _ = try runner.results(ticket)
      return (ContinuousClock.now - start).inSeconds / Double(Self.count)
    }
    let start = ContinuousClock.now
    repeat { _ = try step() } while ContinuousClock.now - start < .milliseconds(400)
    return Samples(try (0..<repetitions).map { _ in try step() })
  }
}
