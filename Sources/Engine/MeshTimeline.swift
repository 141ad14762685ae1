import CShaderInterface
import Kernels
import Transformer
import VulkanRuntime

/// One step of a device whose parts note the device's clock.
struct StepTrace: Sendable {
  var step: Int
  var tokens: Int
  var outputs: Int
  var parts: Int
  var stops: [StepRecording.Stop]
  /// Which of its pad's steps it is.
  var pad: UInt64?
  /// The beginning and the end of each part.
  var ticks: [UInt64] = []
  /// The same of each stop.
  var stopTicks: [UInt64] = []
}

/// When each device of a mesh computed what.
package struct MeshTimeline: Sendable {
  /// A device computes a part of a step; between parts it waits for others, or has nothing to do. Or it stops within one.
  package struct Span: Sendable {
    package var device: Int
    /// What it does instead of computing.
    package var stop: StepRecording.Stop?
    /// Counted from the first step of the timeline.
    package var step: Int
    package var part: Int
    /// Of the step: more than one for each output where there are prompts.
    package var tokens: Int
    package var outputs: Int
    /// Seconds since the timeline began.
    package var start: Double
    package var end: Double
  }

  package var mesh: MeshShape
  /// In order of time for each device.
  package var spans: [Span]
  /// What devices do in those spans besides computing, and between the parts of a step.
  package var stops: [Span]

  package init(mesh: MeshShape, spans: [Span], stops: [Span] = []) {
    self.mesh = mesh
    self.spans = spans
    self.stops = stops
  }

  /// The part of the time of steps, on all devices, that goes to leaving things for others and waiting for those that
  /// split the same layers. What a device waits for the stage before is no time of a step.
  package var exchangeShare: Double {
    struct Step: Hashable {
      var device: Int
      var step: Int
    }
    var ends: [Step: (start: Double, end: Double)] = [:]
    for span in spans {
      let known = ends[Step(device: span.device, step: span.step)] ?? (span.start, span.end)
      ends[Step(device: span.device, step: span.step)] = (
        min(known.start, span.start), max(known.end, span.end)
      )
    }
    func seconds(_ stop: StepRecording.Stop) -> Double {
      stops.reduce(0) { $0 + ($1.stop == stop ? $1.end - $1.start : 0) }
    }
    let all = ends.values.reduce(0) { $0 + $1.end - $1.start } - seconds(.idle)
    return all > 0 ? seconds(.exchange) / all : 0
  }

  package var seconds: Double { (spans.map(\.end).max() ?? 0) - (spans.map(\.start).min() ?? 0) }

  /// The part of all devices' time, from the beginning of the first to the end of the last span, in which they idle.
  package var bubble: Double {
    let busy = spans.reduce(0) { $0 + $1.end - $1.start }
    return seconds > 0 ? 1 - busy / (seconds * Double(mesh.deviceCount)) : 0
  }

  /// Seconds for which a device computes.
  package func busy(_ device: Int) -> Double {
    spans.reduce(0) { $0 + ($1.device == device ? $1.end - $1.start : 0) }
  }

  package var stepCount: Int { Set(spans.map(\.step)).count }

  /// Steps of nothing but texts, without those at both ends while the pipeline fills and runs empty, between the times at
  /// which the first device begins the first and the last of them.
  package var steady: MeshTimeline {
    let texts = steps { $0.tokens == $0.outputs }
    let numbers = Set(texts.spans.map(\.step)).sorted()
    let margin = 3 * mesh.pipeline
    guard numbers.count > 2 * margin + mesh.pipeline else { return texts }
    func start(_ step: Int) -> Double {
      spans.first { $0.device == 0 && $0.step == step && $0.part == 0 }?.start ?? 0
    }
    let window = start(numbers[margin])..<start(numbers[numbers.count - 1 - margin])
    func cut(_ spans: [Span]) -> [Span] {
      spans.compactMap { span in
        var span = span
        span.start = max(span.start, window.lowerBound)
        span.end = min(span.end, window.upperBound)
        return span.start < span.end ? span : nil
      }
    }
    return MeshTimeline(mesh: mesh, spans: cut(spans), stops: cut(stops))
  }

  /// Those steps alone.
  package func steps(_ isIncluded: (Span) -> Bool) -> MeshTimeline {
    MeshTimeline(mesh: mesh, spans: spans.filter(isIncluded), stops: stops.filter(isIncluded))
  }

  /// Seconds that a step takes on the slowest stage: from the beginning of its first part to the end of its last,
  /// without what it waits for the stage before, or for tokens, in between.
  package func slowestStage(step: Int) -> Double {
    (0..<mesh.deviceCount).map { device in
      func own(_ span: Span) -> Bool { span.device == device && span.step == step }
      let parts = spans.filter(own)
      let idle = stops.reduce(0) { $0 + (own($1) && $1.stop == .idle ? $1.end - $1.start : 0) }
      return (parts.last?.end ?? 0) - (parts.first?.start ?? 0) - idle
    }.max() ?? 0
  }
}

extension MeshRunner {
  /// Whether all devices have a clock that can be read.
  var hasClocks: Bool { runners.allSatisfy { $0.device.capabilities.timestampBits > 0 } }

  /// Notes the clock of every device from now on; nothing may be in flight.
  package func startTimeline() throws {
    try drain()
    for runner in runners { runner.isTracing = true }
    timelineStart = Int(runners[0].stepCount)
  }

  /// What was noted since `startTimeline`.
  package func endTimeline() throws -> MeshTimeline {
    try drain()
    var spans: [MeshTimeline.Span] = []
    var stops: [MeshTimeline.Span] = []
    var origins: [Int: UInt64] = [:]
    for (device, runner) in runners.enumerated() {
      runner.readClocks()
      let physical = runner.device.physical
      // Logical devices of one physical device have one clock; others are set by the host's.
      let origin = try origins[physical.index] ?? runner.device.ticks(at: timelineOrigin)
      origins[physical.index] = origin
      for trace in runner.trace.filter({ !$0.ticks.isEmpty }).sorted(by: { $0.step < $1.step }) {
        func span(_ stop: StepRecording.Stop?, _ part: Int, _ ticks: ArraySlice<UInt64>) -> MeshTimeline.Span
        {
          MeshTimeline.Span(
            device: device, stop: stop, step: trace.step - timelineStart, part: part, tokens: trace.tokens,
            outputs: trace.outputs, start: physical.nanoseconds(from: origin, to: ticks.first!) / 1e9,
            end: physical.nanoseconds(from: origin, to: ticks.last!) / 1e9)
        }
        for part in 0..<trace.parts {
          var computed = span(nil, part, trace.ticks[2 * part...2 * part + 1])
          if part == trace.parts - 1, let pad = trace.pad { computed.end += runner.pad?.seconds(pad) ?? 0 }
          spans.append(computed)
        }
        for (index, stop) in trace.stops.enumerated() {
          stops.append(span(stop, 0, trace.stopTicks[2 * index...2 * index + 1]))
        }
      }
      runner.isTracing = false
    }
    let first = spans.map(\.start).min() ?? 0
    func shifted(_ spans: [MeshTimeline.Span]) -> [MeshTimeline.Span] {
      spans.map { span in
        var span = span
        span.start -= first
        span.end -= first
        return span
      }
    }
    return MeshTimeline(mesh: mesh, spans: shifted(spans), stops: shifted(stops))
  }

  /// Makes every step last longer on every device, for measurements; nothing may be in flight.
  package func setDelay(_ delay: StageDelay?) throws {
    try drain()
    for runner in runners {
      runner.pad?.stop()
      runner.pad = nil
      runner.pad = try delay.map { try StagePad($0, device: runner.device) }
    }
  }

  /// How long the slowest stage takes for steps of so many tokens of a prompt, each measured alone after one that
  /// compiles what it needs. Nothing may be in flight; pages of the cache are overwritten.
  package func measureStages(tokens sizes: [Int]) throws -> StageTimes {
    try setPages((0..<limits.pagesPerSequence).map { UInt32($0) }, sequence: 0, from: 0)
    var points: [StageTimes.Point] = []
    for size in sizes {
      let rows = (0..<size).map { StepRow(token: 0, position: UInt32($0), sequence: 0, output_row: 0) }
      var best = Double.infinity
      // Each slot records its own.
      for round in 0...2 {
        try startTimeline()
        _ = try submit(rows: rows, outputs: [], samples: [], output: .sample)
        let timeline = try endTimeline()
        if round > 0 { best = min(best, timeline.slowestStage(step: 0)) }
      }
      points.append(StageTimes.Point(tokens: size, seconds: best))
    }
    return StageTimes(points)
  }
}

extension Device {
  /// What this device's clock shows at a time of the host's.
  func ticks(at host: ContinuousClock.Instant) throws -> UInt64 {
    let pool = try makeTimestampPool(count: 1)
    var best: (delay: Duration, tick: UInt64, host: ContinuousClock.Instant)?
    for _ in 0..<5 {
      let commands = try makeCommandBuffer(queue: computeQueue, reusable: false)
      try commands.begin()
      commands.resetTimestamps(pool)
      commands.writeTimestamp(pool, index: 0)
      try commands.end()
      let start = ContinuousClock.now
      try computeQueue.submit([commands])
      try computeQueue.waitIdle()
      let delay = ContinuousClock.now - start
      if best == nil || delay < best!.delay {
        best = (delay, try pool.readTicks()[0], start + delay / 2)
      }
    }
    guard let best else { return 0 }
    let nanoseconds = (best.host - host) / .seconds(1) * 1e9
    return best.tick &- UInt64(max(0, nanoseconds / physical.capabilities.timestampPeriodNanoseconds))
  }
}
