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
    /// Those of the last submission that is done: queue threads of Mesa look at them once more after they have set them.
    var lastSemaphores: [TimelineSemaphore] = []
  }

  private struct Submission: Sendable {
    var number: UInt64
    var commandBuffers: [CommandBuffer]
    var semaphores: [TimelineSemaphore]
  }

  /// - Parameter place: one of the queues that the device was made with, which no other `Queue` has.
  init(context: DeviceContext, place: QueuePlace, computes: Bool) throws(VulkanError) {
    var handle: VkQueue?
    context.functions.pointee.vkGetDeviceQueue(context.handle, place.family, place.index, &handle)
    guard let handle else { throw VulkanError(VK_ERROR_UNKNOWN, "vkGetDeviceQueue", device: context.name) }
    self.context = context
    family = place.family
    self.computes = computes
    self.handle = handle
  }

  deinit {
    // What still runs uses objects that die with this one. An error (a lost device) leaves nothing running.
    try? waitIdle()
    // Mesa's queue threads look at semaphores once more after they have set them: see `lastSemaphores`.
    if state.withLock({ $0.finished != nil }) { _ = context.functions.pointee.vkQueueWaitIdle(handle) }
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
    try submit([Batch(commandBuffers: commandBuffers, wait: wait, signal: signal)])
  }

  /// Commands with what they wait for and set.
  package struct Batch: Sendable {
    package var commandBuffers: [CommandBuffer]
    package var wait: [(TimelineSemaphore, UInt64)]
    package var signal: [(TimelineSemaphore, UInt64)]

    package init(
      commandBuffers: [CommandBuffer], wait: [(TimelineSemaphore, UInt64)],
      signal: [(TimelineSemaphore, UInt64)]
    ) {
      self.commandBuffers = commandBuffers
      self.wait = wait
      self.signal = signal
    }
  }

  /// Hands several batches over in one call; they start in order, each when what it waits for has come.
  package func submit(_ batches: [Batch]) throws(VulkanError) {
    let finished = try finished()
    let commandBuffers = batches.flatMap(\.commandBuffers)
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
    let waits = batches.flatMap { $0.wait.map(Self.semaphoreInfo) }
    let semaphores = batches.flatMap { $0.wait.map(\.0) + $0.signal.map(\.0) }
    try state.withLock { state throws(VulkanError) in
      let number = state.submissionCount + 1
      for commandBuffer in commandBuffers { try commandBuffer.willSubmit(number) }
      let signals =
        batches.flatMap { $0.signal.map(Self.semaphoreInfo) } + [Self.semaphoreInfo(finished, number)]
      let result = waits.withUnsafeBufferPointer { waits in
        commands.withUnsafeBufferPointer { commands in
          signals.withUnsafeBufferPointer { signals in
            var (firstWait, firstCommand, firstSignal) = (0, 0, 0)
            let infos = batches.indices.map { index in
              let batch = batches[index]
              var info = VkSubmitInfo2()
              info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2
              info.waitSemaphoreInfoCount = UInt32(batch.wait.count)
              info.pWaitSemaphoreInfos = waits.baseAddress.map { $0 + firstWait }
              info.commandBufferInfoCount = UInt32(batch.commandBuffers.count)
              info.pCommandBufferInfos = commands.baseAddress.map { $0 + firstCommand }
              // The queue's own count is the last batch's.
              let signalCount = batch.signal.count + (index == batches.count - 1 ? 1 : 0)
              info.signalSemaphoreInfoCount = UInt32(signalCount)
              info.pSignalSemaphoreInfos = signals.baseAddress.map { $0 + firstSignal }
              firstWait += batch.wait.count
              firstCommand += batch.commandBuffers.count
              firstSignal += signalCount
              return info
            }
            return infos.withUnsafeBufferPointer { infos in
              context.functions.pointee.vkQueueSubmit2(handle, UInt32(infos.count), infos.baseAddress, nil)
            }
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
      let done = Array(state.running.prefix { $0.number <= count })
      state.running.removeFirst(done.count)
      let semaphores = state.lastSemaphores
      if let last = done.last { state.lastSemaphores = last.semaphores }
      return (done, semaphores)
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
