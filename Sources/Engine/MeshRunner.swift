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
  private var links: MeshLinks
  private let followers: Set<MeshLinks.Follower>
  /// Called before a device gets its part of a step; for tests, which let devices fail so.
  var beforeSubmission: ((_ device: Int) throws -> Void)?
  /// Parts that the sampling device has done when each sequence's last token is drawn.
  private var drawn: [UInt64]
  /// The first step of the timeline that is noted, and a time of the host's before it.
  var timelineStart = 0
  let timelineOrigin = ContinuousClock.now

  /// - Parameter runners: those of the devices, in their order.
  package init(runners: [ModelRunner], limits: StepLimits) throws {
    self.runners = runners
    self.limits = limits
    mesh = runners[0].model.program.share.mesh
    depth = runners[0].depth
    drawn = Array(repeating: 0, count: limits.sequences)
    var followers: Set<MeshLinks.Follower> = []
    let mesh = mesh
    let sampler = (mesh.pipeline - 1) * mesh.tensor
    for stage in 0..<mesh.pipeline {
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
      sources: runners.map(\.done), devices: runners.map(\.device), followers: followers)
  }

  // Nobody may wait for a device any more.
  deinit {
    for runner in runners { runner.pad?.stop() }
    links.stop()
  }

  /// Steps for how many there are stages, so that each stage has one, and those that one device has queued.
  static func depth(of mesh: MeshShape) -> Int { ModelRunner.usualDepth + mesh.pipeline - 1 }

  private var sampler: ModelRunner { runners[(mesh.pipeline - 1) * mesh.tensor] }

  package func submit(
    rows: [StepRow], outputs: [Int], samples: [SampleParameters], output: OutputKernel, logitsOf: [Int],
    statesOf: [Int]
  ) throws -> StepTicket {
    try checked {
      // What devices leave for one another belongs to the slot.
      for runner in runners { try runner.waitForSlot() }
      let starts = runners.map(\.partCount)
      let sampling = (mesh.pipeline - 1) * mesh.tensor
      let tokens = rows.reduce(0) { latest, row in
        row.token == TOKEN_FROM_DEVICE ? max(latest, drawn[Int(row.sequence)]) : latest
      }
      var ticket = StepTicket(end: 0, slot: 0, outputs: 0)
      for (device, runner) in runners.enumerated() {
        let stage = device / mesh.tensor
        func wait(_ source: Int, _ count: UInt64) -> [(TimelineSemaphore, UInt64)] {
          links.semaphore(of: source, on: device).map { [($0, count)] } ?? []
        }
        try beforeSubmission?(device)
        let made = try runner.submit(
          rows: rows, outputs: outputs, samples: samples, output: output,
          logitsOf: device == sampling ? logitsOf : [], statesOf: device == sampling ? statesOf : [],
          after: stage == 0 && tokens > 0 ? wait(sampling, tokens) : []
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
        let reads = ticket.reads + made.reads
        if device == sampling { ticket = made }
        ticket.reads = reads
      }
      for sample in samples { drawn[Int(sample.sequence)] = sampler.partCount }
      return ticket
    }
  }

  package func results(_ ticket: StepTicket) throws -> [UInt32] {
    try checked {
      while try !sampler.done.wait(for: ticket.end, timeoutNanoseconds: 100_000_000) {
        if let failure = links.failure { throw failure }
      }
      for (runner, reads) in zip(runners, ticket.reads) { try runner.checkReads(reads) }
      return try sampler.results(ticket)
    }
  }

  package func logits(_ ticket: StepTicket, _ entry: Int) -> [Float] { sampler.logits(ticket, entry) }

  package func state(_ ticket: StepTicket, _ entry: Int) -> [Float] { sampler.state(ticket, entry) }

  package func readLogits(output index: Int) throws -> [Float] { try sampler.readLogits(output: index) }

  package func copyPages(_ copies: [(from: UInt32, to: UInt32)]) throws {
    try checked { for runner in runners { try runner.copyPages(copies) } }
  }

  package func movePages(_ moves: [PageMove]) throws {
    guard !moves.isEmpty else { return }
    try checked { for runner in runners { try runner.movePages(moves) } }
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
    for runner in runners { try runner.drain() }
  }

  /// All waits have ended when a device failed; those that are alive can go on together with links of their own.
  package func recover() throws {
    links.fail(EngineError(.device, "the mesh was stopped"))
    try drain()
    links.stop()
    let count = runners.map(\.stepCount).max() ?? 0
    for runner in runners {
      runner.alignSteps(to: count)
      runner.model.stream?.recover()
    }
    drawn = drawn.map { _ in 0 }
    links = try MeshLinks(sources: runners.map(\.done), devices: runners.map(\.device), followers: followers)
  }

  /// Ends all waits when a device fails, and says what failed first.
  private func checked<Result>(_ body: () throws -> Result) throws -> Result {
    if let failure = links.failure { throw failure }
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
