import Dispatch
import Kernels
import Synchronization
import VulkanRuntime

/// One stage's products, straight to the matrix units, with their work cut in every way worth a look.
struct DirectTilingComparison {
  private let subject: StageSubject
  private let tokenCount: Int

  init(subject: StageSubject, tokenCount: Int) {
    self.subject = subject
    self.tokenCount = tokenCount
  }

  /// The default, then the `best` fastest of all others, each with what the stage took.
  func run(repetitions: Int, best: Int) throws -> [(name: String, timing: Timing)] {
    let step = StageSubject.Step(columns: tokenCount, hasOutputs: true)
    let cache = subject.recorder.cache
    let kernels = subject.recorder.matrixKernels(at: 0).compactMap {
      DirectMatrixKernel($0, tokenCount: tokenCount, traits: cache.traits)
    }
    guard let first = kernels.first else { return [] }
    let others = first.candidates(tokenCount: tokenCount, traits: cache.traits).dropFirst()
    let failure = Mutex<(any Error)?>(nil)
    // All are compiled before any is timed, so that the device does not idle in between.
    DispatchQueue.concurrentPerform(iterations: others.count * kernels.count) { index in
      var kernel = kernels[index % kernels.count]
      kernel.tiling = others[others.startIndex + index / kernels.count]
      do { _ = try kernel.pipeline(cache: cache) } catch { failure.withLock { $0 = error } }
    }
    if let failure = failure.withLock({ $0 }) { throw failure }
    let usual = try subject.time(step, repetitions: repetitions)
    defer { subject.recorder.directTiling = nil }
    let timed = try others.map { tiling in
      subject.recorder.directTiling = tiling
      return (name: tiling.text, timing: try subject.time(step, repetitions: repetitions, isWarm: true))
    }
    let fastest = timed.sorted { $0.timing.seconds.median < $1.timing.seconds.median }.prefix(best)
    return [(name: "default: " + first.tiling.text, timing: usual)] + fastest
  }
}
