/// How long the devices of a mesh may all stand still before one of them is held to be dead: follows from how long steps
/// like those under way have taken.
struct StepPatience: Sendable {
  /// Steps that take about as long: their tokens, and the positions that they look back to, each to a power of two.
  struct Size: Hashable, Sendable {
    var tokens: Int
    var positions: Int

    init(tokens: Int, lastPosition: Int) {
      self.tokens = Int.bitWidth - max(tokens, 1).leadingZeroBitCount
      positions = Int.bitWidth - max(lastPosition, 1).leadingZeroBitCount
    }
  }

  /// The time for steps of sizes that are not known: kernels may have to be compiled first.
  var first: Duration
  /// The least for others: what else the devices and the host do is not known.
  var least: Duration
  private var times: [Size: [Double]] = [:]

  /// Of so many of the last steps of a size the median counts, so that one that was held up does not.
  private static let memory = 9
  /// How many times the median they may take.
  private static let factor = 8.0

  init(first: Duration, least: Duration) {
    self.first = first
    self.least = least
  }

  /// A CPU driver compiles a kernel when it first runs, and shares the cores with everything else.
  init(isCPU: Bool) {
    self =
      isCPU
      ? StepPatience(first: .seconds(60), least: .seconds(20))
      : StepPatience(first: .seconds(10), least: .seconds(1))
  }

  /// A step was done within so many seconds.
  mutating func note(_ size: Size, seconds: Double) {
    times[size, default: []].append(seconds)
    if times[size]!.count > Self.memory { times[size]!.removeFirst() }
  }

  /// The time while steps of such sizes are under way.
  func limit(_ sizes: some Sequence<Size>) -> Duration {
    var limit = least
    for size in sizes {
      // The first one may have waited for its kernels.
      guard let times = times[size], times.count > 1 else { return max(first, least) }
      limit = max(limit, .seconds(Self.factor * times.sorted()[(times.count - 1) / 2]))
    }
    return limit
  }
}
