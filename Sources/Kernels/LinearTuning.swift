import Synchronization
import VulkanRuntime

/// Which tiling of each product is the fastest on one device, as far as it was measured (see `LinearTuner`); kept
/// beside the pipelines of the device and driver.
package final class LinearTuning: Sendable {
  /// What a measurement holds for: everything but where the weights lie.
  struct Key: Hashable, Sendable {
    let text: String

    init(_ kernel: LinearKernel, columnCount: Int, isChained: Bool, traits: DeviceTraits) {
      text =
        "\(kernel.shaderName(traits)) \(kernel.matrix.rows)x\(kernel.matrix.columns) \(kernel.epilogue)"
        + (kernel.hasNorm ? " norm" : "") + (kernel.hasBias ? " bias" : "")
        + " to \(kernel.next), columns \(columnCount)" + (isChained ? ", chained" : "")
    }

    init(text: String) { self.text = text }
  }

  private static let kind = "tuning"
  private let device: Device
  private let measured: Mutex<[Key: Entry]>
  /// Products that were asked for: the file is of all models.
  private let asked = Mutex<Set<Key>>([])

  /// The fastest of the candidates that were tried, and how many of them were: the first ones.
  package struct Entry: Hashable, Sendable {
    package var tiling: LinearKernel.Tiling
    package var tried: Int
  }

  init(device: Device) {
    self.device = device
    let lines = String(decoding: device.keptBytes(Self.kind) ?? [], as: UTF8.self).split(separator: "\n")
    var known: [Key: Entry] = [:]
    for line in lines {
      let parts = line.split(separator: "\t")
      let numbers = parts.last?.split(separator: " ").compactMap { Int($0) } ?? []
      guard parts.count == 2, numbers.count == 6, numbers[5] > 0 else { continue }
      known[Key(text: String(parts[0]))] = Entry(
        tiling: LinearKernel.Tiling(
          subgroups: numbers[0], split: numbers[1], rows: numbers[2], columns: numbers[3], unroll: numbers[4]),
        tried: numbers[5])
    }
    measured = Mutex(known)
  }

  /// The fastest tiling that is known, or else the kernel's own choice.
  package func tiling(
    _ kernel: LinearKernel, columnCount: Int, isChained: Bool = false, traits: DeviceTraits
  ) -> LinearKernel.Tiling {
    let key = Key(kernel, columnCount: columnCount, isChained: isChained, traits: traits)
    let candidates = kernel.candidates(columnCount: columnCount, isChained: isChained, traits: traits)
    return known(key, among: candidates)?.tiling
      ?? kernel.tiling(columnCount: columnCount, isChained: isChained, traits: traits)
  }

  /// What is known of a product; a file may hold anything, so it must be among the candidates.
  func known(_ key: Key, among candidates: [LinearKernel.Tiling]) -> Entry? {
    asked.withLock { _ = $0.insert(key) }
    return measured.withLock { $0[key] }.flatMap { candidates.contains($0.tiling) ? $0 : nil }
  }

  func set(_ tiling: LinearKernel.Tiling, tried: Int, for key: Key) {
    measured.withLock { $0[key] = Entry(tiling: tiling, tried: tried) }
  }

  /// Writes what is known to the file. Throws when it cannot be written.
  func save() throws(VulkanError) {
    let lines = measured.withLock { known in
      known.map { key, entry in
        let tiling = entry.tiling
        return
          "\(key.text)\t\(tiling.subgroups) \(tiling.split) \(tiling.rows) \(tiling.columns) \(tiling.unroll) "
          + "\(entry.tried)\n"
      }
    }
    try device.keep(Array(lines.sorted().joined().utf8), as: Self.kind)
  }

  /// A line for each product that was asked for: what it is, and how it is cut.
  package var texts: [String] {
    let asked = asked.withLock(\.self)
    return measured.withLock { known in
      known.filter { asked.contains($0.key) }.map { key, entry in
        let tiling = entry.tiling
        return "\(key.text): subgroups \(tiling.subgroups), split \(tiling.split), rows \(tiling.rows), "
          + "columns \(tiling.columns), unroll \(tiling.unroll); the best of \(entry.tried)"
      }
    }.sorted()
  }
}
