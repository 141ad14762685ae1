import CShaderInterface
import Transformer
import VulkanRuntime

/// The KV cache of one device: for every layer, pages of `KV_PAGE_TOKENS` positions, keys and values in f16.
///
/// Keys lie as [page][kv head][octet of elements][position], values as [page][kv head][position][element].
package final class KVCache: Sendable {
  package static let pageTokens = Int(KV_PAGE_TOKENS)
  package let pageCount: Int
  /// The model's layer whose pages come first.
  private let firstLayer: Int
  private let layers: [Buffer]
  private let halfBytes: Int
  private let halfPageBytes: Int

  package init(device: Device, heads: HeadLayout, layerCount: Int, firstLayer: Int = 0, pageCount: Int)
    throws
  {
    self.pageCount = pageCount
    self.firstLayer = firstLayer
    let halfBytes = pageCount * Self.pageBytes(heads: heads) / 2
    self.halfBytes = halfBytes
    halfPageBytes = Self.pageBytes(heads: heads) / 2
    layers = try (0..<layerCount).map { layer in
      try device.makeBuffer(byteCount: 2 * halfBytes, memory: .device, label: "KV cache of layer \(layer)")
    }
  }

  /// Bytes of one page of one layer, keys and values.
  package static func pageBytes(heads: HeadLayout) -> Int {
    2 * heads.kvHeadCount * heads.headSize * pageTokens * 2
  }

  /// Copies a page in every layer; barriers around it are the caller's.
  package func recordCopy(_ commands: CommandBuffer, from source: UInt32, to destination: UInt32) {
    for layer in layers {
      for half in [0, halfBytes] {
        commands.copy(
          from: layer, offset: half + Int(source) * halfPageBytes, to: layer,
          offset: half + Int(destination) * halfPageBytes, byteCount: halfPageBytes)
      }
    }
  }

  package func keys(layer: Int) -> UInt64 { layers[layer - firstLayer].address }
  package func values(layer: Int) -> UInt64 { layers[layer - firstLayer].address + UInt64(halfBytes) }
  package var byteCount: Int { layers.reduce(0) { $0 + $1.byteCount } }
}
