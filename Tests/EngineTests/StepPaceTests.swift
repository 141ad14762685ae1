import Testing

@testable import Engine

@Suite struct StepPaceTests {
  @Test func promptsStretchStepsByASetFactor() {
    var pace = StepPace()
    #expect(pace.promptTokensBesideText == nil)
    // The first step of each kind compiles what the others replay.
    for index in 0..<6 { pace.note(texts: 8, promptTokens: 0, seconds: index == 0 ? 5 : 0.010) }
    #expect(pace.promptTokensBesideText == nil)
    for index in 0..<6 { pace.note(texts: 8, promptTokens: 100, seconds: index == 0 ? 9 : 0.015) }
    // 50 us a token: 15 ms more are 300 tokens.
    #expect(abs((pace.promptTokensBesideText ?? 0) - 300) <= 1)
    // Steps that take longer by and by: what was long ago is forgotten.
    for _ in 0..<20 { pace.note(texts: 64, promptTokens: 0, seconds: 0.020) }
    for _ in 0..<20 { pace.note(texts: 64, promptTokens: 100, seconds: 0.025) }
    #expect(abs((pace.promptTokensBesideText ?? 0) - 600) <= 1)
    // Prompts go on however slow they are.
    for _ in 0..<20 { pace.note(texts: 0, promptTokens: 10, seconds: 10) }
    #expect(pace.promptTokensBesideText == StepPace.leastTokens)
  }

  /// A measured pace decides how much of a prompt enters beside a text.
  @Test func schedulerFollowsThePace() {
    var scheduler = Scheduler(
      limits: Scheduler.Limits(sequences: 4, promptTokens: 512, mixedTokens: 64),
      pages: PageAllocator(pageCount: 64, pageTokens: 32))
    scheduler.add(id: 0, prompt: [1, 2, 3], limit: 100)
    _ = scheduler.nextStep()
    scheduler.add(id: 1, prompt: Array(repeating: 4, count: 900), limit: 1000)
    #expect(scheduler.nextStep()?.map(\.count) == [1, 63])
    for _ in 0..<6 { scheduler.pace.note(texts: 1, promptTokens: 0, seconds: 0.010) }
    // 149.3 us a token: 15 ms more are 100.5 tokens.
    for _ in 0..<6 { scheduler.pace.note(texts: 1, promptTokens: 100, seconds: 0.02493) }
    #expect(scheduler.nextStep()?.map(\.count) == [1, 100])
    // Where more wait than run, of whom there could be more, prompts go on as without a pace.
    for _ in 0..<20 { scheduler.pace.note(texts: 1, promptTokens: 10, seconds: 0.050) }
    #expect(scheduler.nextStep()?.map(\.count) == [1, StepPace.leastTokens])
    for id in 2..<4 { scheduler.add(id: UInt64(id), prompt: Array(repeating: 5, count: 900), limit: 1000) }
    #expect(scheduler.nextStep()?.map(\.count) == [1, 63])
    for id in 2..<4 { scheduler.remove(id: UInt64(id)) }
    // Never more than a step has room for.
    for _ in 0..<20 { scheduler.pace.note(texts: 1, promptTokens: 100, seconds: 0.010) }
    #expect(scheduler.nextStep()?.map(\.count) == [1, 512])
  }
}
