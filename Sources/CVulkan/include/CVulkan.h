// The Vulkan headers for Swift, and function tables that are filled at run time: nothing links against a
// Vulkan loader, so a machine without one gets an error line instead of a dynamic linker's complaint.
#ifndef CVULKAN_H
#define CVULKAN_H

#ifndef VK_NO_PROTOTYPES
#define VK_NO_PROTOTYPES
#endif
#include <vulkan/vulkan.h>

#include "newer_extensions.h"
#include "vulkan_functions.h"

#pragma clang assume_nonnull begin

#define VULKAN_REQUIRED_FIELD(name) PFN_##name name;
#define VULKAN_OPTIONAL_FIELD(name) PFN_##name _Nullable name;

/// Functions that need no instance.
struct VulkanGlobalFunctions {
  VULKAN_GLOBAL_FUNCTIONS(VULKAN_REQUIRED_FIELD)
};

/// Functions of an instance; those of extensions are null where the extension is not enabled.
struct VulkanInstanceFunctions {
  VULKAN_INSTANCE_FUNCTIONS(VULKAN_REQUIRED_FIELD)
  VULKAN_INSTANCE_EXTENSION_FUNCTIONS(VULKAN_OPTIONAL_FIELD)
};

/// Functions of a device, straight from the driver; those of extensions are null where not enabled.
struct VulkanDeviceFunctions {
  VULKAN_DEVICE_FUNCTIONS(VULKAN_REQUIRED_FIELD)
  VULKAN_DEVICE_EXTENSION_FUNCTIONS(VULKAN_OPTIONAL_FIELD)
};

#undef VULKAN_REQUIRED_FIELD
#undef VULKAN_OPTIONAL_FIELD

/// Opens libvulkan.so.1, for the life of the process.
/// Returns its vkGetInstanceProcAddr, or null with a reason that lives until this thread's next dl* call.
PFN_vkGetInstanceProcAddr _Nullable vulkan_open_loader(const char *_Nullable *_Nonnull reason);

/// Fills a table. Each returns null, or the name of the first required function that is missing
/// (the table must not be used then).
const char *_Nullable vulkan_load_global_functions(
    PFN_vkGetInstanceProcAddr get, struct VulkanGlobalFunctions *functions);
const char *_Nullable vulkan_load_instance_functions(
    PFN_vkGetInstanceProcAddr get, VkInstance instance, struct VulkanInstanceFunctions *functions);
const char *_Nullable vulkan_load_device_functions(
    PFN_vkGetDeviceProcAddr get, VkDevice device, struct VulkanDeviceFunctions *functions);

#pragma clang assume_nonnull end

#endif
