import Dispatch
import Glibc
import Synchronization
import VulkanRuntime

/// How long a device computed, and how long it waited for what, while weights streamed.
package struct StreamTimes: Sendable, Hashable {
  package var computing = 0.0
  /// A copy to the device was under way, or about to be.
  package var waitingForLink = 0.0
  /// The copy waited for a read.
  package var waitingForDisk = 0.0
  /// Nothing was queued.
  package var idle = 0.0

  package var total: Double { computing + waitingForLink + waitingForDisk + idle }
}

/// What streams, how fast it could, and what it did.
package struct StreamFigures: Sendable {
  /// Bytes that a step brings from host memory and from the file.
  package var hostBytes: Int
  package var fileBytes: Int
  /// Bytes a second that a copy to the device alone reaches.
  package var linkRate: Double
  /// Bytes a second that reads of the file alone reach; 0 where it is not read or too small to tell.
  package var diskRate: Double
  /// How the file is read; nil where it is not.
  package var readMethod: String?
  /// Bytes copied and read so far.
  package var copiedBytes: Int
  package var readBytes: Int
  /// How many units are copied ahead of the one that is computed with.
  package var prefetch: PrefetchDepth

  /// The least seconds of a step with few tokens: whichever of link and disk has most to do.
  package var stepSeconds: Double {
    max(
      linkRate > 0 ? Double(hostBytes + fileBytes) / linkRate : 0,
      diskRate > 0 ? Double(fileBytes) / diskRate : 0)
  }
}

/// Watches a stream: looks some thousand times a second at how far copies, reads and computing are.
///
/// Semaphores are only read: nothing that is watched waits for it.
package final class StreamWatch: Sendable {
  private let isEnding = Atomic(false)
  private let ended = DispatchSemaphore(value: 0)
  private let times = Mutex(StreamTimes())

  init(_ stream: WeightStream) {
    DispatchQueue.global().async { [self] in
      var last = ContinuousClock.now
      while !isEnding.load(ordering: .relaxed) {
        usleep(300)
        let now = ContinuousClock.now
        let seconds = (now - last) / .seconds(1)
        last = now
        let activity = stream.activity()
        times.withLock { times in
          switch activity {
          case .idle: times.idle += seconds
          case .computing: times.computing += seconds
          case .waitingForLink: times.waitingForLink += seconds
          case .waitingForDisk: times.waitingForDisk += seconds
          }
        }
      }
      ended.signal()
    }
  }

  /// Ends the watch: what was seen.
  package func end() -> StreamTimes {
    isEnding.store(true, ordering: .relaxed)
    ended.wait()
    return times.withLock { $0 }
  }
}

extension WeightStream {
  enum Activity {
    case idle, computing, waitingForLink, waitingForDisk
  }
}
