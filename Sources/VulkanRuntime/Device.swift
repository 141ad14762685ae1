import CVulkan
import Synchronization

/// How many pipelines were made, and how long that took; where several threads do it, the sum of theirs.
package struct PipelineWork: Sendable, Hashable {
  package var count = 0
  package var time = Duration.zero

  mutating func add(_ duration: Duration) {
    count += 1
    time += duration
  }
}

/// An opened device: its queues, and the maker of everything that lives on it.
///
/// What a device makes keeps the underlying Vulkan device alive, so objects may be released in any order.
/// The same physical device may be opened several times; the devices then share nothing.
package final class Device: Sendable {
  let context: DeviceContext
  let pipelineCache: PipelineCache
  let layouts: PipelineLayouts
  let capturesStatistics: Bool
  /// What the making of pipelines has taken so far.
  let pipelineWork = Mutex(PipelineWork())
  package var pipelinesMade: PipelineWork { pipelineWork.withLock { $0 } }

  package let computeQueue: Queue
  /// A queue that only copies, beside the compute queue's work; the compute queue itself where there is none.
  package let transferQueue: Queue
  /// A second one, for copies to the host, so that neither direction of the link waits for the other; the compute queue
  /// where there is none.
  package let returnQueue: Queue

  package var physical: PhysicalDevice { context.physical }
  package var capabilities: DeviceCapabilities { context.physical.capabilities }

  /// Opens `physical` with every optional feature that kernels may use.
  ///
  /// Compiled pipelines are kept in a file in `pipelineCacheDirectory` (nil: not kept); see `savePipelineCache()`.
  /// `captureStatistics` makes `executableStatistics(of:)` work where the driver can. `faults` makes allocations fail.
  package init(
    instance: VulkanInstance, physical: PhysicalDevice, pipelineCacheDirectory: String?,
    captureStatistics: Bool = false, faults: AllocationFaults? = nil
  ) throws(VulkanError) {
    precondition(physical.instance === instance.context, "a physical device of another instance")
    let context = try DeviceContext(physical: physical, faults: faults)
    self.context = context
    capturesStatistics = captureStatistics && physical.capabilities.pipelineExecutableProperties
    pipelineCache = try PipelineCache(context: context, directory: pipelineCacheDirectory)
    layouts = PipelineLayouts(context: context)
    computeQueue = try Queue(context: context, family: context.queueFamilies[0], computes: true)
    transferQueue =
      context.queueFamilies.count > 1
      ? try Queue(context: context, family: context.queueFamilies[1], computes: false) : computeQueue
    returnQueue =
      context.queueFamilies.count > 1 && physical.queueFamilies.transferQueueCount > 1
      ? try Queue(context: context, family: context.queueFamilies[1], index: 1, computes: false)
      : computeQueue
  }

  /// A buffer of `byteCount` bytes with memory of its own; its contents are undefined.
  ///
  /// `label` names it in errors. Throws `.outOfDeviceMemory` when it does not fit and `.unsupported` when it is
  /// larger than any buffer of this device.
  package func makeBuffer(byteCount: Int, memory: MemoryKind, label: String) throws(VulkanError) -> Buffer {
    // What finished submissions still hold may be the memory that is wanted.
    reclaim()
    return try Buffer(context: context, byteCount: byteCount, memory: memory, label: label)
  }

  /// A buffer that is `host` itself, as other devices' buffers may be: nothing is copied. Orders of reads and writes are
  /// the caller's.
  package func makeBuffer(importing host: HostMemory, label: String) throws(VulkanError) -> Buffer {
    try Buffer(
      context: context, byteCount: host.byteCount, memory: .upload, label: label, origin: .host(host))
  }

  /// A timeline semaphore with value 0.
  package func makeSemaphore() throws(VulkanError) -> TimelineSemaphore {
    try TimelineSemaphore(context: context)
  }

  /// A timeline semaphore with value 0 that other logical devices of the same physical device may share.
  package func makeSharedSemaphore() throws(VulkanError) -> TimelineSemaphore {
    try TimelineSemaphore(context: context, isShared: true)
  }

  /// The shared semaphore of another logical device of the same physical device.
  package func makeSemaphore(sharing source: TimelineSemaphore) throws(VulkanError) -> TimelineSemaphore {
    try TimelineSemaphore(context: context, sharing: source)
  }

  /// Whether `other` is a logical device of the same physical device, and they can share semaphores.
  package func canShareSemaphores(with other: Device) -> Bool {
    physical.handle == other.physical.handle && capabilities.sharesSemaphores
  }

  /// An empty command buffer for `queue`; `reusable` ones may be submitted many times, also while still running.
  package func makeCommandBuffer(queue: Queue, reusable: Bool) throws(VulkanError) -> CommandBuffer {
    precondition(queue.context === context, "a queue of another device")
    return try CommandBuffer(context: context, queue: queue, reusable: reusable)
  }

  /// Records commands for the compute queue and hands them over: they start after all before them.
  package func submit(_ record: (CommandBuffer) throws -> Void) throws {
    try computeQueue.submit([recordOnce(record)])
  }

  /// Records commands that the compute queue runs once.
  package func recordOnce(_ record: (CommandBuffer) throws -> Void) throws -> CommandBuffer {
    let commands = try makeCommandBuffer(queue: computeQueue, reusable: false)
    try commands.begin()
    try record(commands)
    try commands.end()
    return commands
  }

  /// The same, and waits until they are done.
  package func run(_ record: (CommandBuffer) throws -> Void) throws {
    try submit(record)
    try computeQueue.waitIdle()
  }

  /// `count` places for timestamps of the compute queue. Throws `.unsupported` where there are none.
  package func makeTimestampPool(count: Int) throws(VulkanError) -> TimestampPool {
    try TimestampPool(context: context, count: count)
  }

  /// Device-local bytes of this device's buffers.
  package var allocatedBytes: Int {
    reclaim()
    return context.allocatedBytes.now
  }

  /// The most that `allocatedBytes` has been.
  package var peakAllocatedBytes: Int { context.allocatedBytes.peak }

  /// The most bytes of the host's memory that this device's buffers have taken.
  package var peakHostBytes: Int { context.allocatedHostBytes.peak }

  /// Waits until every queue has done all its work.
  package func waitIdle() throws(VulkanError) {
    try computeQueue.waitIdle()
    if transferQueue !== computeQueue { try transferQueue.waitIdle() }
    if returnQueue !== computeQueue { try returnQueue.waitIdle() }
  }

  /// Lets go of what finished submissions held.
  private func reclaim() {
    computeQueue.reclaim()
    if transferQueue !== computeQueue { transferQueue.reclaim() }
    if returnQueue !== computeQueue { returnQueue.reclaim() }
  }
}
