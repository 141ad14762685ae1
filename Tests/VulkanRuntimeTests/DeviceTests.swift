import Testing
import VulkanRuntime

@Suite(.onDevice)
struct DeviceTests {
  @Test func capabilitiesAreWhatVulkanGuarantees() throws {
    let device = try TestDevice.open()
    let capabilities = device.capabilities
    #expect(capabilities.subgroupSize.nonzeroBitCount == 1)
    #expect(capabilities.minSubgroupSize <= capabilities.subgroupSize)
    #expect(capabilities.subgroupSize <= capabilities.maxSubgroupSize)
    #expect(capabilities.maxWorkgroupInvocations >= 128)
    #expect(capabilities.maxSharedMemory >= 16384)
    #expect(capabilities.maxPushConstantBytes >= 128)
    #expect(capabilities.maxWorkgroupCount.allSatisfy { $0 >= 65535 })
    #expect(capabilities.maxAllocationBytes >= 1 << 30)
    #expect(device.physical.deviceMemory > 0)
    #expect(device.physical.uuid.count == 32)
    #expect(!device.physical.driverName.isEmpty)
    if let budget = device.physical.memoryBudget() { #expect(budget.budget > 0) }
  }

  @Test(arguments: [MemoryKind.upload, .download, .mappedDevice])
  func kernelReadsAndWritesThroughAddresses(_ kind: MemoryKind) throws {
    let device = try TestDevice.open()
    let count = 1000
    let source = try device.makeBuffer(byteCount: count * 4, memory: kind, label: "source")
    let local = try device.makeBuffer(byteCount: count * 4, memory: .device, label: "local")
    let result = try device.makeBuffer(byteCount: count * 4, memory: .download, label: "result")
    let pipeline = try device.scalePipeline(factor: 3)
    #expect(local.contents == nil)
    #expect(pipeline.workgroupSize == (64, 1, 1))
    source.write((0..<UInt32(count)).map { $0 &* 77 })
    try device.run { commands in
      commands.keepAlive([source, local])
      commands.dispatch(
        pipeline,
        pushConstants: ScaleConstants(
          source: source.address, destination: local.address, count: UInt32(count), addend: 5),
        groups: ((count + 63) / 64, 1, 1))
      commands.barrier()
      commands.copy(from: local, offset: 0, to: result, offset: 0, byteCount: count * 4)
    }
    #expect(result.words(count) == (0..<UInt32(count)).map { $0 &* 77 &* 3 &+ 5 })
  }

  @Test func specializationSetsWorkgroupAndConstants() throws {
    let device = try TestDevice.open()
    let buffer = try device.makeBuffer(byteCount: 256, memory: .download, label: "values")
    for (width, factor) in [(UInt32(1), UInt32(9)), (16, 2), (64, 0)] {
      let pipeline = try device.scalePipeline(width: width, factor: factor)
      #expect(pipeline.workgroupSize == (Int(width), 1, 1))
      buffer.write([UInt32](repeating: 7, count: 64))
      try device.run { commands in
        commands.keepAlive([buffer])
        commands.dispatch(
          pipeline,
          pushConstants: ScaleConstants(
            source: buffer.address, destination: buffer.address, count: 64, addend: 1),
          groups: (1, 1, 1))
      }
      let touched = [UInt32](repeating: 7 * factor + 1, count: Int(width))
      #expect(buffer.words(64) == touched + [UInt32](repeating: 7, count: 64 - Int(width)))
    }
  }

  @Test func subgroupSizeIsPinned() throws {
    let device = try TestDevice.open()
    let capabilities = device.capabilities
    var sizes = [capabilities.subgroupSize]
    if capabilities.canPinSubgroupSize {
      sizes += [capabilities.minSubgroupSize, capabilities.maxSubgroupSize]
    }
    let width = capabilities.maxSubgroupSize
    let buffer = try device.makeBuffer(byteCount: width * 4, memory: .download, label: "sizes")
    for size in sizes {
      let pipeline = try device.makePipeline(
        name: "subgroups", spirv: subgroupsKernel, specialization: [UInt32(width)], pushConstantBytes: 8,
        subgroupSize: size)
      try device.run { commands in
        commands.keepAlive([buffer])
        commands.dispatch(pipeline, pushConstants: buffer.address, groups: (1, 1, 1))
      }
      #expect(buffer.words(width) == [UInt32](repeating: UInt32(size), count: width))
    }
    for impossible in [0, 3, 1 << 20, -1] {
      #expect(throws: VulkanError.self) {
        try device.makePipeline(
          name: "subgroups", spirv: subgroupsKernel, specialization: [UInt32(width)], pushConstantBytes: 8,
          subgroupSize: impossible)
      }
    }
  }

  @Test func impossiblePipelinesAreErrors() throws {
    let device = try TestDevice.open()
    func kind(_ spirv: [UInt32], _ specialization: [UInt32], bytes: Int = 24) -> VulkanError.Kind? {
      do throws(VulkanError) {
        _ = try device.makePipeline(
          name: "impossible", spirv: spirv, specialization: specialization, pushConstantBytes: bytes,
          subgroupSize: nil)
        return nil
      } catch { return error.kind }
    }
    #expect(kind(scaleKernel, [64, 1]) == nil)
    #expect(kind([], [64, 1]) == .unsupported)
    #expect(kind(Array(scaleKernel.dropLast()), [64, 1]) == .unsupported)
    #expect(kind(scaleKernel, [60000, 1]) == .unsupported)
    #expect(kind(scaleKernel, [0, 1]) == .unsupported)
    #expect(kind(scaleKernel, [64, 1], bytes: 1 << 20) == .unsupported)
    #expect(kind(scaleKernel, [64, 1], bytes: 23) == .unsupported)
  }

  @Test func statisticsAreOnlyCapturedWhenAskedFor() throws {
    let plain = try TestDevice.open()
    #expect(try plain.executableStatistics(of: plain.scalePipeline(factor: 1)).isEmpty)
    let capturing = try TestDevice.open(captureStatistics: true)
    let statistics = try capturing.executableStatistics(of: capturing.scalePipeline(factor: 1))
    if !capturing.capabilities.pipelineExecutableProperties { #expect(statistics.isEmpty) }
    #expect(statistics.allSatisfy { !$0.statistic.isEmpty && $0.value.isFinite })
  }

  @Test func timestampsGrow() throws {
    let device = try TestDevice.open()
    guard device.capabilities.timestampBits > 0 else {
      #expect(throws: VulkanError.self) { try device.makeTimestampPool(count: 1) }
      return
    }
    let pool = try device.makeTimestampPool(count: 3)
    let buffer = try device.makeBuffer(byteCount: 1 << 20, memory: .device, label: "filled")
    try device.run { commands in
      commands.resetTimestamps(pool)
      for index in 0..<2 {
        commands.writeTimestamp(pool, index: index)
        commands.fill(buffer, offset: 0, byteCount: 1 << 20, value: 1)
        commands.barrier()
      }
    }
    let times = try pool.read(count: 2)
    #expect(times[0] == 0)
    #expect(times[1] >= 0 && times[1] < 60e9)
    // The third was not written.
    #expect(throws: VulkanError.self) { try pool.read() }
  }
}
