import CVulkan
import Synchronization

/// Commands for one queue, recorded between `begin()` and `end()` and then submitted, once or (reusable) many times.
///
/// One thread at a time records; the recording itself never throws: the first thing wrong in it is thrown by `end()`.
/// Commands run in any order and at the same time unless a barrier separates them.
package final class CommandBuffer: @unchecked Sendable {
  private enum Phase {
    case empty, recording, recorded, submittedOnce
  }

  let context: DeviceContext
  let handle: VkCommandBuffer
  /// The queue's count of finished submissions; says which queue this buffer is for, too.
  let queueFinished: TimelineSemaphore
  private let computes: Bool
  private let reusable: Bool
  private let pool: VkCommandPool
  /// The phase and the number of the last submission: `Queue.submit` may be on another thread than the recording.
  private let state = Mutex((phase: Phase.empty, submission: UInt64(0)))
  private var failure: VulkanError?
  private var boundPipeline: Pipeline?
  private var used: [ObjectIdentifier: AnyObject] = [:]
  /// Called before and after each barrier on the device is recorded: for time stamps between dispatches that others record.
  package var onBarrier: (() -> Void)?

  init(context: DeviceContext, queue: Queue, reusable: Bool) throws(VulkanError) {
    queueFinished = try queue.finished()
    var poolInfo = VkCommandPoolCreateInfo()
    poolInfo.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO
    poolInfo.flags = reusable ? 0 : VK_COMMAND_POOL_CREATE_TRANSIENT_BIT.rawValue
    poolInfo.queueFamilyIndex = queue.family
    var pool: VkCommandPool?
    let functions = context.functions
    try context.check(
      functions.pointee.vkCreateCommandPool(context.handle, &poolInfo, nil, &pool), "vkCreateCommandPool")
    guard let pool else { throw VulkanError(VK_ERROR_UNKNOWN, "vkCreateCommandPool", device: context.name) }
    var info = VkCommandBufferAllocateInfo()
    info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO
    info.commandPool = pool
    info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY
    info.commandBufferCount = 1
    var allocated: VkCommandBuffer?
    let result = functions.pointee.vkAllocateCommandBuffers(context.handle, &info, &allocated)
    guard result == VK_SUCCESS, let allocated else {
      functions.pointee.vkDestroyCommandPool(context.handle, pool, nil)
      throw VulkanError(result, "vkAllocateCommandBuffers", device: context.name)
    }
    self.context = context
    self.pool = pool
    self.reusable = reusable
    handle = allocated
    computes = queue.computes
  }

  deinit {
    context.functions.pointee.vkDestroyCommandPool(context.handle, pool, nil)
  }

  /// Starts a recording and forgets the one before; waits until the device has finished that.
  package func begin() throws(VulkanError) {
    let submission = state.withLock { $0.submission }
    if submission > 0 { _ = try queueFinished.wait(for: submission) }
    try context.check(
      context.functions.pointee.vkResetCommandPool(context.handle, pool, 0), "vkResetCommandPool")
    failure = nil
    boundPipeline = nil
    used.removeAll(keepingCapacity: true)
    var info = VkCommandBufferBeginInfo()
    info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO
    info.flags =
      reusable
      ? VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT.rawValue
      : VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT.rawValue
    try context.check(context.functions.pointee.vkBeginCommandBuffer(handle, &info), "vkBeginCommandBuffer")
    state.withLock { $0.phase = .recording }
  }

  /// Ends the recording. Throws the first thing that was wrong in it; the buffer then cannot be submitted.
  package func end() throws(VulkanError) {
    guard state.withLock({ $0.phase }) == .recording else {
      throw VulkanError(
        kind: .unsupported, description: "end() of a command buffer that is not being recorded")
    }
    state.withLock { $0.phase = .empty }
    try context.check(context.functions.pointee.vkEndCommandBuffer(handle), "vkEndCommandBuffer")
    if let failure { throw failure }
    state.withLock { $0.phase = .recorded }
  }

  /// Notes that submission `number` of its queue runs it. Throws unless it may be submitted.
  func willSubmit(_ number: UInt64) throws(VulkanError) {
    let phase = state.withLock { state in
      let phase = state.phase
      if phase == .recorded {
        state.submission = number
        if !reusable { state.phase = .submittedOnce }
      }
      return phase
    }
    guard phase == .recorded else {
      throw VulkanError(
        kind: .unsupported,
        description: phase == .submittedOnce
          ? "a command buffer that is not reusable was submitted twice"
          : "a command buffer was submitted before its recording ended well")
    }
  }

  /// Keeps `buffers` alive as long as this recording: for those that kernels reach only by address.
  package func keepAlive(_ buffers: [Buffer]) {
    for buffer in buffers { used[ObjectIdentifier(buffer)] = buffer }
  }

  /// The pipelines of this recording.
  package var usedPipelines: [Pipeline] { used.values.compactMap { $0 as? Pipeline } }

  // MARK: Commands

  /// Runs `groups` workgroups of `pipeline` with `pushConstants`, whose size must be the pipeline's.
  package func dispatch<Constants: BitwiseCopyable>(
    _ pipeline: Pipeline, pushConstants: Constants, groups: (Int, Int, Int)
  ) {
    guard record(computes, "a dispatch of \(pipeline.name) on a queue that only copies") else { return }
    let limits = context.physical.capabilities.maxWorkgroupCount
    guard
      record(
        groups.0 > 0 && groups.1 > 0 && groups.2 > 0 && groups.0 <= limits[0] && groups.1 <= limits[1]
          && groups.2 <= limits[2],
        "\(groups) workgroups of \(pipeline.name), where 1 to \(limits) are possible"),
      record(
        MemoryLayout<Constants>.size == pipeline.pushConstantBytes,
        "\(MemoryLayout<Constants>.size) bytes of push constants for \(pipeline.name), "
          + "which takes \(pipeline.pushConstantBytes)")
    else { return }
    if boundPipeline !== pipeline {
      context.functions.pointee.vkCmdBindPipeline(handle, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.handle)
      boundPipeline = pipeline
      used[ObjectIdentifier(pipeline)] = pipeline
    }
    withUnsafeBytes(of: pushConstants) { bytes in
      context.functions.pointee.vkCmdPushConstants(
        handle, pipeline.layout.handle, VK_SHADER_STAGE_COMPUTE_BIT.rawValue, 0, UInt32(bytes.count),
        bytes.baseAddress)
    }
    context.functions.pointee.vkCmdDispatch(handle, UInt32(groups.0), UInt32(groups.1), UInt32(groups.2))
  }

  /// Everything before it (dispatches, copies, fills, the host's writes) is done and seen by everything after it.
  package func barrier() {
    onBarrier?()
    defer { onBarrier?() }
    let stages = deviceStages
    let reads = VK_ACCESS_2_TRANSFER_READ_BIT | (computes ? VK_ACCESS_2_SHADER_READ_BIT : 0)
    recordBarrier(
      from: (stages | VK_PIPELINE_STAGE_2_HOST_BIT, deviceWrites | VK_ACCESS_2_HOST_WRITE_BIT),
      to: (stages, deviceWrites | reads))
  }

  /// Orders dispatches before it before dispatches after it, and nothing else: the cheapest barrier there is.
  package func dispatchBarrier() {
    onBarrier?()
    defer { onBarrier?() }
    recordBarrier(
      from: (VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT, VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT),
      to: (
        VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT,
        VK_ACCESS_2_SHADER_STORAGE_READ_BIT | VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT
      ))
  }

  /// Makes the device's writes before it visible to the host, once a semaphore signalled after it has been waited for.
  package func barrierToHost() {
    recordBarrier(
      from: (deviceStages, deviceWrites), to: (VK_PIPELINE_STAGE_2_HOST_BIT, VK_ACCESS_2_HOST_READ_BIT))
  }

  /// Orders all before it before all after it, also what other devices write to memory that they share with this one,
  /// and what they read there.
  package func deviceBarrier() {
    onBarrier?()
    defer { onBarrier?() }
    let all = (
      deviceStages | VK_PIPELINE_STAGE_2_HOST_BIT,
      VK_ACCESS_2_MEMORY_READ_BIT | VK_ACCESS_2_MEMORY_WRITE_BIT
    )
    recordBarrier(from: all, to: all)
  }

  /// Copies `byteCount` bytes between buffers, or between parts of one that do not overlap.
  package func copy(
    from source: Buffer, offset sourceOffset: Int, to destination: Buffer, offset destinationOffset: Int,
    byteCount: Int
  ) {
    guard
      record(
        source.contains(offset: sourceOffset, byteCount: byteCount)
          && destination.contains(offset: destinationOffset, byteCount: byteCount),
        "a copy of \(byteCount) bytes from \(source.label) at \(sourceOffset) to \(destination.label) "
          + "at \(destinationOffset), beyond their ends")
    else { return }
    guard byteCount > 0 else { return }
    keepAlive([source, destination])
    var region = VkBufferCopy()
    region.srcOffset = UInt64(sourceOffset)
    region.dstOffset = UInt64(destinationOffset)
    region.size = UInt64(byteCount)
    context.functions.pointee.vkCmdCopyBuffer(handle, source.handle, destination.handle, 1, &region)
  }

  /// Copies ranges of bytes to the same places of another buffer.
  package func copy(from source: Buffer, to destination: Buffer, ranges: [Range<Int>]) {
    guard
      record(
        source !== destination
          && ranges.allSatisfy { range in
            !range.isEmpty && source.contains(offset: range.lowerBound, byteCount: range.count)
              && destination.contains(offset: range.lowerBound, byteCount: range.count)
          },
        "a copy of \(ranges.count) ranges from \(source.label) to \(destination.label), beyond their ends")
    else { return }
    guard !ranges.isEmpty else { return }
    keepAlive([source, destination])
    let regions = ranges.map { range in
      VkBufferCopy(
        srcOffset: UInt64(range.lowerBound), dstOffset: UInt64(range.lowerBound), size: UInt64(range.count))
    }
    context.functions.pointee.vkCmdCopyBuffer(
      handle, source.handle, destination.handle, UInt32(regions.count), regions)
  }

  /// Fills part of a buffer with a 32-bit value; `offset` and `byteCount` are multiples of 4.
  package func fill(_ buffer: Buffer, offset: Int, byteCount: Int, value: UInt32) {
    guard
      record(
        buffer.contains(offset: offset, byteCount: byteCount) && offset % 4 == 0 && byteCount % 4 == 0,
        "a fill of \(byteCount) bytes of \(buffer.label) at \(offset): beyond its end, or not whole 32-bit words"
      )
    else { return }
    guard byteCount > 0 else { return }
    keepAlive([buffer])
    context.functions.pointee.vkCmdFillBuffer(handle, buffer.handle, UInt64(offset), UInt64(byteCount), value)
  }

  /// Writes the device's clock to place `index` of `pool` when all before it is done.
  package func writeTimestamp(_ pool: TimestampPool, index: Int) {
    guard
      record(
        computes && index >= 0 && index < pool.count,
        "timestamp \(index) of a pool of \(pool.count) for the compute queue")
    else { return }
    used[ObjectIdentifier(pool)] = pool
    context.functions.pointee.vkCmdWriteTimestamp2(
      handle, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT, pool.handle, UInt32(index))
  }

  /// Empties every place of `pool`; needed before each round of writes.
  package func resetTimestamps(_ pool: TimestampPool) {
    guard record(computes, "a reset of timestamps on a queue that only copies") else { return }
    used[ObjectIdentifier(pool)] = pool
    context.functions.pointee.vkCmdResetQueryPool(handle, pool.handle, 0, UInt32(pool.count))
  }

  /// Copies some timestamps of `pool` to the same places in a buffer, as ticks of 64 bits, when they are written: for steps
  /// that others follow, since drivers may wait for all work of a device before a pool is read.
  package func copyTimestamps(_ pool: TimestampPool, _ range: Range<Int>, to buffer: Buffer) {
    guard
      record(
        computes && range.upperBound <= pool.count
          && buffer.contains(offset: 8 * range.lowerBound, byteCount: 8 * range.count),
        "a copy of timestamps \(range) of a pool of \(pool.count) to \(buffer.label)")
    else { return }
    guard !range.isEmpty else { return }
    used[ObjectIdentifier(pool)] = pool
    keepAlive([buffer])
    context.functions.pointee.vkCmdCopyQueryPoolResults(
      handle, pool.handle, UInt32(range.lowerBound), UInt32(range.count), buffer.handle,
      UInt64(8 * range.lowerBound), 8,
      VkQueryResultFlags(VK_QUERY_RESULT_64_BIT.rawValue | VK_QUERY_RESULT_WAIT_BIT.rawValue))
  }

  // MARK: -

  private var deviceStages: VkPipelineStageFlags2 {
    VK_PIPELINE_STAGE_2_ALL_TRANSFER_BIT | (computes ? VK_PIPELINE_STAGE_2_COMPUTE_SHADER_BIT : 0)
  }

  private var deviceWrites: VkAccessFlags2 {
    VK_ACCESS_2_TRANSFER_WRITE_BIT | (computes ? VK_ACCESS_2_SHADER_WRITE_BIT : 0)
  }

  private func recordBarrier(
    from source: (VkPipelineStageFlags2, VkAccessFlags2),
    to destination: (VkPipelineStageFlags2, VkAccessFlags2)
  ) {
    guard record(true, "a barrier") else { return }
    var barrier = VkMemoryBarrier2()
    barrier.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER_2
    barrier.srcStageMask = source.0
    barrier.srcAccessMask = source.1
    barrier.dstStageMask = destination.0
    barrier.dstAccessMask = destination.1
    withUnsafePointer(to: barrier) { barrier in
      var info = VkDependencyInfo()
      info.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO
      info.memoryBarrierCount = 1
      info.pMemoryBarriers = barrier
      context.functions.pointee.vkCmdPipelineBarrier2(handle, &info)
    }
  }

  /// Whether a command may be recorded: if not, the recording has failed, and `end()` says why.
  private func record(_ allowed: Bool, _ what: @autoclosure () -> String) -> Bool {
    guard failure == nil else { return false }
    let recording = state.withLock { $0.phase } == .recording
    if recording && allowed { return true }
    failure = VulkanError(
      kind: .unsupported,
      description: "cannot record \(what()) on \(context.name)"
        + (recording ? "" : ": begin() was not called"))
    return false
  }
}

extension Buffer {
  /// Whether `byteCount` bytes from `offset` on lie in it.
  func contains(offset: Int, byteCount: Int) -> Bool {
    // Its memory is whole 16-byte words, so that 4-byte fills may cover the last bytes.
    offset >= 0 && byteCount >= 0 && offset <= paddedByteCount && byteCount <= paddedByteCount - offset
  }

  private var paddedByteCount: Int { (byteCount + 15) & ~15 }
}
