import CVulkan

/// What went wrong in Vulkan: its description is one line that says which call, on which device or buffer, and
/// what to do about it.
package struct VulkanError: Error, CustomStringConvertible, Sendable {
  package enum Kind: Sendable, Hashable {
    /// libvulkan.so.1 is not on this machine.
    case noLoader
    /// No driver, no device, or none that matches what was asked for.
    case noDevice
    case outOfDeviceMemory
    case outOfHostMemory
    /// The device is gone: everything made from it is of no more use; a new `Device` may work.
    case deviceLost
    /// The request is beyond what the device, or this runtime, can do.
    case unsupported
    /// The pipeline cache file could not be written.
    case cacheFile
    /// Any other error of a Vulkan call: the VkResult.
    case failed(Int32)
  }

  package let kind: Kind
  package let description: String

  package init(kind: Kind, description: String) {
    self.kind = kind
    self.description = description
  }
}

extension VulkanError {
  /// Throws unless `result` is VK_SUCCESS. `subject` says what the call was about ("buffer weights (4096 bytes)").
  static func check(
    _ result: VkResult, _ call: StaticString, device: String?, _ subject: @autoclosure () -> String = ""
  ) throws(VulkanError) {
    guard result != VK_SUCCESS else { return }
    throw VulkanError(result, call, device: device, subject())
  }

  init(_ result: VkResult, _ call: StaticString, device: String?, _ subject: String = "") {
    let place = (device.map { " on \($0)" } ?? "") + (subject.isEmpty ? "" : " for \(subject)")
    func line(_ reason: String) -> String { "\(call)\(place): \(reason)" }
    switch result {
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
      self.init(
        kind: .outOfDeviceMemory,
        description: line(
          "out of device memory; close other users of the device or use a smaller model or context"))
    case VK_ERROR_OUT_OF_HOST_MEMORY:
      self.init(
        kind: .outOfHostMemory,
        description: line("out of host memory; close other programs or use a smaller model"))
    case VK_ERROR_DEVICE_LOST:
      self.init(
        kind: .deviceLost,
        description: line(
          "the device was lost (reset, hang or crash of its driver); see the kernel log and try again"))
    case VK_ERROR_INCOMPATIBLE_DRIVER:
      self.init(
        kind: .noDevice,
        description: line(
          "no usable Vulkan driver; install the GPU's driver, or mesa-vulkan-drivers for a CPU driver"))
    case VK_ERROR_INITIALIZATION_FAILED:
      self.init(
        kind: .failed(result.rawValue),
        description: line(
          "initialisation failed; check the driver with vulkaninfo and the access to /dev/dri"))
    case VK_ERROR_FEATURE_NOT_PRESENT, VK_ERROR_EXTENSION_NOT_PRESENT, VK_ERROR_LAYER_NOT_PRESENT,
      VK_ERROR_FORMAT_NOT_SUPPORTED:
      self.init(kind: .unsupported, description: line("\(result.name); update the driver"))
    default:
      self.init(kind: .failed(result.rawValue), description: line(result.name))
    }
  }
}

extension VkResult {
  /// The constant's name where this runtime's calls may return it, else the number.
  var name: String {
    switch self {
    case VK_SUCCESS: "VK_SUCCESS"
    case VK_NOT_READY: "VK_NOT_READY"
    case VK_TIMEOUT: "VK_TIMEOUT"
    case VK_INCOMPLETE: "VK_INCOMPLETE"
    case VK_ERROR_MEMORY_MAP_FAILED: "VK_ERROR_MEMORY_MAP_FAILED"
    case VK_ERROR_LAYER_NOT_PRESENT: "VK_ERROR_LAYER_NOT_PRESENT"
    case VK_ERROR_EXTENSION_NOT_PRESENT: "VK_ERROR_EXTENSION_NOT_PRESENT"
    case VK_ERROR_FEATURE_NOT_PRESENT: "VK_ERROR_FEATURE_NOT_PRESENT"
    case VK_ERROR_FORMAT_NOT_SUPPORTED: "VK_ERROR_FORMAT_NOT_SUPPORTED"
    case VK_ERROR_TOO_MANY_OBJECTS: "VK_ERROR_TOO_MANY_OBJECTS"
    case VK_ERROR_UNKNOWN: "VK_ERROR_UNKNOWN"
    case VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS: "VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS"
    case VK_PIPELINE_COMPILE_REQUIRED: "VK_PIPELINE_COMPILE_REQUIRED"
    case VK_ERROR_INVALID_SHADER_NV: "VK_ERROR_INVALID_SHADER_NV"
    case VK_ERROR_INVALID_EXTERNAL_HANDLE: "VK_ERROR_INVALID_EXTERNAL_HANDLE"
    default: "VkResult \(rawValue)"
    }
  }
}
