import CShaderInterface
import Kernels
import VulkanRuntime

/// What a runner does with pages of the KV cache between steps.
extension ModelRunner {
  /// Writes which pages a sequence holds; pages already in use by steps in flight must not change.
  package func setPages(_ pages: [UInt32], sequence: Int, from first: Int) throws {
    guard let table = workspace.blockTables.contents else { return }
    let words = table.assumingMemoryBound(to: UInt32.self) + sequence * limits.pagesPerSequence
    for index in first..<pages.count { words[index] = pages[index] }
    if cacheStream != nil { pagesOfSequences[sequence] = pages }
  }

  /// Queues copies of pages, after the steps submitted so far and before those to come.
  package func copyPages(_ copies: [(from: UInt32, to: UInt32)]) throws {
    guard !copies.isEmpty else { return }
    try submitPages { commands in
      commands.barrier()
      for copy in copies { kvCache.recordCopy(commands, from: copy.from, to: copy.to) }
      commands.barrier()
    }
  }

  package func movePages(_ moves: [PageMove]) throws {
    guard !moves.isEmpty else { return }
    try submitPages { commands in
      commands.barrier()
      var wasToHost: Bool?
      for move in moves {
        switch move {
        case .toHost(let page, let hostPage):
          if wasToHost == false { commands.barrier() }
          let place = try hostPages.place(of: hostPage)
          kvCache.recordRead(commands, page: page, to: place.buffer, at: place.offset)
          wasToHost = true
        case .toDevice(let hostPage, let page):
          if wasToHost == true { commands.barrier() }
          let place = try hostPages.place(of: hostPage)
          kvCache.recordWrite(commands, page: page, from: place.buffer, at: place.offset)
          wasToHost = false
        }
      }
      commands.barrier()
    }
  }

  /// The pages that a step of these tokens uses: for each of its sequences the positions that it computes, and its pages.
  func spans(of rows: [StepRow]) -> (positions: [Range<Int>], pages: [[UInt32]]) {
    var spans: [(sequence: Int, positions: Range<Int>)] = []
    for row in rows {
      let (sequence, position) = (Int(row.sequence), Int(row.position))
      if let last = spans.last, last.sequence == sequence, last.positions.upperBound == position {
        spans[spans.count - 1].positions = last.positions.lowerBound..<position + 1
      } else {
        spans.append((sequence, position..<position + 1))
      }
    }
    return (spans.map(\.positions), spans.map { pagesOfSequences[$0.sequence] ?? [] })
  }

  /// Queues commands on pages where they are between steps, after the steps submitted so far and before those to come.
  func submitPages(
    signal: [(TimelineSemaphore, UInt64)] = [], _ record: (CommandBuffer) throws -> Void
  ) throws {
    let commands = try device.recordOnce(record)
    if let cacheStream {
      try cacheStream.submit(commands, signal: signal)
    } else {
      try device.computeQueue.submit([commands], signal: signal)
    }
  }
}
