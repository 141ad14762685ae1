import Synchronization
import VulkanRuntime

/// Which tiling of each product is the fastest on one device, as far as it was measured (see `LinearTuner`); kept
/// beside the pipelines of the device and driver.
package final class LinearTuning: Sendable {
  /// What a measurement holds for: everything but where the weights lie.
  struct Key: Hashable, Sendable {
    let text: String

    init(_ kernel: LinearKernel, columnCount: Int, isChained: Bool) {
      text =
        "\(kernel.shaderName) \(kernel.matrix.rows)x\(kernel.matrix.columns) \(kernel.epilogue)"
        + (kernel.hasNorm ? " norm" : "") + (kernel.hasBias ? " bias" : "")
        + " to \(kernel.next), columns \(columnCount)" + (isChained ? ", chained" : "")
    }

    init(text: String) { self.text = text }
  }

  private static let kind = "tuning"
  private let device: Device
  private let measured: Mutex<[Key: LinearKernel.Tiling]>

  init(device: Device) {
    self.device = device
    let lines = String(decoding: device.keptBytes(Self.kind) ?? [], as: UTF8.self).split(separator: "\n")
    var known: [Key: LinearKernel.Tiling] = [:]
    for line in lines {
      let parts = line.split(separator: "\t")
      let numbers = parts.last?.split(separator: " ").compactMap { Int($0) } ?? []
      guard parts.count == 2, numbers.count == 5 else { continue }
      known[Key(text: String(parts[0]))] = LinearKernel.Tiling(
        subgroups: numbers[0], split: numbers[1], rows: numbers[2], columns: numbers[3], unroll: numbers[4])
    }
    measured = Mutex(known)
  }

  /// The fastest tiling that is known, or else the kernel's own choice.
  package func tiling(
    _ kernel: LinearKernel, columnCount: Int, isChained: Bool = false, traits: DeviceTraits
  ) -> LinearKernel.Tiling {
    let key = Key(kernel, columnCount: columnCount, isChained: isChained)
    if let known = measured.withLock({ $0[key] }),
      // A file may hold anything.
      kernel.candidates(columnCount: columnCount, traits: traits).contains(known)
    {
      return known
    }
    return kernel.tiling(columnCount: columnCount, traits: traits)
  }

  func isKnown(_ key: Key) -> Bool { measured.withLock { $0[key] != nil } }

  func set(_ tiling: LinearKernel.Tiling, for key: Key) { measured.withLock { $0[key] = tiling } }

  /// Writes what is known to the file. Throws when it cannot be written.
  func save() throws(VulkanError) {
    let lines = measured.withLock { known in
      known.map { key, tiling in
        "\(key.text)\t\(tiling.subgroups) \(tiling.split) \(tiling.rows) \(tiling.columns) \(tiling.unroll)\n"
      }
    }
    try device.keep(Array(lines.sorted().joined().utf8), as: Self.kind)
  }

  /// A line for each product: what it is, and how it is cut.
  package var texts: [String] {
    measured.withLock { known in
      known.map { key, tiling in
        "\(key.text): subgroups \(tiling.subgroups), split \(tiling.split), rows \(tiling.rows), "
          + "columns \(tiling.columns), unroll \(tiling.unroll)"
      }
    }.sorted()
  }
}
