import CShaderInterface
import Transformer
import VulkanRuntime

/// The KV cache of one device: for every layer, pages of `KV_PAGE_TOKENS` positions, keys and values.
///
/// In f16, keys lie as [page][kv head][octet of elements][position], values as [page][kv head][position][element].
///
/// In q8_0, the bytes of keys lie as [page][kv head][sixteen elements][position] and their scales, float16, behind those
/// of each kv head as [block][position]; of values as [position][element] and [position][block].
///
/// A layer's pages have a *home* where they are between steps, on the device or in host memory. Pages of the latter come to
/// a ring that has room for all pages of a few layers: there they have the same places as at home, and kernels find them.
package final class KVCache: Sendable {
  package static let pageTokens = Int(KV_PAGE_TOKENS)
  /// Pages that so many tokens of a sequence take.
  package static func pages(forTokens tokens: Int) -> Int { (tokens + pageTokens - 1) / pageTokens }
  package let pageCount: Int
  /// The model's layer whose pages come first.
  private let firstLayer: Int
  package let residency: CacheResidency
  /// Where the pages of each layer are between steps.
  let homes: [Buffer]
  let ring: [Buffer]
  private let halfBytes: Int
  private let halfPageBytes: Int

  /// - Parameter residency: of the layers; nil keeps all on the device.
  package init(
    device: Device, heads: HeadLayout, layerCount: Int, firstLayer: Int = 0, pageCount: Int,
    residency: CacheResidency? = nil
  ) throws {
    let residency = residency ?? CacheResidency(residentLayers: layerCount)
    self.residency = residency
    self.pageCount = pageCount
    self.firstLayer = firstLayer
    let halfBytes = pageCount * Self.pageBytes(heads: heads) / 2
    self.halfBytes = halfBytes
    halfPageBytes = Self.pageBytes(heads: heads) / 2
    homes = try residency.places.enumerated().map { layer, place in
      try device.makeBuffer(
        byteCount: 2 * halfBytes, memory: place == nil ? .device : .upload,
        label: "KV cache of layer \(layer)" + (place == nil ? "" : " on the host"))
    }
    ring = try (0..<residency.ringLayers).map { _ in
      try device.makeBuffer(byteCount: 2 * halfBytes, memory: .device, label: "ring of KV cache layers")
    }
  }

  /// Bytes of one page of one layer, keys and values.
  package static func pageBytes(heads: HeadLayout) -> Int {
    2 * pageTokens * heads.kvHeadCount * heads.cacheType.byteCount(heads.headSize)
  }

  /// What the bytes of an f16 page mean, for saved states: pages that differ in it cannot stand for each other. Those of
  /// other types differ in their size.
  package static let pageLayout = "f16, \(pageTokens) tokens"

  /// Bytes of one page in all layers.
  package var pageByteCount: Int { homes.count * layerPageBytes }

  /// Bytes of one page of one layer.
  var layerPageBytes: Int { 2 * halfPageBytes }

  /// Where runs of pages are in every layer, keys and values, at home and in the ring.
  func ranges(ofPages runs: [Range<Int>]) -> [Range<Int>] {
    runs.flatMap { run in
      [0, halfBytes].map { $0 + run.lowerBound * halfPageBytes..<$0 + run.upperBound * halfPageBytes }
    }
  }

  /// The pieces of a page, keys and values of every layer.
  private func pieces(of page: UInt32) -> [(layer: Buffer, offset: Int)] {
    homes.flatMap { layer in [0, halfBytes].map { (layer, $0 + Int(page) * halfPageBytes) } }
  }

  /// Copies a page in every layer; barriers around it are the caller's.
  package func recordCopy(_ commands: CommandBuffer, from source: UInt32, to destination: UInt32) {
    for (from, to) in zip(pieces(of: source), pieces(of: destination)) {
      commands.copy(
        from: from.layer, offset: from.offset, to: to.layer, offset: to.offset, byteCount: halfPageBytes)
    }
  }

  /// Copies a page to `pageByteCount` bytes of a buffer; barriers around it are the caller's.
  package func recordRead(_ commands: CommandBuffer, page: UInt32, to buffer: Buffer, at start: Int = 0) {
    for (index, piece) in pieces(of: page).enumerated() {
      commands.copy(
        from: piece.layer, offset: piece.offset, to: buffer,
        offset: start + index * halfPageBytes, byteCount: halfPageBytes)
    }
  }

  /// Copies a page from a buffer that `recordRead` filled; barriers around it are the caller's.
  package func recordWrite(_ commands: CommandBuffer, page: UInt32, from buffer: Buffer, at start: Int = 0) {
    for (index, piece) in pieces(of: page).enumerated() {
      commands.copy(
        from: buffer, offset: start + index * halfPageBytes, to: piece.layer, offset: piece.offset,
        byteCount: halfPageBytes)
    }
  }

  package func keys(layer: Int) -> UInt64 { place(of: layer).address }
  package func values(layer: Int) -> UInt64 { place(of: layer).address + UInt64(halfBytes) }
  /// Bytes of all pages of one layer.
  package var layerByteCount: Int { 2 * halfBytes }

  /// Where kernels find the pages of a layer.
  private func place(of layer: Int) -> Buffer {
    residency.places[layer - firstLayer].map { ring[$0] } ?? homes[layer - firstLayer]
  }

  /// Whether the pages of a layer come to the device for each step.
  func streams(layer: Int) -> Bool { residency.places[layer - firstLayer] != nil }

  /// Which of the cache's layers a layer of the model is.
  func index(ofLayer layer: Int) -> Int { layer - firstLayer }
}
