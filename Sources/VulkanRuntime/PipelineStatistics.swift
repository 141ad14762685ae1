import CVulkan

extension Device {
  /// What the driver's compiler says of a pipeline (registers, spills, instructions: each driver has its own list).
  ///
  /// Empty unless the device was opened with `captureStatistics` and its driver has
  /// VK_KHR_pipeline_executable_properties.
  package func executableStatistics(
    of pipeline: Pipeline
  ) throws(VulkanError) -> [(executable: String, statistic: String, value: Double)] {
    guard capturesStatistics,
      let propertiesFunction = context.functions.pointee.vkGetPipelineExecutablePropertiesKHR,
      let statisticsFunction = context.functions.pointee.vkGetPipelineExecutableStatisticsKHR
    else { return [] }
    var info = VkPipelineInfoKHR()
    info.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR
    info.pipeline = pipeline.handle
    var blank = VkPipelineExecutablePropertiesKHR()
    blank.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR
    let (executables, result) = enumerate(blank) { count, elements in
      propertiesFunction(context.handle, &info, &count, elements)
    }
    try context.check(result, "vkGetPipelineExecutablePropertiesKHR", "kernel \(pipeline.name)")

    var all: [(executable: String, statistic: String, value: Double)] = []
    for (index, executable) in executables.enumerated() {
      var query = VkPipelineExecutableInfoKHR()
      query.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR
      query.pipeline = pipeline.handle
      query.executableIndex = UInt32(index)
      var blank = VkPipelineExecutableStatisticKHR()
      blank.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR
      let (statistics, result) = enumerate(blank) { count, elements in
        statisticsFunction(context.handle, &query, &count, elements)
      }
      try context.check(result, "vkGetPipelineExecutableStatisticsKHR", "kernel \(pipeline.name)")
      for statistic in statistics {
        let value =
          switch statistic.format {
          case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: Double(statistic.value.b32)
          case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR: Double(statistic.value.i64)
          case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR: Double(statistic.value.u64)
          default: statistic.value.f64
          }
        all.append((String(vulkanArray: executable.name), String(vulkanArray: statistic.name), value))
      }
    }
    return all
  }
}
