import Dispatch
import Kernels
import Synchronization
import VulkanRuntime

/// One product of a model with its work cut in every sound way.
struct TilingComparison {
  private let subject: StageSubject
  private let columnCount: Int

  init(subject: StageSubject, columnCount: Int) {
    self.subject = subject
    self.columnCount = columnCount
  }

  /// The default, then the `best` fastest of all others, each with what it took.
  func run(repetitions: Int, best: Int) throws -> [(name: String, timing: Timing)] {
    let shape = subject.prepare(StageSubject.Step(columns: columnCount, isPrompt: true, hasOutputs: true))
    let benchmark = subject.benchmark
    let products = subject.model.stages.indices.map { index in
      subject.recorder.products(at: index, shape: shape, slot: subject.slot, squareCount: 128)
    }
    guard let kernel = products.first?.first?.kernel else { return [] }
    let standard = kernel.tiling(columnCount: columnCount, traits: benchmark.traits)
    let others = candidates(like: standard, kernel).filter { $0 != standard }
    let `default` = try time(products, tiling: nil, repetitions: repetitions, isWarm: false)
    // All are compiled before any is timed, so that the device does not idle in between.
    let compiled = try compile(products[0].map(\.kernel), others)
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

  /// The tilings that the device has room for, several compiled at a time.
  private func compile(
    _ kernels: [LinearKernel], _ tilings: [LinearKernel.Tiling]
  ) throws -> [LinearKernel.Tiling] {
    let cache = subject.benchmark.cache
    let outcome = Mutex<(isSound: [Bool], failure: (any Error)?)>(
      ([Bool](repeating: false, count: tilings.count), nil))
    DispatchQueue.concurrentPerform(iterations: tilings.count) { index in
      do {
        for kernel in kernels { _ = try kernel.pipeline(tilings[index], cache: cache) }
        outcome.withLock { $0.isSound[index] = true }
      } catch let error as VulkanError where error.kind == .unsupported {
        // More than the device has room for.
      } catch {
        outcome.withLock { $0.failure = error }
      }
    }
    let (isSound, failure) = outcome.withLock { $0 }
    if let failure { throw failure }
    return zip(tilings, isSound).filter(\.1).map(\.0)
  }

  /// - Parameter tiling: nil leaves it to each kernel.
  private func time(
    _ stages: [[PlanRecorder.Product]], tiling: LinearKernel.Tiling?, repetitions: Int,
    isWarm: Bool
  ) throws -> Timing {
    let benchmark = subject.benchmark
    let timing = try benchmark.time(
      repetitions: repetitions,
      keepAlive: [subject.workspace.memory, subject.workspace.blockTables, subject.slot.data],
      isWarm: isWarm
    ) { commands, end in
      for products in stages {
        for product in products {
          try product.kernel.record(
            commands, push: product.push, columnCount: columnCount, cache: benchmark.cache, tiling: tiling)
        }
        commands.dispatchBarrier()
      }
      end()
    }
    return Timing(
      seconds: timing.seconds.map { $0 / Double(stages.count) }, pipelines: timing.pipelines)
  }

  /// Every tiling of up to 32 subgroups (4 on a CPU, which has no use for more) whose sums a subgroup can hold in
  /// registers, with as many columns as the default or half of them.
  private func candidates(like standard: LinearKernel.Tiling, _ kernel: LinearKernel) -> [LinearKernel.Tiling]
  {
    let traits = subject.benchmark.traits
    let mostRows = kernel.epilogue == .queryKeyValueNorm ? 16 : traits.isCPU ? 64 : 32
    var result: [LinearKernel.Tiling] = []
    for columns in [standard.columns] {
      for subgroups in traits.isCPU ? [1, 2, 4] : [1, 2, 4, 8, 16, 32]
      where subgroups * traits.subgroupSize <= traits.maxWorkgroupInvocations {
        for split in [1, 2, 4, 8] where split <= subgroups {
          for rows in [1, 2, 4, 8, 16, 24]
          where (traits.isCPU || rows <= 8) && rows * columns <= (traits.isCPU ? 96 : 32) {
            for unroll in [1, 2, 4, 8] where unroll * rows <= (columns > 2 ? 8 : 16) {
              let tiling = LinearKernel.Tiling(
                subgroups: subgroups, split: split, rows: rows, columns: columns, unroll: unroll)
              // A GPU hides its memory's latency behind several loads of each lane.
              guard traits.isCPU || (subgroups >= 2 && unroll * rows >= 4) else { continue }
              // Lanes that are rows share no sums.
              guard
                !kernel.lanesAreRows
                  || (split == 1 && unroll == 1 && rows.isMultiple(of: traits.subgroupSize))
              else { continue }
              guard (2...mostRows).contains(tiling.groupRows),
                tiling.groupRows.isMultiple(of: kernel.rowMultiple)
              else { continue }
              result.append(tiling)
            }
          }
        }
      }
    }
    return result
  }

  private static func name(_ tiling: LinearKernel.Tiling) -> String {
    "subgroups \(tiling.subgroups), split \(tiling.split), rows \(tiling.rows), columns \(tiling.columns), "
      + "unroll \(tiling.unroll)"
  }
}
