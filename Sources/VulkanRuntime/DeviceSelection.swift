/// Which device to use.
package enum DeviceSelection {
  /// Best first: usable ones before others, then discrete, integrated, virtual, CPU; then more memory; then the
  /// driver's order.
  package static func rank(_ devices: [PhysicalDevice]) -> [PhysicalDevice] {
    devices.sorted { left, right in
      let leftUsable = left.unsupportedReason == nil
      let rightUsable = right.unsupportedReason == nil
      if leftUsable != rightUsable { return leftUsable }
      if left.kind != right.kind { return left.kind.rawValue < right.kind.rawValue }
      if left.deviceMemory != right.deviceMemory { return left.deviceMemory > right.deviceMemory }
      return left.index < right.index
    }
  }

  /// The device with index `spec`, or the best whose name contains `spec` in any case; nil takes the best of all.
  /// Throws `.noDevice` if none fits and `.unsupported` if the one meant cannot be used.
  package static func select(spec: String?, from devices: [PhysicalDevice]) throws(VulkanError)
    -> PhysicalDevice
  {
    guard !devices.isEmpty else {
      throw VulkanError(
        kind: .noDevice,
        description: "no Vulkan device; install the GPU's driver, or mesa-vulkan-drivers for a CPU driver")
    }
    let ranked = rank(devices)
    var chosen: PhysicalDevice?
    if let spec {
      if let index = Int(spec) {
        chosen = devices.first { $0.index == index }
      } else {
        chosen = ranked.first { $0.name.lowercased().contains(spec.lowercased()) }
      }
    } else {
      chosen = ranked.first
    }
    guard let chosen else {
      let list = devices.map { "\($0.index) \($0.name)" }.joined(separator: ", ")
      throw VulkanError(kind: .noDevice, description: "no device fits '\(spec ?? "")'; there are: \(list)")
    }
    if let reason = chosen.unsupportedReason {
      throw VulkanError(
        kind: .unsupported, description: "device \(chosen.index) (\(chosen.name)) cannot be used: \(reason)")
    }
    return chosen
  }
}
