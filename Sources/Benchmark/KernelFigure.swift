import Kernels
import VulkanRuntime

/// What one kernel, or one thing that a device does, takes.
package struct KernelFigure: Sendable {
  /// The kernel and its shape: what a filter looks at.
  package var name: String
  package var type: String?
  /// Tokens at once; nil where it does not apply.
  package var columns: Int?
  /// Of one dispatch with the barrier behind it, in microseconds.
  package var microseconds: Samples
  /// Bytes that it must read and write.
  package var bytes: Double?
  /// Floating-point operations.
  package var operations: Double?
  /// What the driver's compiler says: registers, spills, occupancy, as far as it tells.
  package var compiler = ""
}

extension BenchmarkDevice {
  /// Registers, spills and occupancy of pipelines, of each statistic the largest; empty where the driver tells none.
  func compilerText(_ pipelines: [Pipeline]) throws -> String {
    let words = ["regist", "gpr", "spill", "scratch", "stack", "occupancy", "waves"]
    var order: [String] = []
    var most: [String: Double] = [:]
    for pipeline in pipelines {
      for statistic in try device.executableStatistics(of: pipeline)
      where words.contains(where: statistic.statistic.lowercased().contains) {
        if most[statistic.statistic] == nil { order.append(statistic.statistic) }
        most[statistic.statistic] = max(most[statistic.statistic] ?? 0, statistic.value)
      }
    }
    return order.map { "\($0) \(Int(most[$0] ?? 0))" }.joined(separator: ", ")
  }
}
