import Foundation
import Testing
import VulkanRuntime

/// Whether the process was started as a program of its own, as a test in another process needs it.
private let startsAsItself: Bool = {
  let program = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
  return program.map { !($0 as NSString).lastPathComponent.hasPrefix("ld-") } ?? false
}()

/// Machines without Vulkan, or without all of it. Each test is a process of its own, since the loader reads the
/// environment once.
@Suite(
  .enabled(
    if: startsAsItself, "the program was started through a dynamic loader, and cannot be again"))
struct LoaderTests {
  /// What opening Vulkan throws; ends the process if it is not one line.
  private static func failure() -> VulkanError? {
    do throws(VulkanError) {
      let instance = try VulkanInstance()
      _ = try DeviceSelection.select(spec: nil, from: instance.physicalDevices)
      return nil
    } catch {
      precondition(!error.description.contains("\n"))
      return error
    }
  }

  @Test func aMissingLoaderIsOneClearLine() async {
    await #expect(processExitsWith: .success) {
      // Without a free descriptor no library can be opened, as if it were not there.
      var limit = rlimit(rlim_cur: 0, rlim_max: 0)
      precondition(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
      let error = LoaderTests.failure()
      precondition(error?.kind == .noLoader)
      precondition(error!.description.contains("libvulkan") && error!.description.contains("install"))
    }
  }

  @Test(.onDevice) func aMissingDriverIsOneClearLine() async {
    await #expect(processExitsWith: .success) {
      for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] { setenv(variable, "/nonexistent.json", 1) }
      let error = LoaderTests.failure()
      precondition(error?.kind == .noDevice)
      precondition(error!.description.contains("install"))
    }
  }

  @Test(.onDevice) func validationMessagesAreCounted() async {
    await #expect(processExitsWith: .success) {
      setenv("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation", 1)
      if let error = LoaderTests.failure() {
        // Not on this machine: then it must not look as if the layer had been silent.
        precondition(error.kind == .unsupported && error.description.contains("validation layer"))
        return
      }
      let instance = try VulkanInstance()
      let physical = try DeviceSelection.select(
        spec: TestDevice.environmentSpec, from: instance.physicalDevices)
      precondition(instance.validates && instance.validationMessageCount == 0)
      let device = try Device(instance: instance, physical: physical, pipelineCacheDirectory: nil)
      // A count that does not grow.
      let semaphore = try device.makeSemaphore()
      try semaphore.signal(2)
      _ = try? semaphore.signal(1)
      precondition(instance.validationMessageCount > 0)
    }
  }
}
