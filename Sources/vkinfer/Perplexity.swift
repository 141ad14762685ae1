import ArgumentParser
import Engine

/// `vkinfer perplexity`: how well a model predicts a text.
struct Perplexity: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure how well a model predicts a text.",
    discussion: """
      The text is cut into chunks of --context tokens; in each, the tokens of the second half are scored. The figure, \
      exp of the mean negative log-probability, is the last line on standard output; lower is better.
      """)

  @Option(
    name: .shortAndLong,
    parsing: .unconditional,
    help: ArgumentHelp("The model: a GGUF file, or any part of a split one.", valueName: "file"))
  var model: String

  @Option(
    name: .shortAndLong, parsing: .unconditional,
    help: ArgumentHelp("The text; - is standard input.", valueName: "file"))
  var file: String

  @Option(parsing: .unconditional, help: ArgumentHelp("Tokens of a chunk.", valueName: "tokens"))
  var context = 512

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Tokens processed at once: the figure depends on it by rounding alone.", valueName: "tokens"))
  var batch = 128

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("A device's number in `vkinfer devices`, or part of its name.", valueName: "device"))
  var device: String?

  @OptionGroup(title: "Several devices")
  var mesh: MeshOptions

  @OptionGroup var cache: CacheOptions

  @OptionGroup var products: ProductOptions

  @OptionGroup(title: "Memory")
  var memory: MemoryBudgetOptions

  @OptionGroup(title: "Memory")
  var offload: OffloadOptions

  @Flag(
    name: .customLong("no-overlap"),
    help: "Let no stage of a step begin before the one before it is done.")
  var noOverlap = false

  @Flag(help: "Write one JSON object instead of the figure.")
  var json = false

  @Flag(help: "Say what is decided on the way.")
  var verbose = false

  func validate() throws {
    guard (4...Int(Int32.max)).contains(context) else {
      throw ValidationError("--context \(context) is not possible: use 4 to \(Int32.max)")
    }
    guard batch > 0 else { throw ValidationError("--batch \(batch) is not possible: use 1 or more") }
    try mesh.check(device: device)
  }

  func run() throws {
    let text = try Input.text(ofFile: file)
    Interruption.watch()
    let start = ContinuousClock.now
    let model = try LanguageModel(path: self.model)
    let tokens = try model.tokens(of: text, addSpecial: false, parseSpecial: false)
    guard tokens.count >= context else {
      throw CommandError(
        "\(Format.oneLine(file, limit: 4096)): the text has \(Format.count(tokens.count, "token")), less than one chunk of \(context); "
          + "use a longer text or a smaller --context")
    }
    var options = EngineOptions()
    options.device = device
    mesh.apply(to: &options)
    options.overlaps = !noOverlap
    products.apply(to: &options)
    options.contextLength = context
    options.promptChunk = min(context, batch)
    options.maxOutputs = min(context, batch)
    options.memory = memory.options
    options.memory.kvOffload = offload.kvOffload
    options.cacheType = cache.kvType
    let loaded = try LoadedEngine(model, since: start, options: options, verbose: verbose)

    let progress = Progress()
    let result = try loaded.engine.perplexity(of: tokens, chunkLength: context) { done, total, figure in
      progress.draw("scoring", done: done, total: total, detail: "\(Format.decimal(figure, 4)) so far")
      return !Interruption.isRequested
    }
    progress.clear()
    loaded.savePipelines(verbose: verbose)
    guard result.chunks == 0 || !result.perplexity.isNaN else {
      throw CommandError(
        "\(Format.oneLine(self.model, limit: 4096)): the model computes what is no number: its weights are damaged, or too "
          + "large for the device's arithmetic; download it again, or try another device")
    }
    let isWhole = result.chunks == tokens.count / context
    try report(result, tokens: tokens.count, loaded)
    try loaded.checkValidation()
    if !isWhole { throw ExitCode(Interruption.exitCode) }
  }

  private func report(_ result: PerplexityResult, tokens: Int, _ loaded: LoadedEngine) throws {
    let rate = result.seconds > 0 ? Double(result.chunks * context) / result.seconds : 0
    guard !json else {
      let object = JSON.object([
        ("perplexity", .double(result.perplexity)),
        ("scored_tokens", .int(result.scoredTokens)),
        ("tokens", .int(tokens)),
        ("chunks", .int(result.chunks)),
        ("context", .int(context)),
        ("load_seconds", .double(loaded.loadSeconds)),
        ("seconds", .double(result.seconds)),
        ("tokens_per_second", .double(rate)),
        ("device_memory_bytes", .int(loaded.engine.deviceMemory.peak)),
        ("device", .string(loaded.engine.deviceName)),
      ])
      return try Output.write(object.text + "\n")
    }
    Output.note(
      "\(loaded.engine.deviceName): \(Format.count(result.chunks, "chunk")) of \(context) tokens, "
        + "\(Format.grouped(result.scoredTokens)) scored, in \(Format.decimal(result.seconds, 1)) s "
        + "(\(Format.decimal(rate, 1)) tokens/s)")
    if result.chunks < tokens / context {
      Output.note(
        "interrupted after \(result.chunks) of \(tokens / context) chunks: the figure is of those alone")
    }
    try Output.write(Format.decimal(result.perplexity, 4) + "\n")
  }
}
