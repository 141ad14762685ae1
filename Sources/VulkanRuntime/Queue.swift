import CVulkan
import Synchronization

/// A queue of a device; submissions start in the order in which they were made.
package final class Queue: Sendable {
  let context: DeviceContext
  let family: UInt32
  /// Whether it runs dispatches, and not only copies.
  let computes: Bool
  nonisolated(unsafe) private let handle: VkQueue
  private let state = Mutex(State())

  private struct State: Sendable {
    var finished: TimelineSemaphore?
    var submissionCount: UInt64 = 0
    /// What the device may still be using, oldest first.
    var running: [Submission] = []
  }

  private struct Submission: Sendable {
    var number: UInt64
    var commandBuffers: [CommandBuffer]
    var semaphores: [TimelineSemaphore]
  }

  init(context: DeviceContext, family: UInt32, computes: Bool) throws(VulkanError) {
    var handle: VkQueue?
    context.functions.pointee.vkGetDeviceQueue(context.handle, family, 0, &handle)
    guard let handle else { throw VulkanError(VK_ERROR_UNKNOWN, "vkGetDeviceQueue", device: context.name) }
    self.context = context
    self.family = family
    self.computes = computes
    self.handle = handle
  }

  deinit {
    // What still runs uses objects that die with this one. An error (a lost device) leaves nothing running.
    try? waitIdle()
  }

  /// Counts finished submissions. Made when first asked for: a driver that only compiles, without hardware behind
  /// it, has no semaphores, and its devices can be opened to see what it makes of a kernel.
  func finished() throws(VulkanError) -> TimelineSemaphore {
    try state.withLock { state throws(VulkanError) in
      if let finished = state.finished { return finished }
      let finished = try TimelineSemaphore(context: context)
      state.finished = finished
      return finished
    }
  }

  /// Hands recorded commands to the device and returns at once. They start when every `wait` semaphore has got to
  /// its value; when they are done, and all before them on this queue, each `signal` semaphore is set.
  ///
  /// The queue holds command buffers and semaphores until the device is done with them.
  package func submit(
    _ commandBuffers: [CommandBuffer], wait: [(TimelineSemaphore, UInt64)] = [],
    signal: [(TimelineSemaphore, UInt64)] = []
  ) throws(VulkanError) {
    let finished = try finished()
    for commandBuffer in commandBuffers {
      guard commandBuffer.queueFinished === finished else {
        throw VulkanError(
          kind: .unsupported,
          description: "a command buffer made for another queue was submitted to \(context.name)")
      }
    }
    reclaim()
    let commands = commandBuffers.map { commandBuffer in
      var info = VkCommandBufferSubmitInfo()
      info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO
      info.commandBuffer = commandBuffer.handle
      return info
    }
    let waits = wait.map(Self.semaphoreInfo)
    let semaphores = wait.map(\.0) + signal.map(\.0)
    try state.withLock { state throws(VulkanError) in
      let number = state.submissionCount + 1
      for commandBuffer in commandBuffers { try commandBuffer.willSubmit(number) }
      let signals = signal.map(Self.semaphoreInfo) + [Self.semaphoreInfo(finished, number)]
      let result = waits.withUnsafeBufferPointer { waits in
        commands.withUnsafeBufferPointer { commands in
          signals.withUnsafeBufferPointer { signals in
            var info = VkSubmitInfo2()
            info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2
            info.waitSemaphoreInfoCount = UInt32(waits.count)
            info.pWaitSemaphoreInfos = waits.baseAddress
            info.commandBufferInfoCount = UInt32(commands.count)
            info.pCommandBufferInfos = commands.baseAddress
            info.signalSemaphoreInfoCount = UInt32(signals.count)
            info.pSignalSemaphoreInfos = signals.baseAddress
            return context.functions.pointee.vkQueueSubmit2(handle, 1, &info, nil)
          }
        }
      }
      try context.check(result, "vkQueueSubmit2")
      state.submissionCount = number
      state.running.append(
        Submission(number: number, commandBuffers: commandBuffers, semaphores: semaphores))
    }
  }

  /// Waits until all that was submitted is done.
  package func waitIdle() throws(VulkanError) {
    // Not vkQueueWaitIdle, during which no other thread may submit.
    let (finished, count) = state.withLock { ($0.finished, $0.submissionCount) }
    guard let finished else { return }
    _ = try finished.wait(for: count)
    reclaim()
  }

  /// Lets go of what finished submissions held.
  func reclaim() {
    // An error here is a lost device; the next submission or wait reports it.
    guard let finished = state.withLock(\.finished), let count = try? finished.value else { return }
    let done = state.withLock { state in
      let done = state.running.prefix { $0.number <= count }
      state.running.removeFirst(done.count)
      return Array(done)
    }
    // Released outside the lock, since this may free buffers.
    withExtendedLifetime(done) {}
  }

  private static func semaphoreInfo(_ semaphore: TimelineSemaphore, _ value: UInt64) -> VkSemaphoreSubmitInfo
  {
    var info = VkSemaphoreSubmitInfo()
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO
    info.semaphore = semaphore.handle
    info.value = value
    info.stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT
    return info
  }
}
