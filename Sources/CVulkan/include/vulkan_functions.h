// The Vulkan functions in use, a list for each level; CVulkan.h makes struct fields of them and CVulkan.c
// fills those.
#ifndef VULKAN_FUNCTIONS_H
#define VULKAN_FUNCTIONS_H

#define VULKAN_GLOBAL_FUNCTIONS(X) \
  X(vkCreateInstance) \
  X(vkEnumerateInstanceLayerProperties)

#define VULKAN_INSTANCE_FUNCTIONS(X) \
  X(vkDestroyInstance) \
  X(vkEnumeratePhysicalDevices) \
  X(vkGetPhysicalDeviceProperties2) \
  X(vkGetPhysicalDeviceFeatures2) \
  X(vkGetPhysicalDeviceMemoryProperties2) \
  X(vkGetPhysicalDeviceQueueFamilyProperties2) \
  X(vkGetPhysicalDeviceExternalSemaphoreProperties) \
  X(vkGetPhysicalDeviceExternalBufferProperties) \
  X(vkEnumerateDeviceExtensionProperties) \
  X(vkCreateDevice) \
  X(vkGetDeviceProcAddr)

#define VULKAN_INSTANCE_EXTENSION_FUNCTIONS(X) \
  X(vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR) \
  X(vkCreateDebugUtilsMessengerEXT) \
  X(vkDestroyDebugUtilsMessengerEXT)

#define VULKAN_DEVICE_FUNCTIONS(X) \
  X(vkDestroyDevice) \
  X(vkGetDeviceQueue) \
  X(vkQueueSubmit2) \
  X(vkQueueWaitIdle) \
  X(vkAllocateMemory) \
  X(vkFreeMemory) \
  X(vkMapMemory) \
  X(vkCreateBuffer) \
  X(vkDestroyBuffer) \
  X(vkGetBufferMemoryRequirements) \
  X(vkBindBufferMemory) \
  X(vkGetBufferDeviceAddress) \
  X(vkCreateShaderModule) \
  X(vkDestroyShaderModule) \
  X(vkCreatePipelineLayout) \
  X(vkDestroyPipelineLayout) \
  X(vkCreateComputePipelines) \
  X(vkDestroyPipeline) \
  X(vkCreatePipelineCache) \
  X(vkDestroyPipelineCache) \
  X(vkGetPipelineCacheData) \
  X(vkCreateSemaphore) \
  X(vkDestroySemaphore) \
  X(vkGetSemaphoreCounterValue) \
  X(vkWaitSemaphores) \
  X(vkSignalSemaphore) \
  X(vkCreateQueryPool) \
  X(vkDestroyQueryPool) \
  X(vkGetQueryPoolResults) \
  X(vkCreateCommandPool) \
  X(vkDestroyCommandPool) \
  X(vkResetCommandPool) \
  X(vkAllocateCommandBuffers) \
  X(vkBeginCommandBuffer) \
  X(vkEndCommandBuffer) \
  X(vkCmdBindPipeline) \
  X(vkCmdPushConstants) \
  X(vkCmdDispatch) \
  X(vkCmdPipelineBarrier2) \
  X(vkCmdCopyBuffer) \
  X(vkCmdFillBuffer) \
  X(vkCmdResetQueryPool) \
  X(vkCmdCopyQueryPoolResults) \
  X(vkCmdWriteTimestamp2)

#define VULKAN_DEVICE_EXTENSION_FUNCTIONS(X) \
  X(vkGetMemoryHostPointerPropertiesEXT) \
  X(vkGetMemoryFdKHR) \
  X(vkGetMemoryFdPropertiesKHR) \
  X(vkGetSemaphoreFdKHR) \
  X(vkImportSemaphoreFdKHR) \
  X(vkSetDebugUtilsObjectNameEXT) \
  X(vkGetPipelineExecutablePropertiesKHR) \
  X(vkGetPipelineExecutableStatisticsKHR)

#endif
