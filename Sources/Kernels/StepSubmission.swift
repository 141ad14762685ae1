import VulkanRuntime

/// Queues recorded parts of steps, and with each segment the copies that it waits for: of weights, and of a layer's keys
/// and values. All is queued at once, in an order in which nothing waits for what comes after it.
package struct StepSubmission {
  let queue: Queue
  let weights: WeightStream?
  let cache: CacheStream?

  package init(queue: Queue, weights: WeightStream?, cache: CacheStream?) {
    self.queue = queue
    self.weights = weights
    self.cache = cache
  }

  /// Whether there is anything to copy: else all commands can be queued without looking at segments.
  package var copies: Bool { weights != nil || cache != nil }

  /// - Parameters:
  ///   - waits: what the part waits for besides.
  ///   - last: what follows the part's own commands.
  ///   - done: signalled when all is done.
  package func submit(
    _ part: StepRecording.Part, waits: [(TimelineSemaphore, UInt64)], last: [CommandBuffer],
    done: [(TimelineSemaphore, UInt64)]
  ) throws {
    var unit: Int?
    for (index, segment) in part.segments.enumerated() {
      let isLast = index == part.segments.count - 1
      var wait = index == 0 ? waits : []
      var signal: [(TimelineSemaphore, UInt64)] = []
      if let weights, let needed = segment.unit {
        wait.append(try weights.bring(needed))
        unit = needed
      }
      if let cache, let layer = segment.cacheLayer { wait.append(try cache.bring(layer)) }
      var released: Int?
      if let weights, let used = unit, isLast || part.segments[index + 1].unit != nil {
        signal.append(weights.useSignal)
        (released, unit) = (used, nil)
      }
      if let cache, segment.lastUseOfLayer != nil { signal.append(cache.useSignal) }
      try queue.submit(
        [segment.commands] + (isLast ? last : []), wait: wait, signal: signal + (isLast ? done : []))
      if let released { weights?.release(released) }
      if let cache, let layer = segment.lastUseOfLayer { try cache.takeBack(layer) }
    }
  }
}
