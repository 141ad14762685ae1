import Foundation
import Kernels
import VulkanRuntime

/// Files and devices that the tests run on.
enum TestModels {
  /// Why there is no device to test on; nil if there is one.
  static let absence: String? = {
    do {
      let instance = try VulkanInstance()
      _ = try DeviceSelection.select(spec: nil, from: instance.physicalDevices)
      return nil
    } catch {
      return "\(error)"
    }
  }()

  /// The number of a CPU driver, whose results do not depend on how many columns a product has; nil if there is none.
  static let cpuDriver: String? = {
    guard let instance = try? VulkanInstance() else { return nil }
    return instance.physicalDevices.first { $0.kind == .cpu && $0.unsupportedReason == nil }.map {
      String($0.index)
    }
  }()

  /// Whether the device that tests run on has matrix units.
  static let hasMatrixUnits: Bool = {
    guard let instance = try? VulkanInstance(),
      let device = try? DeviceSelection.select(spec: nil, from: instance.physicalDevices)
    else { return false }
    return MatrixUnits(device.capabilities) != nil
  }()

  static let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()

  static func fixture(_ name: String, in suite: String) -> URL {
    tests.appendingPathComponent(suite).appendingPathComponent("Fixtures").appendingPathComponent(name)
  }

  /// A model in the user's cache, where Tools/test puts it.
  static func cached(_ name: String) -> String {
    let environment = ProcessInfo.processInfo.environment
    let cache = environment["XDG_CACHE_HOME"] ?? (environment["HOME"] ?? "") + "/.cache"
    return cache + "/vkinfer/models/" + name
  }
}
