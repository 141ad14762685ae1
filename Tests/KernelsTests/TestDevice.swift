import Foundation
import VulkanRuntime

/// The best device of this machine, or why there is none.
enum TestDevice {
  static let instance = Result { try VulkanInstance() }

  /// Why the tests are skipped; nil on a machine with a usable device.
  static var absence: String? {
    do {
      _ = try select()
      return nil
    } catch {
      return "no usable Vulkan device: \(error)"
    }
  }

  static func open(pipelineCacheDirectory: String? = nil) throws -> Device {
    try Device(
      instance: instance.get(), physical: select(), pipelineCacheDirectory: pipelineCacheDirectory,
      captureStatistics: false)
  }

  /// `VKINFER_DEVICE` picks the device by index or name.
  private static func select() throws -> PhysicalDevice {
    try DeviceSelection.select(
      spec: ProcessInfo.processInfo.environment["VKINFER_DEVICE"], from: instance.get().physicalDevices)
  }
}
