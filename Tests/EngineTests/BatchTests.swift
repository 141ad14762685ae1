import Foundation
import Synchronization
import ModelFiles
import Testing

@testable import Engine

/// Requests that are generated together, on a small random model, against each of them alone.
///
/// On a CPU driver all sums but one have the same order however many columns a product has: the sum of squares of a norm
/// is made of parts of 24 rows where there is one column, else of 16. That changes last bits, and now and then how a key
/// or a value is rounded to f16: logits differ by some 1e-5, and tokens only where two are that close.
@Suite(.enabled(if: TestModels.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct BatchTests {
  /// What has come for each request.
  final class Outcomes: Sendable {
    struct Outcome {
      var tokens: [Int32] = []
      var result: GenerationResult?
    }
    let all = Mutex<[Int: Outcome]>([:])

    func handler(_ index: Int) -> @Sendable (GenerationEvent) -> Void {
      { event in
        self.all.withLock { all in
          switch event {
          case .prompt: break
          case .token(let token): all[index, default: Outcome()].tokens.append(token.id)
          case .finished(let result):
            #expect(all[index]?.result == nil, "ended twice")
            all[index, default: Outcome()].result = result
          case .failed(let error): Issue.record("request \(index): \(error)")
          }
        }
      }
    }

    func result(_ index: Int) -> GenerationResult? { all.withLock { $0[index]?.result } }
    func tokens(_ index: Int) -> [Int32] { all.withLock { $0[index]?.tokens ?? [] } }
  }

  static let model = Result {
    try LanguageModel(weightsOf: TestModels.fixture("llama.gguf", in: "ReferenceTests").path)
  }

  static func areClose(_ left: [TokenLogprobs], _ right: [TokenLogprobs]) -> Bool {
    left.count == right.count
      && zip(left, right).allSatisfy { left, right in
        zip([left.chosen] + left.top, [right.chosen] + right.top).allSatisfy {
          $0.token == $1.token && abs($0.logprob - $1.logprob) < 3e-4
        } && left.top.count == right.top.count
      }
  }

  static func engine(sequences: Int, context: Int, cacheTokens: Int?, promptChunk: Int) throws -> Engine {
    var options = EngineOptions()
    options.device = TestModels.cpuDriver
    options.maxSequences = sequences
    options.contextLength = context
    options.cacheTokens = cacheTokens
    options.promptChunk = promptChunk
    return try Engine(model: model.get(), options: options)
  }

  static func request(_ random: inout SplitMix64, beginnings: inout [[Int32]], most: Int, tokens: Int)
    -> GenerationRequest
  {
    var prompt = Array(
      beginnings.randomElement(using: &random)!.prefix(.random(in: 0...most, using: &random)))
    for _ in 0..<Int.random(in: 1...20, using: &random) { prompt.append(.random(in: 0..<96, using: &random)) }
    prompt = Array(prompt.prefix(most))
    beginnings.append(prompt)
    if beginnings.count > 5 { beginnings.remove(at: .random(in: 0..<5, using: &random)) }
    var request = GenerationRequest(prompt: prompt)
    request.maxTokens = .random(in: 0...tokens, using: &random)
    if Bool.random(using: &random) {
      request.sampling.temperature = .random(in: 0.5...1.5, using: &random)
      request.sampling.topK = .random(in: 0...20, using: &random)
      request.sampling.topP = .random(in: 0.5...1, using: &random)
      request.sampling.seed = .random(in: 0...UInt64.max, using: &random)
    }
    if Int.random(in: 0..<3, using: &random) == 0 {
      request.sampling.repeatPenalty = 1.2
      request.sampling.frequencyPenalty = 0.3
    }
    if Int.random(in: 0..<4, using: &random) == 0 { request.logprobs = .random(in: 0...3, using: &random) }
    return request
  }

  struct Case: Sendable {
    var sequences: Int
    var pages: Int
    var context: Int
    /// Most tokens to generate.
    var tokens: Int
    var count: Int
  }

  @Test(arguments: [
    Case(sequences: 6, pages: 5, context: 128, tokens: 80, count: 40),
    Case(sequences: 3, pages: 40, context: 192, tokens: 20, count: 16),
  ])
  func everyRequestIsAsIfAlone(_ test: Case) throws {
    let (sequences, pages, context, count) = (test.sequences, test.pages, test.context, test.count)
    let engine = try Self.engine(
      sequences: sequences, context: context, cacheTokens: pages * 32, promptChunk: 48)
    let alone = try Self.engine(sequences: 1, context: context, cacheTokens: nil, promptChunk: 32)
    var random = SplitMix64(state: UInt64(pages))
    var beginnings: [[Int32]] = [[]]
    var requests: [GenerationRequest] = []
    var ids: [RequestID] = []
    var cancelled: Set<Int> = []
    let outcomes = Outcomes()
    var hasMore = true
    while requests.count < count || hasMore {
      while requests.count < count, Int.random(in: 0..<2, using: &random) == 0 {
        let request = Self.request(&random, beginnings: &beginnings, most: context / 3, tokens: test.tokens)
        ids.append(try engine.submit(request, onEvent: outcomes.handler(requests.count)))
        requests.append(request)
      }
      if !ids.isEmpty, Int.random(in: 0..<20, using: &random) == 0 {
        let index = Int.random(in: 0..<ids.count, using: &random)
        if outcomes.result(index) == nil { cancelled.insert(index) }
        engine.cancel(ids[index])
      }
      hasMore = try engine.step()
    }
    let preemptions = engine.withBatch { batch in
      #expect(batch.isIdle && batch.scheduler.isIdle)
      #expect(batch.scheduler.pages.availableCount == pages)
      #expect((0..<UInt32(pages)).allSatisfy { batch.scheduler.pages.holderCount($0) == 0 })
      // What gives its pages up has them back from host memory.
      #expect(batch.scheduler.freeHostPages.count == batch.scheduler.hostPageCount)
      #expect(batch.scheduler.preemptionCount == 0 || batch.scheduler.returnedPageCount > 0)
      return batch.scheduler.preemptionCount
    }
    #expect(pages > 20 || preemptions > 0, "pages never ran short")
    #expect(!cancelled.isEmpty)
    for (index, request) in requests.enumerated() {
      let result = try #require(outcomes.result(index))
      #expect(result.tokens == outcomes.tokens(index))
      // Nothing is known from before.
      alone.withBatch { $0.fail(EngineError(.device, "")) }
      let expected = try alone.generate(request)
      if cancelled.contains(index) {
        #expect(result.finishReason == .cancelled)
        #expect(result.tokens == Array(expected.tokens.prefix(result.tokens.count)))
      } else {
        #expect(result.finishReason == .length)
        #expect(result.tokens == expected.tokens, "request \(index)")
        #expect(Self.areClose(result.logprobs, expected.logprobs))
      }
    }
  }

  @Test func threadsShareSteps() async throws {
    let engine = try Self.engine(sequences: 4, context: 128, cacheTokens: nil, promptChunk: 32)
    var request = GenerationRequest(prompt: [1, 2, 3])
    request.maxTokens = 20
    let expected = try engine.generate(request).tokens
    let wanted = request
    let all = try await withThrowingTaskGroup(of: [Int32].self) { group in
      for _ in 0..<4 { group.addTask { try engine.generate(wanted).tokens } }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    #expect(all == Array(repeating: expected, count: 4))
  }

  @Test func badRequestsHarmNobodyElse() throws {
    let engine = try Self.engine(sequences: 2, context: 64, cacheTokens: nil, promptChunk: 32)
    let outcomes = Outcomes()
    var good = GenerationRequest(prompt: [5, 6])
    good.maxTokens = 3
    try engine.submit(good, onEvent: outcomes.handler(0))
    _ = try engine.step()
    var bad = good
    bad.prompt = Array(repeating: 1, count: 65)
    #expect(throws: EngineError.self) { try engine.submit(bad, onEvent: outcomes.handler(1)) }
    bad = good
    bad.sampling.temperature = -1
    #expect(throws: EngineError.self) { try engine.submit(bad, onEvent: outcomes.handler(2)) }
    bad = good
    bad.logprobs = 1000
    #expect(throws: EngineError.self) { try engine.submit(bad, onEvent: outcomes.handler(3)) }
    while try engine.step() {}
    #expect(outcomes.result(0)?.tokens.count == 3)
    #expect(outcomes.result(1) == nil && outcomes.result(2) == nil && outcomes.result(3) == nil)
  }

  @Test func logprobsAreThoseOfTheLogits() throws {
    let engine = try Self.engine(sequences: 2, context: 64, cacheTokens: nil, promptChunk: 32)
    var request = GenerationRequest(prompt: [7, 8, 9])
    request.maxTokens = 4
    request.logprobs = 2
    let result = try engine.generate(request)
    #expect(result.logprobs.count == 4)
    let logits = try engine.logits(of: request.prompt + result.tokens.dropLast(), last: 4)
    for (row, (token, told)) in zip(logits, zip(result.tokens, result.logprobs)) {
      #expect(Self.areClose([told], [TokenLogprobs(row, chosen: token, top: 2)]))
      // Greedy: the best is the one chosen.
      #expect(told.top[0] == told.chosen && told.top[1].logprob <= told.top[0].logprob)
      let sum = TokenLogprobs(row, chosen: token, top: 96).top.reduce(0.0) { $0 + exp(Double($1.logprob)) }
      #expect(abs(sum - 1) < 1e-5)
    }
  }
}
