import CShaderInterface
import Kernels

/// What devices of a mesh do in memory that they share: adding up parts, telling how far they are, and waiting. One
/// device plays one of several here; what the others leave is there from the start.
struct ExchangeChecks {
  let bench: TestBench

  func run() throws {
    for (index, quads) in [1, 63, 257, 4096].enumerated() {
      try checkSum(quads: quads, ranks: 1 + index, copies: index % 2 == 1)
    }
    for readsLast in [false, true] {
      let kernel = ExchangeKernel(readsLast: readsLast)
      let text = readsLast ? " of many lines" : ""
      // Counts go round at 2^32.
      try checkExchange(
        "exchange\(text), others are there", kernel, base: .max - 2, others: [5, 5, 9], isAbandoned: false)
      try checkExchange(
        "exchange\(text) that others gave up", kernel, base: 40, others: [45, 0, 45], isAbandoned: true)
    }
  }

  private func checkSum(quads: Int, ranks: Int, copies: Bool) throws {
    let name = "sum of \(ranks) parts of \(4 * quads)" + (copies ? ", left twice" : "")
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let parts = (0..<ranks).map { _ in random.normals(4 * quads) }
    let rank = ranks / 2
    var image = bench.newImage()
    let own = image.add(parts[rank])
    // Its own part is never taken from shared memory.
    let shared = image.add(
      parts.enumerated().flatMap { index, part in
        index == rank ? [Float](repeating: .nan, count: part.count) : part
      })
    let sum = image.addPoisoned(4 * quads)
    let copy = image.addPoisoned(4 * quads)
    var push = plain(SumPush())
    push.parts = shared.address
    push.own = own.address
    push.sum = sum.address
    push.copy = copy.address
    push.quads = UInt32(quads)
    push.rank_stride = UInt32(quads)
    push.count = UInt32(ranks)
    push.rank = UInt32(rank)
    push.copies = copies ? 1 : 0
    try bench.check(name, image: image) { commands in
      try SumKernel().record(commands, push: push, cache: bench.cache)
    } compare: { outcome in
      let expected = (0..<4 * quads).map { index in parts.reduce(0.0) { $0 + Double($1[index]) } }
      return (copies ? [sum, copy] : [sum]).map { region in
        Comparison(
          found: expected.indices.map { outcome.float(region, $0) }, expected: expected, tolerance: 1e-6)
      }
    }
  }

  /// Device 1 of four gets to 3 above the base, and waits until the others are there or somebody gave up.
  private func checkExchange(
    _ name: String, _ kernel: ExchangeKernel, base: UInt32, others: [UInt32], isAbandoned: Bool
  ) throws {
    guard bench.wants(name), bench.device.capabilities.vulkanMemoryModel else { return }
    // Its own count goes to the last slot, theirs come in the first one: in a line that comes after some pauses.
    func place(_ device: Int, _ slot: Int, _ line: Int) -> Int {
      device * kernel.boardBytes / 4 + (slot * kernel.lines + line) * Int(FLAG_WORDS)
    }
    var words = [UInt32](repeating: base &- 7, count: place(4, 0, 0))
    for (device, count) in zip([0, 2, 3], others) {
      words[place(device, 0, min(40, kernel.lines - 1))] = isAbandoned ? count : base &+ count
    }
    var image = bench.newImage()
    let flags = image.add(words)
    let step = image.add([base, 0, 0, 0])
    let status = image.add([UInt32](arrayLiteral: 0, 0, 0, 0))
    let abandoned = image.add([UInt32](arrayLiteral: isAbandoned ? 1 : 0))
    var push = plain(ExchangePush())
    push.flags = flags.address
    push.step = step.address
    push.status = status.address
    push.abandoned = abandoned.address
    push.own_slot = UInt32(kernel.slots - 1)
    push.own = 1
    push.reached = 3
    push.count = 4
    push.wanted = 5
    push.reports = isAbandoned ? 0 : 1
    try bench.check(name, image: image) { commands in
      try kernel.record(commands, push: push, cache: bench.cache)
    } compare: { outcome in
      // Who waits long says how far it is, too; between lines it may see first that others gave up.
      let isTold =
        (0..<kernel.endLines).allSatisfy { outcome.word(flags, place(1, kernel.slots - 1, $0)) == base &+ 3 }
        && (outcome.word(status, 0) == base &+ 3 || (isAbandoned && kernel.lines > 1))
      return [Comparison("", value: isTold && outcome.word(status, 1) == 0 ? 0 : 1, tolerance: 0)]
    }
  }
}
