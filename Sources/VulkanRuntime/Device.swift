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
/// The same physical device may be opened several times; the devices then share nothing, unless `open` opens them
/// together.
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
  package convenience init(
    instance: VulkanInstance, physical: PhysicalDevice, pipelineCacheDirectory: String?,
    captureStatistics: Bool = false, faults: AllocationFaults? = nil
  ) throws(VulkanError) {
    precondition(physical.instance === instance.context, "a physical device of another instance")
    guard let vulkan = try VulkanDevice(physical: physical, deviceCount: 1) else {
      preconditionFailure("one device has queues wherever there are any")
    }
    let context = DeviceContext(vulkan, faults: faults)
    try self.init(
      context, queues: vulkan.queues[0],
      pipelineCache: try PipelineCache(context: context, directory: pipelineCacheDirectory),
      captureStatistics: captureStatistics)
  }

  private init(
    _ context: DeviceContext, queues: DeviceQueues, pipelineCache: PipelineCache, captureStatistics: Bool
  ) throws(VulkanError) {
    self.context = context
    self.pipelineCache = pipelineCache
    capturesStatistics = captureStatistics && context.physical.capabilities.pipelineExecutableProperties
    layouts = PipelineLayouts(context: context)
    computeQueue = try Queue(context: context, place: queues.compute, computes: true)
    transferQueue =
      if let place = queues.transfer {
        try Queue(context: context, place: place, computes: false)
      } else { computeQueue }
    returnQueue =
      if let place = queues.returning {
        try Queue(context: context, place: place, computes: false)
      } else { computeQueue }
  }

  /// Opens a logical device for each of `physicals`, among which the same one may be several times.
  ///
  /// Those of one physical device have a VkDevice in common, and the compiled pipelines, where that has compute queues
  /// for all of them that run at the same time (`runsBeside`); else they share nothing. Memory is counted for each.
  package static func open(
    instance: VulkanInstance, physicals: [PhysicalDevice], pipelineCacheDirectory: String?,
    faults: AllocationFaults? = nil
  ) throws(VulkanError) -> [Device] {
    var opened: [VkPhysicalDevice: [Device]] = [:]
    for physical in physicals where opened[physical.handle] == nil {
      precondition(physical.instance === instance.context, "a physical device of another instance")
      let count = physicals.count { $0.handle == physical.handle }
      var devices: [Device] = []
      if count > 1, let vulkan = try VulkanDevice(physical: physical, deviceCount: count) {
        for queues in vulkan.queues {
          let context = DeviceContext(vulkan, faults: faults)
          let cache =
            if let first = devices.first {
              first.pipelineCache
            } else { try PipelineCache(context: context, directory: pipelineCacheDirectory) }
          devices.append(
            try Device(context, queues: queues, pipelineCache: cache, captureStatistics: false))
        }
      } else {
        for _ in 0..<count {
          devices.append(
            try Device(
              instance: instance, physical: physical, pipelineCacheDirectory: pipelineCacheDirectory,
              faults: faults))
        }
      }
      opened[physical.handle] = devices
    }
    return physicals.map { opened[$0.handle]!.removeFirst() }
  }

  /// Whether both have a VkDevice in common: buffers and semaphores of one are the other's, too.
  package func isSibling(of other: Device) -> Bool { context.vulkan === other.context.vulkan }

  /// Whether kernels of both can run at the same time: they are of several physical devices, or of queues of one VkDevice
  /// that were chosen so. Logical devices of one GPU that are not siblings take turns.
  package func runsBeside(_ other: Device) -> Bool {
    isSibling(of: other) || !physical.isSame(as: other.physical)
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

  /// A timeline semaphore with value 0 that `others` may share (`canShareSemaphores`).
  package func makeSemaphore(sharedWith others: [Device]) throws(VulkanError) -> TimelineSemaphore {
    try TimelineSemaphore(context: context, isExported: !others.allSatisfy(isSibling))
  }

  /// The semaphore of another logical device of the same physical device, which made it to be shared.
  package func makeSemaphore(sharing source: TimelineSemaphore) throws(VulkanError) -> TimelineSemaphore {
    if source.context.vulkan === context.vulkan { return source }
    return try TimelineSemaphore(context: context, sharing: source)
  }

  /// Whether `other` is a logical device of the same physical device, and they can share semaphores.
  package func canShareSemaphores(with other: Device) -> Bool {
    isSibling(of: other) || (physical.handle == other.physical.handle && capabilities.sharesSemaphores)
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
