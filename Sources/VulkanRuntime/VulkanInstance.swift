import CVulkan
import Glibc
import Synchronization

/// The version of Vulkan that this runtime is written for.
let requiredAPIVersion: UInt32 = 1 << 22 | 3 << 12

/// A connection to the machine's Vulkan loader and its drivers.
package final class VulkanInstance: Sendable {
  let context: InstanceContext

  /// Every device of every driver, in the loader's order; also those that this runtime cannot use.
  package let physicalDevices: [PhysicalDevice]

  /// Opens the loader and asks each driver for its devices.
  ///
  /// Throws `.noLoader` without libvulkan.so.1 and `.noDevice` where there is no driver at all.
  package init(applicationName: String = "vkinfer") throws(VulkanError) {
    let context = try InstanceContext(applicationName: applicationName)
    let (handles, result) = enumerate(OpaquePointer?.none) { count, elements in
      context.functions.pointee.vkEnumeratePhysicalDevices(context.handle, &count, elements)
    }
    try VulkanError.check(result, "vkEnumeratePhysicalDevices", device: nil)
    self.context = context
    physicalDevices = handles.compactMap { $0 }.enumerated().map { index, handle in
      PhysicalDevice(index: index, handle: handle, instance: context)
    }
  }

  /// Warnings and errors of a validation layer so far; they are also printed to standard error.
  /// Always 0 when no validation layer was asked for through the environment (VK_INSTANCE_LAYERS,
  /// VK_LOADER_LAYERS_ENABLE).
  package var validationMessageCount: Int { context.messages.count.load(ordering: .relaxed) }

  /// Whether a validation layer was asked for through the environment.
  package var validates: Bool { context.validates }
}

/// Counts what the validation layer says.
final class ValidationMessages: Sendable {
  let count = Atomic<Int>(0)
}

/// The VkInstance with its functions; lives as long as anything made from it.
final class InstanceContext: Sendable {
  nonisolated(unsafe) let handle: VkInstance
  nonisolated(unsafe) let functions: UnsafeMutablePointer<VulkanInstanceFunctions>
  nonisolated(unsafe) private let messenger: VkDebugUtilsMessengerEXT?
  let messages: ValidationMessages
  let validates: Bool
  /// The Vulkan version of the validation layer that looks on; nil if none does.
  let validationLayerVersion: UInt32?

  init(applicationName: String) throws(VulkanError) {
    let getProcAddress = try Self.openLoader()
    let global = UnsafeMutablePointer<VulkanGlobalFunctions>.allocate(capacity: 1)
    defer { global.deallocate() }
    if let missing = vulkan_load_global_functions(getProcAddress, global) {
      throw VulkanError(
        kind: .noLoader,
        description: "libvulkan.so.1 lacks \(String(cString: missing)); install a newer libvulkan1")
    }

    let messages = ValidationMessages()
    let validates = Self.validationIsAskedFor()
    let validationLayerVersion = validates ? Self.validationLayerVersion(global) : nil
    // The loader passes over a layer that it does not find, and the silence would be taken for praise.
    if validates, validationLayerVersion == nil {
      throw VulkanError(
        kind: .unsupported,
        description: "the environment asks for a Vulkan validation layer and none is installed; "
          + "install vulkan-validationlayers, or unset VK_INSTANCE_LAYERS and VK_LOADER_LAYERS_ENABLE")
    }
    var created: VkInstance?
    let result = Self.create(
      applicationName: applicationName, messenger: validates ? Self.messengerInfo(messages) : nil,
      create: global.pointee.vkCreateInstance, instance: &created)
    try VulkanError.check(result, "vkCreateInstance", device: nil)
    guard let handle = created else {
      throw VulkanError(VK_ERROR_INITIALIZATION_FAILED, "vkCreateInstance", device: nil)
    }

    let functions = UnsafeMutablePointer<VulkanInstanceFunctions>.allocate(capacity: 1)
    if let missing = vulkan_load_instance_functions(getProcAddress, handle, functions) {
      functions.deallocate()
      throw VulkanError(
        kind: .unsupported,
        description: "the Vulkan loader lacks \(String(cString: missing)); install a newer libvulkan1")
    }
    var messenger: VkDebugUtilsMessengerEXT?
    if validates, let createMessenger = functions.pointee.vkCreateDebugUtilsMessengerEXT {
      var info = Self.messengerInfo(messages)
      let result = createMessenger(handle, &info, nil, &messenger)
      guard result == VK_SUCCESS else {
        functions.pointee.vkDestroyInstance(handle, nil)
        functions.deallocate()
        throw VulkanError(result, "vkCreateDebugUtilsMessengerEXT", device: nil)
      }
    }
    self.handle = handle
    self.functions = functions
    self.messenger = messenger
    self.messages = messages
    self.validates = validates
    self.validationLayerVersion = validationLayerVersion
  }

  deinit {
    if let messenger { functions.pointee.vkDestroyDebugUtilsMessengerEXT?(handle, messenger, nil) }
    functions.pointee.vkDestroyInstance(handle, nil)
    functions.deallocate()
  }

  private static func openLoader() throws(VulkanError) -> PFN_vkGetInstanceProcAddr {
    var reason: UnsafePointer<CChar>?
    guard let getProcAddress = vulkan_open_loader(&reason) else {
      let why = reason.map { String(cString: $0) } ?? "unknown reason"
      throw VulkanError(
        kind: .noLoader,
        description:
          "no Vulkan loader on this machine (\(why)); install libvulkan1 and the GPU's Vulkan driver")
    }
    return getProcAddress
  }

  private static func validationIsAskedFor() -> Bool {
    ["VK_INSTANCE_LAYERS", "VK_LOADER_LAYERS_ENABLE"].contains { variable in
      guard let value = getenv(variable) else { return false }
      return String(cString: value).lowercased().contains("validation")
    }
  }

  /// The Vulkan version of the installed validation layer; nil if there is none.
  private static func validationLayerVersion(_ global: UnsafeMutablePointer<VulkanGlobalFunctions>) -> UInt32?
  {
    enumerate(VkLayerProperties()) { count, elements in
      global.pointee.vkEnumerateInstanceLayerProperties(&count, elements)
    }.elements.first { String(vulkanArray: $0.layerName).lowercased().contains("validation") }?.specVersion
  }

  private static func create(
    applicationName: String, messenger: VkDebugUtilsMessengerCreateInfoEXT?,
    create: (
      UnsafePointer<VkInstanceCreateInfo>?, UnsafePointer<VkAllocationCallbacks>?,
      UnsafeMutablePointer<VkInstance?>?
    ) -> VkResult,
    instance: inout VkInstance?
  ) -> VkResult {
    let chain = StructureChain()
    // Chained to the instance too, the messenger also hears of the instance's own creation and destruction.
    if let messenger { chain.append(messenger) }
    return applicationName.withCString { name in
      VK_EXT_DEBUG_UTILS_EXTENSION_NAME.withCString { debugUtils in
        var application = VkApplicationInfo()
        application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO
        application.pApplicationName = name
        application.pEngineName = name
        application.apiVersion = requiredAPIVersion
        return withUnsafePointer(to: application) { application in
          withUnsafePointer(to: UnsafePointer?.some(debugUtils)) { extensions in
            var info = VkInstanceCreateInfo()
            info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO
            info.pNext = UnsafeRawPointer(chain.head)
            info.pApplicationInfo = application
            info.enabledExtensionCount = messenger == nil ? 0 : 1
            info.ppEnabledExtensionNames = extensions
            return withExtendedLifetime(chain) { create(&info, nil, &instance) }
          }
        }
      }
    }
  }

  private static func messengerInfo(_ messages: ValidationMessages) -> VkDebugUtilsMessengerCreateInfoEXT {
    var info = VkDebugUtilsMessengerCreateInfoEXT()
    info.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT
    info.messageSeverity =
      VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT.rawValue
      | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT.rawValue
    info.messageType =
      VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT.rawValue
      | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT.rawValue
    // Not retained: the context owns the counter and outlives the messenger.
    info.pUserData = Unmanaged.passUnretained(messages).toOpaque()
    info.pfnUserCallback = { _, _, data, user in
      if let user {
        Unmanaged<ValidationMessages>.fromOpaque(user).takeUnretainedValue().count.add(1, ordering: .relaxed)
      }
      if let message = data?.pointee.pMessage {
        let line = "vulkan validation: \(String(cString: message))\n"
        _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
      }
      return VkBool32(VK_FALSE)
    }
    return info
  }
}
