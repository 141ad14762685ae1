import Kernels

/// Holds `PipelineVariants` against the pipelines that the kernels themselves have asked for in this run.
struct VariantChecks {
  let bench: TestBench
  /// What all checks have asked for.
  let made: [KernelCache.Variant]

  func run() throws {
    let name = "pipeline variants"
    guard bench.matches(name) else { return }
    try bench.report(name) {
      // Checks use units that the engine leaves alone, too.
      let variants = PipelineVariants(
        traits: bench.traits, units: MatrixUnits(bench.device.capabilities),
        byteUnits: try FragmentProbe.byteUnits(
          device: bench.device, subgroupSize: bench.traits.subgroupSize))
      func family(_ shader: String) -> Substring { shader.prefix { $0 != "." } }
      let known = Dictionary(grouping: variants.all) { family($0.shader) }
      // Checks give some kernels many shapes that the engine does not choose; others have only their own.
      let shaped: Set<Substring> = [
        "linear", "linear_bytes", "linear_naive", "linear_rows", "linear_rows_wide", "linear_tiles",
        "linear_tiles_bytes", "attention", "attention_decode", "attention_lanes", "matrix", "matrix_bytes",
        "matrix_direct",
        "flash", "combine", "normalise",
      ]
      // What the engine does not choose on a device at all, checks may.
      let unlisted = made.filter { made in
        let listed = known[family(made.shader)] ?? []
        if shaped.contains(family(made.shader)) {
          return listed.contains { $0.specialization.count != made.specialization.count }
        }
        return !listed.contains { $0.shader == made.shader && $0.specialization == made.specialization }
      }
      return (
        [Comparison("not listed", value: Double(unlisted.count), tolerance: 0)], 0,
        unlisted.map { "\($0.shader) \($0.specialization)" }.joined(separator: ", ")
      )
    }
  }
}
