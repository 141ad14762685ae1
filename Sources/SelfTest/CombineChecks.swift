import CShaderInterface
import Kernels

/// The kernel that adds up what the devices of a mesh have left: with and without residual stream and post norm, for
/// every form of what follows.
struct CombineChecks {
  let bench: TestBench

  func run() throws {
    for (index, width) in [64, 576, 1056, 2048, 4096].enumerated() {
      for (formIndex, next) in [ProductForm.none, .floats, .bytes].enumerated() {
        let kind = index + formIndex
        // Ranks that are waited for are there already: a wait that has to wait wants a second device.
        let meeting: ExchangeKernel? = [
          nil, ExchangeKernel(readsLast: false), ExchangeKernel(readsLast: true),
        ][kind % 3]
        try check(
          CombineKernel(
            addsResidual: kind % 2 == 0, hasPostNorm: kind / 2 % 2 == 0, next: next,
            rankCount: [1, 2, 3, 8][kind % 4], meeting: meeting),
          width: width, rowCount: [5, 1, 3][kind % 3])
      }
    }
  }

  private func check(_ kernel: CombineKernel, width: Int, rowCount: Int) throws {
    let rankCount = kernel.rankCount
    let name =
      "combine width \(width), rows \(rowCount), ranks \(rankCount)"
      + (kernel.addsResidual ? ", residual" : "")
      + (kernel.hasPostNorm ? ", post norm" : "") + ", to \(kernel.next)"
      + (kernel.meeting.map { ", meeting in \($0.slots) slots" } ?? "")
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let stride = activationStride(width)
    let parts = random.normals(rankCount * rowCount * width)
    let x = random.normals(rowCount * width)
    let postNorm = random.normals(width)
    var image = bench.newImage()
    let residual =
      kernel.addsResidual ? image.addActivations(x, width: width) : image.addPoisoned(rowCount * stride)
    let left = NextOutputs(
      form: kernel.next, width: width, rowCount: rowCount,
      squareCount: kernel.next == .none ? 0 : kernel.slices(width: width),
      norm: random.normals(width), image: &image)
    var push = plain(CombinePush())
    push.next = left.arguments
    // The own part is never taken from shared memory.
    let rank = rankCount > 1 ? rankCount / 2 : nil
    let rankFloats = rowCount * width
    let own = (rank ?? 0) * rankFloats..<((rank ?? 0) + 1) * rankFloats
    let shared = parts.indices.map { rank != nil && own.contains($0) ? .nan : parts[$0] }
    push.parts = image.addActivations(shared, width: width).address
    push.own = image.addActivations(Array(parts[own]), width: width).address
    push.own_stride = UInt32(stride)
    push.residual = residual.address
    push.post_norm = image.addActivations(postNorm, width: width).address
    let rows = (0..<rowCount).map { _ in StepRow(token: 0, position: 0, sequence: 0, output_row: 0) }
    push.step = image.addStep(rows).address
    push.width = UInt32(width)
    push.residual_stride = UInt32(stride)
    push.part_stride = UInt32(stride)
    push.rank_stride = UInt32(rowCount * stride)
    push.epsilon = 1e-3
    let meeting = kernel.meeting.map { Meeting($0, rankCount: rankCount, own: rank ?? 0, image: &image) }
    if let meeting {
      push.meeting = meeting.data.address
      push.reached = Meeting.reached
    }
    try bench.check(name, image: image) { commands in
      // More rows than the step has, as in a plan recorded for a larger one.
      try kernel.record(
        commands, push: push, rank: rank, rowCount: rowCount + 2, cache: bench.cache)
    } compare: { outcome in
      var expected = [Double](repeating: 0, count: rowCount * width)
      for row in 0..<rowCount {
        var sums = (0..<width).map { column in
          (0..<rankCount).reduce(0.0) { $0 + Double(parts[($1 * rowCount + row) * width + column]) }
        }
        if kernel.hasPostNorm {
          let squares = sums.reduce(0) { $0 + $1 * $1 }
          let scale = 1 / (squares / Double(width) + Double(push.epsilon)).squareRoot()
          for column in sums.indices { sums[column] *= scale * Double(postNorm[column]) }
        }
        for column in 0..<width {
          expected[row * width + column] =
            sums[column] + (kernel.addsResidual ? Double(x[row * width + column]) : 0)
        }
      }
      let found = expected.indices.map {
        outcome.float(residual, $0 / width * stride + activationIndex($0 % width))
      }
      if !kernel.addsResidual { outcome.ignore(residual) }
      return (meeting.map { [$0.comparison(&outcome)] } ?? []) + [
        Comparison(found: found, expected: expected, tolerance: 2e-6)
      ]
        + left.comparisons(expected, &outcome, tolerance: 2e-6)
    }
  }
}

/// A meeting at which all others are already.
private struct Meeting {
  static let base: UInt32 = 1 << 12
  static let reached: UInt32 = 300

  let data: MemoryImage.Region
  private let flags: MemoryImage.Region
  /// Where the own count is to be left.
  private let ownPlaces: Range<Int>

  init(_ kernel: ExchangeKernel, rankCount: Int, own: Int, image: inout MemoryImage) {
    let words = kernel.boardBytes / 4
    let slot = kernel.slots == 1 ? 0 : Int(Self.reached) % (kernel.slots - 1)
    let lines = kernel.slots == 1 ? kernel.endLines : kernel.lines
    let first = (slot * kernel.lines) * Int(FLAG_WORDS)
    var counts = [UInt32](repeating: 0, count: rankCount * words)
    for rank in 0..<rankCount where rank != own {
      for line in 0..<lines {
        counts[rank * words + first + line * Int(FLAG_WORDS)] = Self.base + Self.reached
      }
    }
    flags = image.add(counts)
    ownPlaces = own * words + first..<own * words + first + lines * Int(FLAG_WORDS)
    var meeting = MeetingData()
    meeting.flags = flags.address
    meeting.step = image.add([Self.base, 0, 0, 0] as [UInt32]).address
    meeting.status = image.add([UInt32](repeating: 0, count: Int(MESH_STATUS_WORDS))).address
    meeting.abandoned = image.add([0, 0, 0, 0] as [UInt32]).address
    meeting.own = UInt32(own)
    meeting.count = UInt32(rankCount)
    data = image.add(structs: [meeting])
  }

  /// The own count is told, in every line of its slot.
  func comparison(_ outcome: inout Outcome) -> Comparison {
    let places = stride(from: ownPlaces.lowerBound, to: ownPlaces.upperBound, by: Int(FLAG_WORDS))
    let found = places.map { Double(outcome.word(flags, $0)) }
    return Comparison(
      "count", found: found, expected: found.map { _ in Double(Self.base + Self.reached) }, tolerance: 0)
  }
}
