import CShaderInterface
import Kernels
import Transformer
import VulkanRuntime

/// One product of a model with its work cut in every sound way.
struct TilingComparison {
  private let subject: StageSubject
  private let columnCount: Int
  /// LinearExtrasData of the stage, where it has any.
  private let extras: Buffer

  init(subject: StageSubject, columnCount: Int) throws {
    self.subject = subject
    self.columnCount = columnCount
    extras = try subject.benchmark.device.makeBuffer(
      byteCount: MemoryLayout<LinearExtrasData>.stride, memory: .mappedDevice, label: "stage arguments")
  }

  /// The default, then the `best` fastest of all others, each with what it took.
  func run(repetitions: Int, best: Int) throws -> [(name: String, timing: Timing)] {
    _ = subject.prepare(StageSubject.Step(columns: columnCount, isPrompt: true, hasOutputs: true))
    let benchmark = subject.benchmark
    let products = subject.model.stages.map(products)
    guard let kernel = products.first?.first?.kernel else { return [] }
    let standard = kernel.tiling(columnCount: columnCount, traits: benchmark.traits)
    let others = candidates(like: standard, kernel.epilogue).filter { $0 != standard }
    let `default` = try time(products, tiling: nil, repetitions: repetitions, isWarm: false)
    // All are compiled before any is timed, so that the device does not idle in between.
    var compiled: [LinearKernel.Tiling] = []
    for tiling in others {
      do {
        for (kernel, _) in products[0] {
          _ = try kernel.pipeline(tiling, cache: benchmark.cache, traits: benchmark.traits)
        }
        compiled.append(tiling)
      } catch let error as VulkanError where error.kind == .unsupported {
        // More than the device has room for.
      }
    }
    _ = try time(products, tiling: nil, repetitions: 1, isWarm: false)
    let timed = try compiled.map { tiling in
      (
        name: Self.name(tiling),
        timing: try time(products, tiling: tiling, repetitions: repetitions, isWarm: true)
      )
    }
    let fastest = timed.sorted { $0.timing.seconds.median < $1.timing.seconds.median }.prefix(best)
    return [(name: "default: " + Self.name(standard), timing: `default`)] + fastest
  }

  /// - Parameter tiling: nil leaves it to each kernel.
  private func time(
    _ stages: [[(kernel: LinearKernel, push: LinearPush)]], tiling: LinearKernel.Tiling?, repetitions: Int,
    isWarm: Bool
  ) throws -> Timing {
    let benchmark = subject.benchmark
    let timing = try benchmark.time(
      repetitions: repetitions,
      keepAlive: [subject.workspace.memory, subject.workspace.blockTables, subject.slot.data, extras],
      isWarm: isWarm
    ) { commands, end in
      for products in stages {
        for (kernel, push) in products {
          try kernel.record(
            commands, push: push, columnCount: columnCount, cache: benchmark.cache, traits: benchmark.traits,
            tiling: tiling)
        }
        commands.barrier()
      }
      end()
    }
    return Timing(
      seconds: timing.seconds.map { $0 / Double(stages.count) }, pipelines: timing.pipelines)
  }

  /// Every tiling of up to 16 subgroups (4 on a CPU, which has no use for more) whose sums a subgroup can hold in
  /// registers, with as many columns as the default or half of them.
  private func candidates(
    like standard: LinearKernel.Tiling, _ epilogue: LinearKernel.Epilogue
  ) -> [LinearKernel.Tiling] {
    let traits = subject.benchmark.traits
    let mostRows = epilogue == .queryKeyValueNorm ? 16 : 64
    var result: [LinearKernel.Tiling] = []
    for columns in Set([standard.columns, max(1, standard.columns / 2)]) {
      for subgroups in traits.isCPU ? [1, 2, 4] : [1, 2, 4, 8, 16]
      where subgroups * traits.subgroupSize <= traits.maxWorkgroupInvocations {
        for split in [1, 2, 4, 8] where split <= subgroups {
          for rows in [1, 2, 4, 8, 16, 24] where rows * columns <= (traits.isCPU ? 96 : 32) {
            var tiling = standard
            tiling.subgroups = subgroups
            tiling.split = split
            tiling.rows = rows
            tiling.columns = columns
            // Pairs of rows stay together.
            guard (2...mostRows).contains(tiling.groupRows), tiling.groupRows.isMultiple(of: 2) else {
              continue
            }
            result.append(tiling)
          }
        }
      }
    }
    return result
  }

  private static func name(_ tiling: LinearKernel.Tiling) -> String {
    "subgroups \(tiling.subgroups), split \(tiling.split), rows \(tiling.rows), columns \(tiling.columns)"
  }

  // MARK: Arguments

  /// The products of a stage and their arguments, as `PlanRecorder` has them.
  private func products(_ stage: DeviceStage) -> [(kernel: LinearKernel, push: LinearPush)] {
    let workspace = subject.workspace
    var push = LinearPush()
    push.step = subject.slot.stepAddress
    push.extras = extras.address
    push.inputs = workspace.address(.residual)
    push.input_stride = UInt32(workspace.residualStride)
    switch stage {
    case .embed, .attention:
      return []
    case .queryKeyValue(let weights):
      writeExtras(weights)
      push.norm = weights.norm
      push.epsilon = weights.stage.norm.epsilon
      push.outputs = workspace.address(.queries)
      push.output_stride = UInt32(workspace.queryStride)
      return weights.matrices.map { matrix in
        (LinearKernel(matrix: matrix, epilogue: .queryKeyValue, hasNorm: true), push)
      }
    case .residualProjection(let weights):
      let fromAttention = weights.stage.input == .attention
      push.inputs = workspace.address(fromAttention ? .attention : .hidden)
      push.input_stride = UInt32(fromAttention ? workspace.attentionStride : workspace.hiddenStride)
      push.outputs = workspace.address(.residual)
      push.output_stride = UInt32(workspace.residualStride)
      return [(LinearKernel(matrix: weights.matrix, epilogue: .residual), push)]
    case .gatedFeedForward(let weights):
      push.norm = weights.norm
      push.epsilon = weights.stage.norm.epsilon
      push.outputs = workspace.address(.hidden)
      push.output_stride = UInt32(workspace.hiddenStride)
      return [
        (
          LinearKernel(
            matrix: weights.matrix, epilogue: .gated, hasNorm: true, activation: weights.stage.activation),
          push
        )
      ]
    case .logits(let weights):
      push.norm = weights.norm
      push.epsilon = weights.stage.norm.epsilon
      push.outputs = workspace.address(.logits)
      push.output_stride = UInt32(workspace.logitsStride)
      return [
        (LinearKernel(matrix: weights.matrix, epilogue: .store, hasNorm: true, gathersOutputs: true), push)
      ]
    }
  }

  /// A llama's: neither biases nor norms of heads.
  private func writeExtras(_ weights: DeviceStage.QueryKeyValue) {
    let (workspace, stage) = (subject.workspace, weights.stage)
    var data = LinearExtrasData()
    data.keys = subject.kvCache.keys(layer: stage.layer)
    data.values = subject.kvCache.values(layer: stage.layer)
    data.block_tables = workspace.blockTables.address
    data.table_stride = UInt32(workspace.limits.pagesPerSequence)
    data.rope = weights.rope
    data.head_count = UInt32(stage.heads.headCount)
    data.kv_head_count = UInt32(stage.heads.kvHeadCount)
    data.head_size = UInt32(stage.heads.headSize)
    data.rotated_size = UInt32(stage.rope.rotatedSize)
    data.rope_magnitude = stage.rope.magnitude
    data.scratch = workspace.address(.scratch)
    data.scratch_stride = UInt32(workspace.scratchStride)
    data.counters = workspace.address(.counters)
    extras.contents?.storeBytes(of: data, as: LinearExtrasData.self)
  }
}
