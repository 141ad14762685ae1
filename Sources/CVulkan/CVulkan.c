#include "CVulkan.h"

#include <dlfcn.h>
#include <stddef.h>

PFN_vkGetInstanceProcAddr _Nullable vulkan_open_loader(const char *_Nullable *_Nonnull reason) {
  void *library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    *reason = dlerror();
    return NULL;
  }
  PFN_vkGetInstanceProcAddr get = (PFN_vkGetInstanceProcAddr)dlsym(library, "vkGetInstanceProcAddr");
  *reason = get == NULL ? "libvulkan.so.1 has no vkGetInstanceProcAddr" : NULL;
  return get;
}

#define LOAD_REQUIRED(name) \
  PFN_##name name##_loaded = (PFN_##name)get(owner, #name); \
  if (name##_loaded == NULL) { \
    return #name; \
  } \
  functions->name = name##_loaded;

#define LOAD_OPTIONAL(name) functions->name = (PFN_##name)get(owner, #name);

const char *_Nullable vulkan_load_global_functions(
    PFN_vkGetInstanceProcAddr get, struct VulkanGlobalFunctions *functions) {
  VkInstance owner = NULL;
  VULKAN_GLOBAL_FUNCTIONS(LOAD_REQUIRED)
  return NULL;
}

const char *_Nullable vulkan_load_instance_functions(
    PFN_vkGetInstanceProcAddr get, VkInstance owner, struct VulkanInstanceFunctions *functions) {
  VULKAN_INSTANCE_FUNCTIONS(LOAD_REQUIRED)
  VULKAN_INSTANCE_EXTENSION_FUNCTIONS(LOAD_OPTIONAL)
  return NULL;
}

const char *_Nullable vulkan_load_device_functions(
    PFN_vkGetDeviceProcAddr get, VkDevice owner, struct VulkanDeviceFunctions *functions) {
  VULKAN_DEVICE_FUNCTIONS(LOAD_REQUIRED)
  VULKAN_DEVICE_EXTENSION_FUNCTIONS(LOAD_OPTIONAL)
  return NULL;
}
