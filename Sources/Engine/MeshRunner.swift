import CShaderInterface
import Kernels
import Transformer
import VulkanRuntime

/// Runs steps of one model on the devices of a mesh, each of which has its share.
///
/// Every device runs the same steps in the same order. Within a step they meet at collectives; stages of the pipeline
/// run different steps at the same time.
package final class MeshRunner: StepRunner {
  package let limits: StepLimits
  package let depth: Int
  let runners: [ModelRunner]
  let mesh: MeshShape
  private let path: MeshPath
  let pathText: String
  private var links: MeshLinks
  private let followers: Set<MeshLinks.Follower>
  /// The devices' counts, where they wait by them.
  private let board: MeshBoard?
  /// Called before a device gets its part of a step; for tests, which let devices fail so. Returns what its part waits
  /// for besides.
  var beforeSubmission: ((_ device: Int) throws -> [(TimelineSemaphore, UInt64)])?
  /// How long all devices may stand still while there is work, before one of them is held to be dead.
  var patience: StepPatience
  /// Steps whose results are not read.
  private var underWay: [StepUnderWay] = []
  /// When the results of the last step came.
  private var lastDone = ContinuousClock.now
  private var progress = Progress()
  /// Devices that will not work again.
  package private(set) var lost: Set<Int> = []
  /// Those of them that do not come to an end, and may still use their memory.
  private(set) var hung: Set<Int> = []
  /// When each sequence's last token is drawn: parts that the sampling device has done then, and the step.
  private var drawn: [(part: UInt64, step: UInt64)]
  /// The first step of the timeline that is noted, and a time of the host's before it.
  var timelineStart = 0
  let timelineOrigin = ContinuousClock.now

  /// What devices had done when it was last looked at, and since when that has not changed.
  private struct Progress {
    var counts: [UInt64] = []
    var since = ContinuousClock.now
  }

  private struct StepUnderWay {
    var end: UInt64
    var size: StepPatience.Size
    var submitted = ContinuousClock.now
  }

  /// - Parameters:
  ///   - runners: those of the devices, in their order.
  ///   - board: the devices' counts, if they wait by them.
  ///   - pathText: how devices wait for one another, in a line.
  package init(
    runners: [ModelRunner], limits: StepLimits, board: MeshBoard?, path: MeshPath, pathText: String
  ) throws {
    self.path = path
    self.pathText = pathText
    self.runners = runners
    self.limits = limits
    self.board = board
    patience = StepPatience(isCPU: runners.contains { $0.traits.isCPU })
    mesh = runners[0].model.program.share.mesh
    depth = runners[0].depth
    drawn = Array(repeating: (0, 0), count: limits.sequences)
    var followers: Set<MeshLinks.Follower> = []
    let mesh = mesh
    let sampler = (mesh.pipeline - 1) * mesh.tensor
    for stage in 0..<mesh.pipeline where board == nil {
      for rank in 0..<mesh.tensor {
        let device = stage * mesh.tensor + rank
        var sources = Set((0..<mesh.tensor).map { stage * mesh.tensor + $0 })
        sources.insert(stage == 0 ? sampler : (stage - 1) * mesh.tensor)
        sources.remove(device)
        followers.formUnion(sources.map { MeshLinks.Follower(source: $0, observer: device) })
      }
    }
    self.followers = followers
    links = try MeshLinks(
      path: path, sources: runners.map(\.done), devices: runners.map(\.device), followers: followers,
      board: board)
    for runner in runners { runner.whileWaiting = { [unowned self] in try watch() } }
  }

  // Nobody may wait for a device any more. One that hangs may still use its memory: that is never freed.
  deinit {
    for runner in runners { runner.pad?.stop() }
    links.stop()
    let patience = patience.limit(underWay.map(\.size))
    for (device, runner) in runners.enumerated() {
      runner.whileWaiting = nil
      if hung.contains(device) || !runner.comesToRest(within: patience) {
        _ = Unmanaged.passRetained(runner)
      }
    }
  }

  /// Steps for how many there are stages, so that each stage has one, and those that one device has queued.
  static func depth(of mesh: MeshShape) -> Int { ModelRunner.usualDepth + mesh.pipeline - 1 }

  private var samplerIndex: Int { (mesh.pipeline - 1) * mesh.tensor }
  private var sampler: ModelRunner { runners[samplerIndex] }

  package func submit(
    rows: [StepRow], outputs: [Int], samples: [SampleParameters], output: OutputKernel, logitsOf: [Int],
    statesOf: [Int]
  ) throws -> StepTicket {
    try checked {
      // What devices leave for one another belongs to the slot.
      for device in runners.indices { try attempt(device) { try $0.waitForSlot() } }
      let starts = runners.map(\.partCount)
      let sampling = (mesh.pipeline - 1) * mesh.tensor
      let tokens =
        rows.filter { $0.token == TOKEN_FROM_DEVICE }.map { drawn[Int($0.sequence)] }
        .max { $0.step < $1.step } ?? (0, 0)
      var ticket = StepTicket(end: 0, slot: 0, outputs: 0)
      for (device, runner) in runners.enumerated() {
        let stage = device / mesh.tensor
        func wait(_ source: Int, _ count: UInt64) -> [(TimelineSemaphore, UInt64)] {
          links.semaphore(of: source, on: device).map { [($0, count)] } ?? []
        }
        let made = try attempt(device) { _ in
          let extra = try beforeSubmission?(device) ?? []
          return try runner.submit(
            rows: rows, outputs: outputs, samples: samples, output: output,
            logitsOf: device == sampling ? logitsOf : [], statesOf: device == sampling ? statesOf : [],
            after: extra + (stage == 0 && tokens.part > 0 ? wait(sampling, tokens.part) : []),
            drawn: tokens.step > 0 ? tokens.step : nil,
            signalling: { links.signals(of: device, $0) }
          ) { kind in
            switch kind {
            case .ranks(let parts):
              (0..<mesh.tensor).flatMap { rank in
                let peer = stage * mesh.tensor + rank
                return peer == device ? [] : wait(peer, starts[peer] + UInt64(parts))
              }
            case .previousStage:
              wait((stage - 1) * mesh.tensor, runners[(stage - 1) * mesh.tensor].partCount)
            }
          }
        }
        let reads = ticket.reads + made.reads
        if device == sampling { ticket = made }
        ticket.reads = reads
      }
      underWay.append(
        StepUnderWay(
          end: ticket.end,
          size: StepPatience.Size(
            tokens: rows.count, lastPosition: Int(rows.map(\.position).max() ?? 0))))
      for sample in samples { drawn[Int(sample.sequence)] = (sampler.partCount, sampler.stepCount) }
      return ticket
    }
  }

  package func results(_ ticket: StepTicket) throws -> [UInt32] {
    try checked {
      let results = try attempt(samplerIndex) { try $0.results(ticket) }
      try checkWaits()
      for (runner, reads) in zip(runners, ticket.reads) {
        try runner.checkReads(reads)
        try runner.checkOrder(ticket)
      }
      noteEnd(of: ticket)
      return results
    }
  }

  /// The results of a step are there: so long it took, if the one before did not hold it up.
  private func noteEnd(of ticket: StepTicket) {
    let now = ContinuousClock.now
    if let step = underWay.first(where: { $0.end == ticket.end }) {
      patience.note(step.size, seconds: (now - max(lastDone, step.submitted)) / .seconds(1))
    }
    underWay.removeAll { $0.end <= ticket.end }
    lastDone = now
  }

  package func logits(_ ticket: StepTicket, _ entry: Int) -> [Float] { sampler.logits(ticket, entry) }

  package func state(_ ticket: StepTicket, _ entry: Int) -> [Float] { sampler.state(ticket, entry) }

  package func readLogits(output index: Int) throws -> [Float] { try sampler.readLogits(output: index) }

  package func copyPages(_ copies: [(from: UInt32, to: UInt32)]) throws {
    try checked { for device in runners.indices { try attempt(device) { try $0.copyPages(copies) } } }
  }

  package func movePages(_ moves: [PageMove]) throws {
    guard !moves.isEmpty else { return }
    try checked { for device in runners.indices { try attempt(device) { try $0.movePages(moves) } } }
  }

  package func setPages(_ pages: [UInt32], sequence: Int, from first: Int) throws {
    for runner in runners { try runner.setPages(pages, sequence: sequence, from: first) }
  }

  package func setTokenCounts(prompt: [Int32], generated: [Int32], sequence: Int) throws {
    try checked { try sampler.setTokenCounts(prompt: prompt, generated: generated, sequence: sequence) }
  }

  package func tune(sequences: Int) throws {
    // Devices of one kind keep what they measured in one place, and shares are alike.
    for runner in runners { try runner.tune(sequences: sequences) }
  }

  package func drain() throws {
    for device in runners.indices where !lost.contains(device) { try attempt(device) { try $0.drain() } }
  }

  package var hasFailed: Bool { !lost.isEmpty || links.failure != nil }

  /// All waits have ended when a device failed; if all are alive, they can go on together with links of their own.
  package func recover() throws -> Set<Int> {
    links.fail(EngineError(.device, "the mesh was stopped"))
    // Whoever lives comes to an end now. Who does not is not waited for again.
    isRecovering = true
    defer { isRecovering = false }
    for device in runners.indices where !lost.contains(device) {
      progress = Progress()
      while !lost.contains(device) {
        let known = lost
        do {
          try attempt(device) { try $0.drain() }
          break
        } catch {
          // Another one may turn out to be lost meanwhile.
          guard lost == known else { continue }
          lose(device)
          hung.insert(device)
        }
      }
    }
    links.stop()
    underWay = []
    guard lost.isEmpty else { return lost }
    // A step of which some was handed over has left counts: its number is not used again.
    let count = (runners.map(\.stepCount).max() ?? 0) + 1
    for runner in runners {
      runner.alignSteps(to: count)
      runner.model.stream?.recover()
    }
    drawn = drawn.map { _ in (0, 0) }
    board?.reset()
    links = try MeshLinks(
      path: path, sources: runners.map(\.done), devices: runners.map(\.device), followers: followers,
      board: board)
    return []
  }

  // MARK: - Faults

  /// Whether what a failure left behind is waited for: its waits have ended.
  private var isRecovering = false
  /// Who is being waited for.
  private var awaited = 0

  /// Does something with a device, and notes whether that is lost.
  func attempt<Result>(_ device: Int, _ body: (ModelRunner) throws -> Result) throws -> Result {
    awaited = device
    do { return try body(runners[device]) } catch {
      if let error = error as? VulkanError, error.kind == .deviceLost { lose(device) }
      throw error
    }
  }

  private func lose(_ device: Int) { lost.insert(device) }

  private func name(_ device: Int) -> String {
    "device \(device) of the mesh (\(runners[device].device.physical.name))"
  }

  /// Called while the host waits: ends that when a device failed, or all stand still.
  private func watch() throws {
    if !isRecovering, let failure = links.failure { throw failure }
    if isRecovering { links.releaseAgain() } else { try checkWaits() }
    var counts: [UInt64] = []
    for device in runners.indices where !lost.contains(device) {
      let waiting = awaited
      defer { awaited = waiting }
      do { counts += try attempt(device) { try $0.progress } } catch {
        // Not the fault of the one that is waited for.
        throw device == waiting ? error : EngineError(.device, "\(error)")
      }
      if let board { counts.append(UInt64(board.count(device))) }
    }
    guard counts == progress.counts else {
      progress = Progress(counts: counts)
      return
    }
    guard ContinuousClock.now - progress.since > patience.limit(underWay.map(\.size)) else { return }
    let stuck = try isRecovering ? awaited : furthestBehind
    throw EngineError(.device, "\(name(stuck)) does not go on: it was killed, or hangs")
  }

  /// The device that others wait for: the first of those that are least far.
  private var furthestBehind: Int {
    get throws {
      if let board {
        let first = board.count(0)
        return runners.indices.min {
          Int32(bitPattern: board.count($0) &- first) < Int32(bitPattern: board.count($1) &- first)
        } ?? awaited
      }
      let positions = try runners.map { try $0.position }
      return positions.indices.min { positions[$0] < positions[$1] } ?? awaited
    }
  }

  /// A kernel gave up waiting: what it made is worthless.
  private func checkWaits() throws {
    guard let wait = board?.abandonedWait else { return }
    throw EngineError(.device, "\(name(wait.device)) waited in vain for \(name(wait.peer))")
  }

  private func checkLost() throws {
    guard let device = lost.min() else { return }
    throw EngineError(.device, "\(name(device)) is lost")
  }

  /// Throws if no device may be used before `recover`.
  func checkWorks() throws {
    try checkLost()
    if let failure = links.failure { throw failure }
    progress = Progress()
  }

  /// Ends all waits when a device fails, and says what failed first.
  private func checked<Result>(_ body: () throws -> Result) throws -> Result {
    try checkWorks()
    do {
      let result = try body()
      if let failure = links.failure { throw failure }
      return result
    } catch {
      links.fail(error)
      throw links.failure ?? error
    }
  }
}
