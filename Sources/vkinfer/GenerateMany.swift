import ArgumentParser
import Engine
import Synchronization

extension Generate {
  /// Generates all requests of a file.
  func runMany(_ path: String) throws {
    let file = try RequestFile(
      Input.text(ofFile: path), name: path == "-" ? "standard input" : path, defaults: defaults(),
      drawSeed: sampling.drawSeed)
    Interruption.watch()
    let start = ContinuousClock.now
    let model = try LanguageModel(path: self.model)
    let requests = try file.entries.map { entry in
      var request = entry.request
      request.prompt = try model.tokens(of: entry.prompt)
      return request
    }
    var options = EngineOptions()
    try place.apply(to: &options, dataParallel: replicas.dataParallel)
    options.memory = memory.options
    options.memory.kvOffload = offload.kvOffload
    options.cacheType = cache.kvType
    options.contextLength =
      place.context
      ?? requests.map {
        Self.usualContext(
          prompt: $0.prompt.count, tokens: $0.maxTokens, least: 1, trained: model.contextLength)
      }.max()
    options.mayShortenContext = place.context == nil
    options.maxSequences = min(parallel ?? 16, requests.count)
    options.tunes = !noTuning
    options.overlaps = !noOverlap
    products.apply(to: &options)
    options.expectedPrompt = requests[0].prompt.count
    let loaded = try LoadedEngine(model, since: start, options: options, verbose: verbose)
    if verbose {
      Output.note(
        "\(Format.count(loaded.maxSequences, "request")) at a time share room for "
          + Format.count(loaded.engines.reduce(0) { $0 + $1.cacheTokens }, "token"))
    }
    let totals = try GenerateMany().run(requests, ids: file.entries.map(\.id), on: loaded.server)
    loaded.savePipelines(verbose: verbose)
    if !quiet {
      Output.note("device   \(loaded.deviceText)")
      if let text = loaded.engine.placementText { Output.note("weights  \(text)") }
      for text in StreamText.predictions(loaded.engine.streaming) { Output.note("stream   \(text)") }
      if let cache = loaded.engine.cacheStreaming {
        let text = StreamText.prediction(
          cache, weights: loaded.engine.streaming.first, positions: loaded.engine.contextLength)
        Output.note("cache    \(text)")
      }
      let returned = loaded.engines.reduce(0) { $0 + $1.returnedPages }
      if verbose, returned > 0 {
        Output.note("cache    \(Format.count(returned, "page")) went to host memory and came back")
      }
      Output.note("load     \(Format.decimal(loaded.loadSeconds, 2)) s")
      let shared =
        totals.sharedTokens > 0 ? ", \(Format.grouped(totals.sharedTokens)) of them known from others" : ""
      Output.note("prompts  \(Format.count(totals.promptTokens, "token"))\(shared)")
      Output.note(
        "decode   \(Format.count(totals.tokens, "token")), "
          + "\(Format.decimal(Double(totals.tokens) / totals.seconds, 1)) tokens/s; "
          + "\(Format.count(requests.count, "request")), up to \(loaded.maxSequences) at a time, in "
          + "\(Format.decimal(totals.seconds, 2)) s")
    }
    try loaded.checkValidation()
    if totals.isInterrupted { throw ExitCode(Interruption.exitCode) }
    if totals.failed > 0 {
      throw CommandError(
        "\(totals.failed) of \(Format.count(requests.count, "request")) failed: see \"error\" in their results"
      )
    }
  }
}

/// Runs the requests of a file on an engine, many at a time; a line of JSON for each as it ends.
final class GenerateMany: Sendable {
  /// What there is to tell at the end.
  struct Totals {
    var promptTokens = 0
    /// Those of them that were known from other requests.
    var sharedTokens = 0
    var tokens = 0
    /// Requests that were not possible.
    var failed = 0
    var isInterrupted = false
    var seconds = 0.0
  }

  /// Steps that may fail one after the other: the first ends the requests that it concerns.
  private static let mostFailures = 10

  private let events = Mutex<[(index: Int, event: GenerationEvent)]>([])

  /// - Parameters:
  ///   - requests: with their prompts' tokens.
  ///   - ids: what each is called by its line.
  func run(_ requests: [GenerationRequest], ids: [JSON], on engine: any RequestServer) throws -> Totals {
    let start = ContinuousClock.now
    let progress = Progress()
    defer { progress.clear() }
    var totals = Totals()
    var done = 0
    func write(_ index: Int, _ members: [(String, JSON)]) throws {
      done += 1
      progress.clear()
      try Output.write(JSON.object([("id", ids[index]), ("index", .int(index))] + members).text + "\n")
    }
    func fail(_ index: Int, _ error: any Error) throws {
      totals.failed += 1
      try write(index, [("finish_reason", .string("error")), ("error", .string("\(error)"))])
    }

    var running: [RequestID] = []
    for (index, request) in requests.enumerated() {
      do {
        running.append(
          try engine.submit(request) { event in self.events.withLock { $0.append((index, event)) } })
      } catch {
        try fail(index, error)
      }
    }
    var hasMore = true
    var failures = 0
    while hasMore {
      // Requests that an error concerns are told of it; others may go on, on devices that are left.
      do {
        hasMore = try engine.step()
        failures = 0
      } catch {
        failures += 1
        guard failures < Self.mostFailures else { throw error }
      }
      let news = events.withLock { events in
        defer { events = [] }
        return events
      }
      for (index, event) in news {
        switch event {
        case .prompt: break
        case .token: totals.tokens += 1
        case .finished(let result):
          totals.promptTokens += result.promptTokenCount
          totals.sharedTokens += result.sharedTokenCount
          try write(index, Self.report(result, requests[index]))
        case .failed(let error): try fail(index, error)
        }
      }
      if done == requests.count { hasMore = false }
      let seconds = (ContinuousClock.now - start) / .seconds(1)
      progress.draw(
        "generating", done: done, total: requests.count,
        detail: "\(done) of \(Format.count(requests.count, "request")), "
          + "\(Format.decimal(Double(totals.tokens) / seconds, 1)) tokens/s")
      if Interruption.isRequested, !totals.isInterrupted {
        totals.isInterrupted = true
        for id in running { engine.cancel(id) }
      }
    }
    totals.seconds = (ContinuousClock.now - start) / .seconds(1)
    return totals
  }

  private static func report(_ result: GenerationResult, _ request: GenerationRequest) -> [(String, JSON)] {
    var members: [(String, JSON)] = [
      ("text", .string(result.text)),
      ("tokens", .array(result.tokens.map { .int(Int($0)) })),
      ("prompt_tokens", .int(result.promptTokenCount)),
      ("finish_reason", .string(result.finishReason.rawValue)),
    ]
    if request.sampling.temperature > 0 { members.append(("seed", .unsigned(request.sampling.seed))) }
    if request.logprobs != nil {
      members.append(
        (
          "logprobs",
          .array(
            result.logprobs.map { token in
              .object([
                ("token", .int(Int(token.chosen.token))), ("logprob", .double(Double(token.chosen.logprob))),
                (
                  "top", .array(token.top.map { .array([.int(Int($0.token)), .double(Double($0.logprob))]) })
                ),
              ])
            })
        ))
    }
    return members
  }
}
