import CShaderInterface
import Kernels

/// An operation that all devices of a group take part in. Each has `count` floats to give or to get.
package enum Collective: String, Sendable, Hashable, CaseIterable {
  /// Everyone gets the sum of all inputs: each reads all that the others left.
  case allReduce = "all-reduce"
  /// The same: each adds up a part, and reads the others' sums. Moves 2 (n - 1) / n times the input instead of n - 1.
  case scatteredAllReduce = "all-reduce-scattered"
  /// Rank r gets part r of the sum of all inputs.
  case reduceScatter = "reduce-scatter"
  /// Everyone gets the inputs of all, which are a part each.
  case allGather = "all-gather"
  /// Rank r gets part r of the input of each.
  case allToAll = "all-to-all"
  /// Everyone gets the input of rank 0.
  case broadcast = "broadcast"
  /// Rank r + 1 gets the input of rank r; rank 0 that of the last.
  case sendReceive = "send-receive"

  /// Stages between which devices wait for one another.
  var stageCount: Int { self == .scatteredAllReduce ? 3 : 2 }

  /// How often devices wait for one another.
  package var meetings: Int { stageCount - 1 }

  /// Whether inputs or outputs are cut in as many parts as there are ranks.
  var isCut: Bool {
    switch self {
    case .allReduce, .broadcast, .sendReceive: false
    case .scatteredAllReduce, .reduceScatter, .allGather, .allToAll: true
    }
  }

  /// Bytes that a device writes to or reads from shared memory, whichever is more, for each byte of `count`.
  package func traffic(ranks: Int) -> Double {
    let others = Double(ranks - 1)
    return switch self {
    case .allReduce: max(1, others)
    case .scatteredAllReduce: max(1, 2 * others / Double(ranks))
    case .reduceScatter, .allGather, .allToAll: others / Double(ranks)
    case .broadcast, .sendReceive: 1
    }
  }
}

/// What a device does of one segment of a collective; sizes and offsets in quads of 16 bytes.
struct CollectiveSegment {
  let rank: Int
  /// Of the inputs, or of each part of them where they are cut.
  let range: Range<Int>
  /// Quads of each part where inputs are cut.
  let part: Int
  let input: UInt64
  let output: UInt64
  /// Where each rank reads what others leave for it: the same address for ranks that share a home.
  let inboxes: [UInt64]
  /// In an inbox ranks leave what they have, so many quads apart, and behind that their sums.
  let stride: Int

  var ranks: Int { inboxes.count }

  /// Quads of shared memory that segments of so many quads take.
  static func sharedQuads(ranks: Int, length: Int, isCut: Bool) -> (stride: Int, total: Int) {
    let stride = isCut ? length * ranks : length
    return (stride, stride * (ranks + 1))
  }

  /// The dispatches of stage `stage`, which may run at the same time.
  func pushes(_ collective: Collective, stage: Int) -> [SumPush] {
    let others = (0..<ranks).filter { $0 != rank }
    let all = Array(0..<ranks)
    let length = range.count
    // Part k of inputs and outputs, and of what a rank leaves.
    func whole(_ k: Int) -> Int { k * part + range.lowerBound }
    func left(_ k: Int) -> Int { k * length }
    let sums = ranks * stride
    switch (collective, stage) {
    case (.allReduce, 0), (.allGather, 0):
      return leave(input, range.lowerBound, for: others, at: rank * stride)
    case (.sendReceive, 0):
      return leave(input, range.lowerBound, for: [(rank + 1) % ranks], at: rank * stride)
    case (.broadcast, 0):
      return rank == 0 ? leave(input, range.lowerBound, for: others, at: 0) : []
    case (.allReduce, _):
      return [sum(of: 0..<ranks, at: 0, own: range.lowerBound, to: range.lowerBound)]
    case (.broadcast, _):
      return [sum(of: 0..<1, at: 0, own: range.lowerBound, to: range.lowerBound)]
    case (.sendReceive, _):
      let source = (rank + ranks - 1) % ranks
      return [sum(of: source..<source + 1, at: 0, own: range.lowerBound, to: range.lowerBound)]
    case (.scatteredAllReduce, 0), (.reduceScatter, 0), (.allToAll, 0):
      return others.flatMap { leave(input, whole($0), for: [$0], at: rank * stride + left($0)) }
    case (.scatteredAllReduce, 1):
      return homes(of: others).enumerated().map { index, home in
        var push = sum(of: 0..<ranks, at: left(rank), own: whole(rank), to: whole(rank))
        let place = home + UInt64(16 * (sums + left(rank)))
        if index == 0 { (push.copy, push.copies) = (place, 1) } else { push.sum = place }
        return push
      }
    case (.scatteredAllReduce, _):
      return others.map { copy(inboxes[rank], sums + left($0), to: output, whole($0)) }
    case (.reduceScatter, _):
      return [sum(of: 0..<ranks, at: left(rank), own: whole(rank), to: range.lowerBound)]
    case (.allGather, _):
      return all.map { sum(of: $0..<$0 + 1, at: 0, own: range.lowerBound, to: whole($0)) }
    case (.allToAll, _):
      return all.map { sum(of: $0..<$0 + 1, at: left(rank), own: whole(rank), to: whole($0)) }
    }
  }

  /// The inboxes of some ranks, each once.
  private func homes(of readers: [Int]) -> [UInt64] { Set(readers.map { inboxes[$0] }).sorted() }

  /// Copies to a place in the inboxes of all that read it.
  private func leave(_ source: UInt64, _ place: Int, for readers: [Int], at target: Int) -> [SumPush] {
    homes(of: readers).map { copy(source, place, to: $0, target) }
  }

  /// The sum of what some ranks left, with this one's input where it is among them.
  private func sum(of ranks: Range<Int>, at place: Int, own: Int, to target: Int) -> SumPush {
    var push = SumPush()
    push.parts = inboxes[rank] + UInt64(16 * place)
    push.own = input + UInt64(16 * own)
    push.sum = output + UInt64(16 * target)
    push.copy = push.sum
    push.quads = UInt32(range.count)
    push.rank_stride = UInt32(stride)
    push.first = UInt32(ranks.lowerBound)
    push.count = UInt32(ranks.count)
    push.rank = UInt32(rank)
    return push
  }

  private func copy(_ source: UInt64, _ place: Int, to target: UInt64, _ targetPlace: Int) -> SumPush {
    var push = SumPush()
    push.own = source + UInt64(16 * place)
    push.parts = push.own
    push.sum = target + UInt64(16 * targetPlace)
    push.copy = push.sum
    push.quads = UInt32(range.count)
    push.count = 1
    return push
  }
}
