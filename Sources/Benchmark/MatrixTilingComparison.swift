import Dispatch
import Kernels
import Synchronization
import VulkanRuntime

/// One stage's products on the matrix units, with their work cut in every way worth a look: straight to the units, or
/// through shared memory.
struct MatrixTilingComparison {
  private let subject: StageSubject
  private let step: StageSubject.Step

  init(subject: StageSubject, step: StageSubject.Step) {
    self.subject = subject
    self.step = step
  }

  /// One way to cut the work.
  private struct Candidate {
    var text: String
    /// Has the stage recorded that way.
    var choose: () -> Void
    /// Compiles it.
    var compile: @Sendable () throws -> Void
  }

  /// The default, then the `best` fastest of all others, each with what the stage took. The step must be one that is
  /// computed on matrix units.
  func run(repetitions: Int, best: Int) throws -> [(name: String, timing: Timing)] {
    guard let (usualText, others) = candidates else { return [] }
    let failure = Mutex<(any Error)?>(nil)
    let compilations = others.map(\.compile)
    // All are compiled before any is timed, so that the device does not idle in between.
    DispatchQueue.concurrentPerform(iterations: compilations.count) { index in
      do { try compilations[index]() } catch { failure.withLock { $0 = error } }
    }
    if let failure = failure.withLock({ $0 }) { throw failure }
    let usual = try subject.time(step, repetitions: repetitions)
    defer {
      subject.recorder.directTiling = nil
      subject.recorder.matrixTiling = nil
    }
    let timed = try others.map { candidate in
      candidate.choose()
      return (
        name: candidate.text, timing: try subject.time(step, repetitions: repetitions, isWarm: true)
      )
    }
    let fastest = timed.sorted { $0.timing.seconds.median < $1.timing.seconds.median }.prefix(best)
    return [(name: "default: " + usualText, timing: usual)] + fastest
  }

  /// What the default is, and all others.
  private var candidates: (usual: String, others: [Candidate])? {
    let (recorder, cache) = (subject.recorder, subject.recorder.cache)
    let kernels = recorder.matrixKernels(at: 0)
    let tokenCount = step.columns
    let direct = kernels.compactMap {
      DirectMatrixKernel($0, tokenCount: tokenCount, traits: cache.traits)
    }
    if let first = direct.first {
      let others = first.candidates(tokenCount: tokenCount, traits: cache.traits).dropFirst()
      return (
        first.tiling.text,
        others.map { tiling in
          Candidate(text: tiling.text) {
            recorder.directTiling = tiling
          } compile: {
            for var kernel in direct {
              kernel.tiling = tiling
              _ = try kernel.pipeline(cache: cache)
            }
          }
        }
      )
    }
    let staged = kernels.map { $0.inBytes(cache.traits) ?? $0 }
    guard let first = staged.first else { return nil }
    let usual = first.tiling(tokenCount: tokenCount, traits: cache.traits)
    let choice = MatrixTilingChoice(format: first.matrix.format, units: first.units, traits: cache.traits)
    let others = choice.candidates.map {
      var tiling = $0
      tiling.band = usual.band
      return tiling
    }
    return (
      usual.text,
      others.filter { tiling in
        tiling != usual && staged.allSatisfy { tiling.fits($0.units, cache.traits) }
      }.map { tiling in
        Candidate(text: tiling.text) {
          recorder.matrixTiling = tiling
        } compile: {
          for kernel in staged { _ = try kernel.pipeline(tiling, cache: cache) }
        }
      }
    )
  }
}
