/// Where the keys and values of each layer are between steps: on the device, or in host memory, from where the pages that
/// a step uses come to a ring that has room for a few layers.
package struct CacheResidency: Sendable, Hashable {
  /// For each layer, the place of the ring that its pages come to; nil for one whose pages stay on the device.
  package private(set) var places: [Int?]
  /// Layers that the ring has room for.
  package private(set) var ringLayers: Int

  /// All on the device.
  package init(residentLayers count: Int) {
    places = Array(repeating: nil, count: count)
    ringLayers = 0
  }

  /// - Parameters:
  ///   - resident: how many of the layers stay on the device; they are spread evenly among the others.
  ///   - ringLayers: as many as the others at most.
  package init(layerCount: Int, resident: Int, ringLayers: Int) {
    precondition(resident >= 0 && ringLayers > 0 && resident + ringLayers <= layerCount)
    self.ringLayers = ringLayers
    var next = 0
    places = (0..<layerCount).map { layer in
      guard (layer + 1) * resident / layerCount == layer * resident / layerCount else { return nil }
      defer { next = (next + 1) % ringLayers }
      return next
    }
  }

  /// Layers whose pages are in host memory.
  package var hostLayers: Int { places.count { $0 != nil } }
  /// Layers for whose pages the device has room: those that stay, and the ring.
  package var deviceLayers: Int { places.count - hostLayers + ringLayers }
}
