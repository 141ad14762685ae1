import Transformer
import VulkanRuntime

/// Brings keys and values that are in host memory to the device while it computes, layer by layer, and takes back what
/// steps have written.
///
/// Every time that a step comes to such a layer is a *visit*, with a number. Three semaphores count visits: the pages of a
/// visit have arrived in the ring, have been computed with, have been returned. Pages arrive on the transfer queue as soon
/// as their place in the ring is free, so those of later layers come while earlier ones are computed and others return on
/// a queue of their own: both directions of the link are used, and the host is never between.
/// One thread at a time uses it: the one that submits steps.
package final class CacheStream: @unchecked Sendable {
  private let device: Device
  private let cache: KVCache
  private let arrived: TimelineSemaphore
  private let used: TimelineSemaphore
  private let returned: TimelineSemaphore
  /// Counts commands of others that read or write pages in host memory.
  private let moved: TimelineSemaphore
  private var moveCount: UInt64 = 0
  private var visits: CacheVisits
  /// Positions before a token that attention of each layer reads; nil for all.
  private let windows: [Int?]
  /// What was recorded last for each layer: steps that follow one another often use the same pages.
  private var arrivals: [Recorded?]
  private var returns: [Recorded?]
  private var step = StepPages()
  private var inBytes = 0
  private var outBytes = 0
  private var linkRate = 0.0

  private struct Recorded {
    var runs: [Range<Int>]
    var commands: CommandBuffer
  }

  /// - Parameter windows: for each layer, how many positions attention reads; nil for all.
  package init(device: Device, cache: KVCache, windows: [Int?]) throws {
    self.device = device
    self.cache = cache
    self.windows = windows
    arrived = try device.makeSemaphore()
    used = try device.makeSemaphore()
    returned = try device.makeSemaphore()
    moved = try device.makeSemaphore()
    let layers = cache.residency.places.count
    visits = CacheVisits(cache.residency)
    arrivals = Array(repeating: nil, count: layers)
    returns = Array(repeating: nil, count: layers)
    if let home = zip(cache.homes, cache.residency.places).first(where: { $1 != nil })?.0 {
      linkRate = try device.linkRate(from: home, to: cache.ring[0])
    }
    // What no page was copied to is multiplied by 0, which must not give NaN.
    try device.run { commands in
      for place in cache.ring {
        commands.fill(place, offset: 0, byteCount: place.byteCount / 4 * 4, value: 0)
      }
      commands.barrier()
    }
  }

  // Memory that the device still uses must not be freed.
  deinit { try? device.waitIdle() }

  // MARK: - Steps

  /// A step begins: which pages it uses.
  ///
  /// - Parameters:
  ///   - spans: for each of its sequences the positions that it computes.
  ///   - pages: the pages of each of them, in the same order.
  package func beginStep(_ spans: [Range<Int>], pages: [[UInt32]]) {
    step = StepPages(spans: spans, pages: pages, pageCount: cache.pageCount)
  }

  /// Queues the copies that bring the layer's pages: what commands that use them wait for.
  func bring(_ layer: Int) throws -> (TimelineSemaphore, UInt64) {
    guard let place = cache.residency.places[layer] else {
      throw KernelError.unsupported("keys and values of layer \(layer) are on the device already")
    }
    let runs = step.read(window: windows[layer])
    let commands = try recorded(&arrivals[layer], runs) { commands, runs in
      commands.copy(from: cache.homes[layer], to: cache.ring[place], ranges: runs)
    }
    let free = visits.returnBeforeNext(layer)
    var waits: [(TimelineSemaphore, UInt64)] = free > 0 ? [(returned, free)] : []
    if moveCount > 0 { waits.append((moved, moveCount)) }
    try device.transferQueue.submit(commands, wait: waits, signal: [(arrived, visits.count + 1)])
    visits.begin()
    inBytes += cache.layerPageBytes * runs.reduce(0) { $0 + $1.count }
    return (arrived, visits.count)
  }

  /// What commands signal when the layer whose pages came last is computed.
  var useSignal: (TimelineSemaphore, UInt64) { (used, visits.count) }

  /// Queues the copies that take back what those commands wrote.
  func takeBack(_ layer: Int) throws {
    guard let place = cache.residency.places[layer] else { return }
    let runs = step.written
    let commands = try recorded(&returns[layer], runs, queue: device.returnQueue) { commands, runs in
      commands.copy(from: cache.ring[place], to: cache.homes[layer], ranges: runs)
    }
    try device.returnQueue.submit(commands, wait: [(used, visits.count)], signal: [(returned, visits.count)])
    visits.end(layer)
    outBytes += cache.layerPageBytes * runs.reduce(0) { $0 + $1.count }
  }

  private func recorded(
    _ known: inout Recorded?, _ runs: [Range<Int>], queue: Queue? = nil,
    _ record: (CommandBuffer, [Range<Int>]) -> Void
  ) throws -> [CommandBuffer] {
    guard !runs.isEmpty else { return [] }
    if let known, known.runs == runs { return [known.commands] }
    let queue = queue ?? device.transferQueue
    let commands = try device.makeCommandBuffer(queue: queue, reusable: true)
    try commands.begin()
    record(commands, cache.ranges(ofPages: runs))
    try commands.end()
    known = Recorded(runs: runs, commands: commands)
    return [commands]
  }

  // MARK: - Between steps

  /// Queues commands that read or write pages where they are between steps: after the steps submitted so far, and before
  /// those to come.
  package func submit(_ commands: CommandBuffer, signal: [(TimelineSemaphore, UInt64)]) throws {
    try device.computeQueue.submit(
      [commands], wait: visits.lastReturn > 0 ? [(returned, visits.lastReturn)] : [],
      signal: signal + [(moved, moveCount + 1)])
    moveCount += 1
  }

  /// Waits until all pages are back in host memory.
  package func drain() throws {
    if visits.lastReturn > 0 { _ = try returned.wait(for: visits.lastReturn) }
  }

  // MARK: - Measuring

  /// What moves, and how fast it could.
  package var figures: CacheStreamFigures {
    CacheStreamFigures(
      hostLayers: cache.residency.hostLayers, layerPageBytes: cache.layerPageBytes, linkRate: linkRate,
      inBytes: inBytes, outBytes: outBytes)
  }
}

/// What moves of keys and values between host and device, and how fast it could.
package struct CacheStreamFigures: Sendable {
  /// Layers whose pages are in host memory.
  package var hostLayers: Int
  /// Bytes of a page of one layer.
  package var layerPageBytes: Int
  /// Bytes a second that a copy to the device alone reaches.
  package var linkRate: Double
  /// Bytes copied to the device and back so far.
  package var inBytes: Int
  package var outBytes: Int

  /// Bytes that a step brings for sequences with so many tokens before the one that it computes.
  package func byteCount(positions: Int, sequences: Int = 1) -> Int {
    KVCache.pages(forTokens: positions) * layerPageBytes * hostLayers * sequences
  }
}

/// The pages that a step reads and writes.
struct StepPages {
  private var spans: [Range<Int>] = []
  private var pages: [[UInt32]] = []
  private var pageCount = 0
  /// Runs of pages that it writes.
  private(set) var written: [Range<Int>] = []
  private var known: [Int: [Range<Int>]] = [:]

  init() {}

  init(spans: [Range<Int>], pages: [[UInt32]], pageCount: Int) {
    self.spans = spans
    self.pages = pages
    self.pageCount = pageCount
    written = runs { $0.lowerBound / KVCache.pageTokens..<KVCache.pages(forTokens: $0.upperBound) }
  }

  /// Runs of pages with something computed before that attention over so many positions reads, or that are written on.
  mutating func read(window: Int?) -> [Range<Int>] {
    let window = window ?? Int.max
    if let runs = known[window] { return runs }
    let runs = runs { span in
      let first = span.lowerBound < window ? 0 : (span.lowerBound - window + 1) / KVCache.pageTokens
      return first..<KVCache.pages(forTokens: span.lowerBound)
    }
    known[window] = runs
    return runs
  }

  /// The pages of some places of each sequence, as runs of neighbours.
  private func runs(_ places: (Range<Int>) -> Range<Int>) -> [Range<Int>] {
    var isWanted = [Bool](repeating: false, count: pageCount)
    for (span, pages) in zip(spans, pages) {
      for place in places(span).clamped(to: pages.indices) { isWanted[Int(pages[place])] = true }
    }
    var runs: [Range<Int>] = []
    for page in 0..<pageCount where isWanted[page] {
      if let last = runs.last, last.upperBound == page {
        runs[runs.count - 1] = last.lowerBound..<page + 1
      } else {
        runs.append(page..<page + 1)
      }
    }
    return runs
  }
}
