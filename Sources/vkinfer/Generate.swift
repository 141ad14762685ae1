import ArgumentParser
import Engine

/// `vkinfer generate`: a model continues a prompt.
struct Generate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Continue a prompt, or many.",
    discussion: """
      The prompt comes from -p, from a file with -f, or from standard input; one line feed at the end of a file or of \
      standard input is not part of it. Special tokens written out in it (<|im_start|>) are those tokens. The text goes \
      to standard output as it comes, a summary to standard error. Ctrl-C ends with what there is.

      With --prompts a file has many requests, one JSON object a line: {"prompt": "...", "id": ..., "max_tokens": ..., \
      "temperature": ..., "top_k": ..., "top_p": ..., "min_p": ..., "seed": ..., "stop": [...], "logprobs": ...}; only \
      the prompt must be there, the options are for lines that say nothing else. Several are generated at a time, and a \
      line of JSON is written for each as it ends.
      """)

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("The model: a GGUF file, or any part of a split one.", valueName: "file"))
  var model: String

  @Option(name: .shortAndLong, parsing: .unconditional, help: "The prompt.")
  var prompt: String?

  @Option(name: .shortAndLong, help: ArgumentHelp("Take the prompt from a file.", valueName: "file"))
  var file: String?

  @Option(help: ArgumentHelp("Generate all requests of a file, one JSON object a line.", valueName: "file"))
  var prompts: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Requests of --prompts at a time (default: 16).", valueName: "count"))
  var parallel: Int?

  @Option(
    name: [.customShort("n"), .long], parsing: .unconditional,
    help: ArgumentHelp(
      "Most tokens to generate (default: until the model ends or the context is full).", valueName: "count"))
  var tokens: Int?

  @OptionGroup(title: "Sampling")
  var sampling: SamplingOptions

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp("End before this text; can be given several times.", valueName: "text"))
  var stop: [String] = []

  @Flag(help: "Go on after the model has ended its text.")
  var ignoreEos = false

  @OptionGroup(title: "Engine")
  var place: EnginePlace

  @OptionGroup(title: "Engine")
  var replicas: ReplicaOptions

  @OptionGroup var cache: CacheOptions

  @OptionGroup var products: ProductOptions

  @OptionGroup(title: "Memory")
  var memory: MemoryBudgetOptions

  @OptionGroup(title: "Memory")
  var offload: OffloadOptions

  @Flag(help: "Write one JSON object instead of the text.")
  var json = false

  @Flag(help: "Write no summary.")
  var quiet = false

  @Flag(help: "Cut products by rule, not as measured at the first use of the device.")
  var noTuning = false

  @Flag(
    name: .customLong("no-overlap"),
    help: "Let each stage of a token wait at a barrier for the one before, on devices that need not.")
  var noOverlap = false

  @Flag(help: "Say what is decided on the way.")
  var verbose = false

  func validate() throws {
    if prompt != nil, file != nil {
      throw ValidationError("-p and -f both give a prompt: use one of them")
    }
    if prompts != nil {
      guard prompt == nil, file == nil else {
        throw ValidationError("--prompts gives all prompts: leave -p and -f out")
      }
      guard !json else {
        throw ValidationError("--prompts writes a line of JSON for each request anyway: leave --json out")
      }
    }
    if prompts == nil, replicas.dataParallel ?? 1 > 1 {
      throw ValidationError("--data-parallel is for many requests: give a file of them with --prompts")
    }
    if let parallel {
      guard prompts != nil else {
        throw ValidationError("--parallel is for --prompts: give a file of requests")
      }
      guard (1...Self.mostParallel).contains(parallel) else {
        throw ValidationError("--parallel \(parallel) is not possible: use 1 to \(Self.mostParallel)")
      }
    }
    if let tokens, tokens < 0 {
      throw ValidationError(
        "-n \(tokens) is negative: use 0 or more, or leave it out to go on until the model ends")
    }
  }

  private static let mostParallel = 1024

  func run() throws {
    if let prompts { return try runMany(prompts) }
    let text = try promptText()
    Interruption.watch()
    let start = ContinuousClock.now
    let model = try LanguageModel(path: self.model)
    var request = defaults()
    request.prompt = try model.tokens(of: text)

    var options = EngineOptions()
    try place.apply(to: &options, dataParallel: replicas.dataParallel)
    let context =
      place.context
      ?? Self.usualContext(prompt: request.prompt.count, tokens: tokens, trained: model.contextLength)
    // Said now, not after a large model is loaded.
    try model.check(prompt: request.prompt, contextLength: context)
    options.contextLength = context
    options.mayShortenContext = place.context == nil
    options.tunes = !noTuning
    options.overlaps = !noOverlap
    products.apply(to: &options)
    options.memory = memory.options
    options.memory.kvOffload = offload.kvOffload
    options.cacheType = cache.kvType
    options.expectedPrompt = request.prompt.count
    let loaded = try LoadedEngine(model, since: start, options: options, verbose: verbose)
    if verbose { for text in loaded.engine.tuningTexts { Output.note("tiling: \(text)") } }
    if verbose { Output.note("the prompt has \(Format.count(request.prompt.count, "token"))") }

    let before = loaded.engine.streaming
    let watches = verbose ? loaded.engine.watchStreams() : []
    let (cacheBefore, begin) = (loaded.engine.cacheStreaming, ContinuousClock.now)
    let outcome = Result { try stream(request, on: loaded.engine) }
    var activities = zip(watches, zip(before, loaded.engine.streaming)).map { watch, figures in
      StreamText.activity(from: figures.0, to: figures.1, watch.end())
    }
    if verbose, let cacheBefore, let after = loaded.engine.cacheStreaming {
      activities.append(
        StreamText.activity(
          from: cacheBefore, to: after, seconds: (ContinuousClock.now - begin) / .seconds(1)))
    }
    let result = try outcome.get()
    loaded.savePipelines(verbose: verbose)
    if json {
      try Output.write(report(result, loaded, sampling: request.sampling).text + "\n")
    } else if let last = result.text.utf8.last, last != 0x0A {
      try Output.write("\n")
    }
    if !quiet { summarise(result, loaded, request, activities: activities) }
    try loaded.checkValidation()
    if result.finishReason == .cancelled { throw ExitCode(Interruption.exitCode) }
  }

  /// What the options ask for, without a prompt.
  func defaults() -> GenerationRequest {
    var request = GenerationRequest(prompt: [])
    request.maxTokens = tokens
    request.sampling = sampling.parameters()
    request.stopStrings = stop
    request.ignoresEndOfText = ignoreEos
    return request
  }

  /// The context when none is asked for: room for a usual answer, without memory for all that a model was trained for.
  static func usualContext(prompt: Int, tokens: Int?, least: Int = 4096, trained: Int) -> Int {
    let (wanted, overflows) = prompt.addingReportingOverflow(tokens ?? 1024)
    return min(trained, overflows ? trained : max(least, wanted))
  }

  private func promptText() throws -> String {
    if let prompt { return prompt }
    var text = try file.map(Input.text(ofFile:)) ?? Input.standardInput(as: "the prompt")
    if text.utf8.last == 0x0A { text.removeLast() }
    return text
  }

  /// Generates; text goes to standard output as it comes unless one JSON object is wanted.
  private func stream(_ request: GenerationRequest, on engine: Engine) throws -> GenerationResult {
    // A prompt of this size is done before anybody wonders.
    let progress = Progress(isWanted: request.prompt.count > 256)
    defer { progress.clear() }
    let total = request.prompt.count
    let ticker = promptTicker(total, on: engine, progress)
    defer { ticker?.stop() }
    var failure: (any Error)?
    let result = try engine.generate(
      request,
      onPrompt: { done in
        guard ticker == nil else { return }
        progress.draw(
          "prompt ", done: done, total: total, detail: "\(done) of \(Format.count(total, "token"))")
      },
      shouldStop: { Interruption.isRequested || failure != nil },
      onText: { piece in
        ticker?.stop()
        progress.clear()
        guard !json, failure == nil else { return }
        do { try Output.write(piece) } catch { failure = error }
      })
    if let failure { throw failure }
    return result
  }

  /// Where weights stream a step may take long: shows how far it is by how many weights have been through.
  private func promptTicker(_ total: Int, on engine: Engine, _ progress: Progress) -> Ticker? {
    guard engine.streamedBytes > 0, total > 256, Output.errorIsTerminal else { return nil }
    let before = engine.weightPasses
    return Ticker {
      let done = min(Int((engine.weightPasses - before) * Double(engine.promptChunk)), total)
      progress.draw(
        "prompt ", done: done, total: total, detail: "\(done) of \(Format.count(total, "token"))")
    }
  }

  private func report(
    _ result: GenerationResult, _ loaded: LoadedEngine, sampling: SamplingParameters
  ) -> JSON {
    var members: [(String, JSON)] = [
      ("text", .string(result.text)),
      ("tokens", .array(result.tokens.map { .int(Int($0)) })),
      ("prompt_tokens", .int(result.promptTokenCount)),
      ("load_seconds", .double(loaded.loadSeconds)),
      ("time_to_first_token_seconds", .double(result.timeToFirstToken)),
      ("prompt_tokens_per_second", .double(result.promptTokensPerSecond)),
      ("decode_tokens_per_second", .double(result.decodeTokensPerSecond)),
      ("device_memory_bytes", .int(loaded.engine.deviceMemory.peak)),
      ("device", .string(loaded.engine.deviceName)),
      ("finish_reason", .string(result.finishReason.rawValue)),
    ]
    if sampling.temperature > 0 { members.append(("seed", .unsigned(sampling.seed))) }
    return .object(members)
  }

  /// - Parameter activities: what link and disk did meanwhile, for each device that weights stream to.
  private func summarise(
    _ result: GenerationResult, _ loaded: LoadedEngine, _ request: GenerationRequest, activities: [String]
  ) {
    let engine = loaded.engine
    let rate = { (value: Double) in "\(Format.decimal(value, 1)) tokens/s" }
    let ending =
      switch result.finishReason {
      case .stop: "the model or a stop text ended it"
      case .cancelled: "interrupted"
      case .length where result.tokens.count == tokens: "as many as asked for"
      case .length: "the context of \(Format.count(engine.contextLength, "token")) is full: raise --context"
      }
    Output.note("")
    Output.note("device   \(loaded.deviceText)")
    if let text = engine.placementText { Output.note("weights  \(text)") }
    for text in StreamText.predictions(engine.streaming) { Output.note("stream   \(text)") }
    if let cache = engine.cacheStreaming {
      let text = StreamText.prediction(
        cache, weights: engine.streaming.first, positions: engine.contextLength)
      Output.note("cache    \(text)")
    }
    for text in activities { Output.note("busy     \(text)") }
    if verbose, let text = StreamText.comparison(engine.streaming, measured: result.decodeTokensPerSecond) {
      Output.note("rate     \(text)")
    }
    if verbose, let peak = peakHostMemory() { Output.note("host     \(Format.bytes(peak)) at most") }
    Output.note("load     \(Format.decimal(loaded.loadSeconds, 2)) s")
    Output.note(
      "prompt   \(Format.count(result.promptTokenCount, "token"))"
        + (result.tokens.isEmpty
          ? "; no token after it"
          : ", \(rate(result.promptTokensPerSecond)); first token after \(Format.decimal(result.timeToFirstToken, 3)) s")
    )
    // The first token is the prompt's.
    let speed = result.tokens.count > 1 ? ", \(rate(result.decodeTokensPerSecond))" : ""
    Output.note("decode   \(Format.count(result.tokens.count, "token"))\(speed); \(ending)")
    if request.sampling.temperature > 0 { Output.note("seed     \(request.sampling.seed)") }
  }
}
