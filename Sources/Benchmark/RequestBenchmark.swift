import Engine
import ModelFiles
import Synchronization

/// Requests of mixed lengths, as a server gets them: all arrive at once, and as many run as there is room for.
package struct RequestWorkload: Sendable {
  package struct Request: Sendable, Equatable {
    /// Tokens of the prompt, and to generate.
    package var prompt, output: Int
  }

  package let requests: [Request]
  private let seed: UInt64

  /// Lengths whose logarithms are spread evenly, so that short ones are as common as in practice.
  ///
  /// - Parameters:
  ///   - prompt: tokens of the prompts; at least 1.
  ///   - output: tokens to generate; at least 1.
  package init(count: Int, prompt: ClosedRange<Int>, output: ClosedRange<Int>, seed: UInt64) {
    var random = SplitMix64(state: seed)
    requests = (0..<count).map { _ in
      Request(prompt: random.length(in: prompt), output: random.length(in: output))
    }
    self.seed = seed
  }

  package var promptTokens: Int { requests.reduce(0) { $0 + $1.prompt } }
  package var outputTokens: Int { requests.reduce(0) { $0 + $1.output } }

  /// Tokens in the cache of a sequence, on average over all tokens that are generated.
  package var meanDepth: Int {
    requests.reduce(0) { $0 + $1.output * ($1.prompt + $1.output / 2) } / max(outputTokens, 1)
  }

  package var longest: Int { requests.map { $0.prompt + $0.output }.max() ?? 0 }

  /// Tokens of the prompts, none of which begins as another does but by chance.
  func prompts(vocabulary: Int, salt: UInt64) -> [[Int32]] {
    var random = SplitMix64(state: seed ^ (salt + 1) &* 0xD134_2543_DE82_EF95)
    return requests.map { request in
      (0..<request.prompt).map { _ in Int32(random.next() % UInt64(vocabulary)) }
    }
  }
}

extension SplitMix64 {
  /// Halvings of the range are equally likely: a power of two of it first, then a length within.
  fileprivate mutating func length(in range: ClosedRange<Int>) -> Int {
    var octaves: [ClosedRange<Int>] = []
    var low = range.lowerBound
    while low <= range.upperBound {
      let high = min(range.upperBound, max(low, 2 * low - 1))
      octaves.append(low...high)
      low = high + 1
    }
    // An octave that the range cuts short is as much less likely.
    let weights = octaves.map { Double($0.count) / Double($0.lowerBound) }
    var place = Double(next() >> 11) * 0x1p-53 * weights.reduce(0, +)
    var index = 0
    while index < octaves.count - 1, place >= weights[index] {
      place -= weights[index]
      index += 1
    }
    return octaves[index].lowerBound + Int(next() % UInt64(octaves[index].count))
  }
}

/// What was read of a workload.
package struct RequestFigures: Sendable {
  /// From the arrival of all to the end of the last.
  package var seconds: Double
  /// Seconds from arrival to the first token, waiting for a place included.
  package var firstToken: Samples
  /// Seconds between neighbouring tokens of a request; nil if none had two.
  package var betweenTokens: Samples?
  package var outputTokens: Int
}

/// When the tokens of each request came.
private final class TokenTimes: Sendable {
  let all: Mutex<[[ContinuousClock.Instant]]>
  let failure = Mutex<(any Error)?>(nil)

  init(count: Int) { all = Mutex(Array(repeating: [], count: count)) }

  func handler(_ index: Int) -> @Sendable (GenerationEvent) -> Void {
    { event in
      switch event {
      case .token:
        let now = ContinuousClock.now
        self.all.withLock { $0[index].append(now) }
      case .failed(let error): self.failure.withLock { $0 = error }
      case .prompt, .finished: break
      }
    }
  }
}

extension RequestWorkload {
  /// Generates all requests on an engine, greedily and to their full lengths.
  ///
  /// What the first steps need is compiled before: so many requests as run at a time, a few tokens each.
  ///
  /// - Parameters:
  ///   - parallel: requests that run at a time.
  ///   - vocabulary: tokens that the model knows.
  ///   - onProgress: called after each step with the tokens generated so far; throwing stops.
  package func run(
    on engine: any RequestServer, parallel: Int, vocabulary: Int, onProgress: (_ done: Int) throws -> Void
  ) throws -> RequestFigures {
    let warm = min(parallel, requests.count)
    _ = try generate(
      prompts(vocabulary: vocabulary, salt: 1).prefix(warm), on: engine,
      outputs: requests.prefix(warm).map { min($0.output, 8) }, onProgress: { _ in try onProgress(0) })
    return try generate(
      prompts(vocabulary: vocabulary, salt: 0)[...], on: engine, outputs: requests.map(\.output),
      onProgress: onProgress)
  }

  private func generate(
    _ prompts: ArraySlice<[Int32]>, on engine: any RequestServer, outputs: [Int],
    onProgress: (Int) throws -> Void
  ) throws -> RequestFigures {
    let times = TokenTimes(count: outputs.count)
    let start = ContinuousClock.now
    for (index, (prompt, output)) in zip(prompts, outputs).enumerated() {
      var request = GenerationRequest(prompt: prompt)
      request.maxTokens = output
      request.ignoresEndOfText = true
      try engine.submit(request, onEvent: times.handler(index))
    }
    while try engine.step() {
      try onProgress(times.all.withLock { $0.reduce(0) { $0 + $1.count } })
    }
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    if let error = times.failure.withLock({ $0 }) { throw error }
    let all = times.all.withLock { $0 }
    guard zip(all, outputs).allSatisfy({ $0.count == $1 }) else {
      throw BenchmarkError("requests ended before they had all their tokens: this is a fault of the engine")
    }
    let gaps = all.flatMap { times in zip(times, times.dropFirst()).map { ($1 - $0) / .seconds(1) } }
    return RequestFigures(
      seconds: seconds, firstToken: Samples(all.map { ($0[0] - start) / .seconds(1) }),
      betweenTokens: gaps.isEmpty ? nil : Samples(gaps), outputTokens: outputs.reduce(0, +))
  }
}
