import CShaderInterface
import Kernels
import Transformer
import VulkanRuntime

/// Devices that do collectives together, with nothing else: for trials and measurements, and to hold them against a
/// reference.
package final class CollectiveGroup {
  package let transport: MeshTransport
  package let devices: [Device]
  private let caches: [KernelCache]
  private let homes: MeshHomes
  /// By home.
  private let memory: [SharedMemory]
  private let board: MeshBoard?
  private let signals: [MeshSignals]
  private let done: [TimelineSemaphore]
  private let links: MeshLinks
  private let buffers: [[Buffer]]
  private let floats: Int
  private var parts: [UInt64]
  private var step: UInt64 = 0

  /// Most quads of a segment: while one is read the next is written, so that both directions of a link are busy.
  private var segmentQuads: Int { Self.segmentQuads(homes) }
  /// In a GPU's own memory there is no link, and segments cost meetings.
  private static func segmentQuads(_ homes: MeshHomes) -> Int { homes.areOneDevice ? 1 << 21 : 1 << 19 }
  private var leastSegmentQuads: Int { homes.areOneDevice ? 1 << 21 : 1 << 16 }
  /// Places of segments where devices may find what they read last: so many meetings have a submission in common.
  package static let usualPlaces = 64

  /// - Parameters:
  ///   - floats: most of a collective, of each rank.
  ///   - transport: where devices leave things for one another, and how they wait for that.
  ///   - areApart: whether logical devices of one physical device do as if they were of several: for tests.
  package init(
    devices: [Device], caches: [KernelCache], floats: Int, transport: MeshTransport, areApart: Bool = false
  ) throws {
    self.transport = transport
    self.devices = devices
    self.caches = caches
    self.floats = floats
    let ranks = devices.count
    homes = MeshHomes(memory: transport.memory, devices: devices.map(\.physical), areApart: areApart)
    let boardBytes = MeshSignals.boardBytes(deviceCount: ranks, homes: homes)
    let length = min(Self.segmentQuads(homes), (floats + 3) / 4 + ranks)
    let shared = max(
      CollectiveSegment.sharedQuads(ranks: ranks, length: length, isCut: false).total,
      CollectiveSegment.sharedQuads(ranks: ranks, length: length / ranks + 1, isCut: true).total)
    sharedOffset = (boardBytes + 255) / 256 * 256
    let usual = homes.readsLast ? min(Self.usualSharedBytes, Self.usualPlaces * 16 * shared) : 0
    sharedBytes = max(usual, 2 * (16 * shared + 255))
    let byteCount = sharedOffset + sharedBytes
    memory = try homes.allocate(devices: devices) { _ in byteCount }
    let path = transport.path
    signals =
      path != .flags
      ? []
      : try devices.indices.map { [memory, homes] index in
        try MeshSignals(
          device: devices[index], homes: homes, boards: memory.map { $0.views[index].address }, own: index,
          ranks: 0..<ranks, slotCount: 1)
      }
    board = signals.isEmpty ? nil : MeshBoard(signals)
    done = try devices.map { try $0.makeSemaphore() }
    parts = devices.map { _ in 0 }
    var followers: Set<MeshLinks.Follower> = []
    for source in devices.indices where path != .flags {
      for observer in devices.indices where observer != source {
        followers.insert(MeshLinks.Follower(source: source, observer: observer))
      }
    }
    buffers = try devices.map { device in
      try ["inputs", "outputs"].map {
        try device.makeBuffer(
          byteCount: 4 * floats + 64, memory: .device, label: "\($0) of collectives")
      }
    }
    // Its threads run from here on: nothing after it may fail.
    links = try MeshLinks(path: path, sources: done, devices: devices, followers: followers, board: board)
  }

  private let sharedOffset: Int
  private let sharedBytes: Int
  private static let usualSharedBytes = 64 << 20

  deinit {
    links.stop()
    for device in devices { try? device.waitIdle() }
  }

  /// A collective that was recorded, several times over, for every device.
  package struct Recording {
    fileprivate var parts: [[StepRecording.Part]]
    package var repetitions: Int
  }

  /// - Parameters:
  ///   - count: floats that each rank gives or gets, a multiple of 4 times the number of ranks.
  ///   - isChained: whether each repetition takes the outputs of the one before.
  ///   - mostPlaces: places of segments in shared memory, where as many as there is room for spare submissions.
  package func record(
    _ collective: Collective, count: Int, repetitions: Int = 1, isChained: Bool = false,
    mostPlaces: Int = usualPlaces
  ) throws -> Recording {
    precondition(count % (4 * devices.count) == 0 && count <= floats && count > 0)
    return Recording(
      parts: try devices.indices.map {
        try record(
          collective, count: count, repetitions: repetitions, isChained: isChained, mostPlaces: mostPlaces,
          rank: $0)
      }, repetitions: repetitions)
  }

  private func record(
    _ collective: Collective, count: Int, repetitions: Int, isChained: Bool, mostPlaces: Int, rank: Int
  ) throws -> [StepRecording.Part] {
    let ranks = devices.count
    let begin = { [device = devices[rank]] in
      let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: true)
      try commands.begin()
      return commands
    }
    let recording = StepRecording(try begin(), next: begin)
    recording.commands.barrier()
    let part = count / 4 / ranks
    let span = collective.isCut ? part : count / 4
    // Some twelve of them, so that what cannot overlap at both ends is little.
    let most = max(1, segmentQuads / (collective.isCut ? ranks : 1))
    let length = min(span, most, max(leastSegmentQuads, span / 12))
    let starts = Array(stride(from: 0, to: span, by: length))
    let shared = CollectiveSegment.sharedQuads(ranks: ranks, length: length, isCut: collective.isCut)
    // Two places in turn, or as many as let submissions have many meetings.
    let placeBytes = (16 * shared.total + 255) / 256 * 256
    let splits = homes.readsLast && transport.path == .flags
    let places = splits ? max(2, min(mostPlaces, sharedBytes / placeBytes)) : 2
    var meetings = 0
    var number = 0
    // What devices may find as they read it last is read once in each submission: where, and in which stage.
    var read: Set<SIMD2<Int>> = []
    for repetition in 0..<repetitions {
      let swaps = isChained && repetition % 2 == 1
      for slot in 0..<starts.count + collective.stageCount - 1 {
        if slot > 0 { meetings += 1 }
        let stages = (0..<collective.stageCount).filter { starts.indices.contains(slot - $0) }
        let reads = stages.filter { $0 > 0 }.map { SIMD2((number + slot - $0) % places, $0) }
        let isFull = slot > 0 && meetings % MeshSignals.meetingsPerSubmission == 0
        if splits, isFull || !read.isDisjoint(with: reads) {
          try recording.split()
          read = []
        }
        read.formUnion(reads)
        if slot > 0 { try meet(recording, rank: rank, count: UInt32(meetings)) }
        for stage in stages {
          let start = starts[slot - stage]
          let place = UInt64(sharedOffset + (number + slot - stage) % places * placeBytes)
          let segment = CollectiveSegment(
            rank: rank, range: start..<min(start + length, span), part: part,
            input: buffers[rank][swaps ? 1 : 0].address, output: buffers[rank][swaps ? 0 : 1].address,
            inboxes: homes.of.map { memory[$0].views[rank].address + place }, stride: shared.stride)
          for push in segment.pushes(collective, stage: stage) {
            try SumKernel(isOnLink: !homes.areOneDevice).record(
              recording.commands, push: push, cache: caches[rank])
          }
        }
      }
      recording.commands.dispatchBarrier()
      number += starts.count
    }
    for part in recording.parts { part.commands.keepAlive(buffers[rank] + memory.map { $0.views[rank] }) }
    try recording.commands.end()
    return recording.parts
  }

  private func meet(_ recording: StepRecording, rank: Int, count: UInt32) throws {
    guard !signals.isEmpty else { return try recording.exchange() }
    let all = 0..<devices.count
    try signals[rank].record(
      recording.commands, slot: 0, reached: count, told: all, devices: all, wanted: count, cache: caches[rank]
    )
  }

  /// Runs it on all devices.
  ///
  /// - Parameter limit: what it may take in all; then all waits end.
  /// - Returns: seconds of one repetition.
  /// - Throws: also when it took longer.
  package func run(_ recording: Recording, limit: Duration = .seconds(30)) throws -> Double {
    if let failure = links.failure { throw failure }
    step += 1
    let start = ContinuousClock.now
    let starts = parts
    do {
      for (index, device) in devices.enumerated() {
        if !signals.isEmpty { signals[index].begin(slot: 0, step: step, drawn: nil) }
        let batches = recording.parts[index].enumerated().map { number, part in
          Queue.Batch(
            commandBuffers: [part.commands],
            wait: part.waits.flatMap { wait -> [(TimelineSemaphore, UInt64)] in
              guard case .ranks(let count) = wait else { return [] }
              return devices.indices.compactMap { peer in
                links.semaphore(of: peer, on: index).map { ($0, starts[peer] + UInt64(count)) }
              }
            },
            signal: [(done[index], starts[index] + UInt64(number) + 1)]
              + links.signals(of: index, starts[index] + UInt64(number) + 1))
        }
        // Only at the start of a submission devices are sure to find what was written to host memory before.
        for batches in homes.readsLast ? batches.map({ [$0] }) : [batches] {
          try device.computeQueue.submit(batches)
          parts[index] += UInt64(batches.count)
        }
      }
      for index in devices.indices {
        while try !done[index].wait(for: parts[index], timeoutNanoseconds: 10_000_000) {
          if let failure = links.failure { throw failure }
          guard ContinuousClock.now - start < limit else {
            throw EngineError(
              .device,
              "device \(index) of a collective (\(devices[index].physical.name)) was not done in time")
          }
        }
      }
      if let wait = board?.abandonedWait {
        throw EngineError(.device, "device \(wait.device) waited in vain for device \(wait.peer)")
      }
    } catch {
      links.fail(error)
      // What was submitted comes to an end, now that nobody waits.
      for index in devices.indices {
        for _ in 0..<20 {
          if (try? done[index].wait(for: parts[index], timeoutNanoseconds: 10_000_000)) != false { break }
          links.releaseAgain()
        }
      }
      throw error
    }
    return (ContinuousClock.now - start) / .seconds(1) / Double(recording.repetitions)
  }

  /// The inputs of a rank, or after an even number of chained repetitions its outputs.
  package func write(_ values: [Float], rank: Int) throws {
    let device = devices[rank]
    let staging = try device.makeBuffer(byteCount: 4 * values.count, memory: .upload, label: "staging")
    values.withUnsafeBytes { staging.contents?.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    try device.run { commands in
      commands.copy(from: staging, offset: 0, to: buffers[rank][0], offset: 0, byteCount: staging.byteCount)
      commands.barrier()
    }
  }

  /// - Parameter ofInputs: whether what lies at the place of inputs is wanted.
  package func read(_ count: Int, rank: Int, ofInputs: Bool = false) throws -> [Float] {
    let device = devices[rank]
    let staging = try device.makeBuffer(byteCount: 4 * count, memory: .download, label: "staging")
    try device.run { commands in
      commands.barrier()
      commands.copy(
        from: buffers[rank][ofInputs ? 0 : 1], offset: 0, to: staging, offset: 0, byteCount: 4 * count)
      commands.barrierToHost()
    }
    guard let floats = staging.contents?.assumingMemoryBound(to: Float.self) else { return [] }
    return Array(UnsafeBufferPointer(start: floats, count: count))
  }
}
