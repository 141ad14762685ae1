import Kernels

/// Whether stages can be chained: on CPU drivers, which run one dispatch after the other, they always can.
struct ChainChecks {
  let bench: TestBench

  func run() throws {
    let name = "chain of stages"
    guard bench.wants(name) else { return }
    try bench.report(name) {
      let succeeds = try ChainProbe.succeeds(cache: bench.cache)
      // A GPU may be unable to: nothing is chained there.
      guard succeeds || !bench.traits.isCPU else {
        return ([Comparison("", value: 1, tolerance: 0)], 0, "a stage did not see the one before")
      }
      return ([Comparison("", value: 0, tolerance: 0)], 0, "")
    }
  }
}
