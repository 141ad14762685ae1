import ArgumentParser
import Benchmark
import Engine

/// Loads a model onto a device and shows how far it is; keeps compiled pipelines for the next start.
struct LoadedEngine {
  /// One, or with `--data-parallel` several that share out requests.
  let engines: [Engine]
  /// What requests go to.
  let server: any RequestServer
  /// From the opening of the file to readiness.
  let loadSeconds: Double

  /// - Parameters:
  ///   - start: when the model's file was opened.
  ///   - verbose: says on standard error what is decided on the way.
  init(_ model: LanguageModel, since start: ContinuousClock.Instant, options: EngineOptions, verbose: Bool)
    throws
  {
    var options = options
    options.pipelineCacheDirectory = EngineOptions.usualCacheDirectory
    if verbose {
      Output.note("pipelines are kept in \(options.pipelineCacheDirectory ?? "no place: HOME is not set")")
    }
    let progress = Progress()
    defer { progress.clear() }
    let count = options.dataParallel
    // A request for each at least.
    options.maxSequences = (options.maxSequences + count - 1) / count
    func show(_ index: Int, _ step: LoadProgress) throws {
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
      let number = count > 1 ? ", engine \(index + 1) of \(count)" : ""
      switch step {
      case .weights(let loaded, let total):
        progress.draw(
          "loading", done: loaded, total: total,
          detail: "\(Format.bytes(loaded)) of \(Format.bytes(total))\(number)"
        )
      case .kernels(let seconds):
        progress.draw(
          "compiling kernels",
          detail: "\(Format.decimal(seconds, 1)) s; the driver keeps them for the next start")
      }
    }
    if count > 1 {
      let group = try EngineGroup(model: model, options: options, onProgress: show)
      engines = group.engines
      server = group
    } else {
      let engine = try Engine(model: model, options: options) { try show(0, $0) }
      engines = [engine]
      server = engine
    }
    loadSeconds = (ContinuousClock.now - start) / .seconds(1)
    if verbose {
      Output.note(
        "loaded onto \(engine.deviceName) in \(Format.decimal(loadSeconds, 2)) s, with a context of "
          + "\(Format.count(engine.contextLength, "token"))")
      if let text = engine.placementText { Output.note("weights: \(text)") }
      if engine.placementTexts.count > 1 { for text in engine.placementTexts { Output.note(text) } }
      if let text = engine.meshPathText { Output.note(text) }
      for text in StreamText.predictions(engine.streaming) { Output.note("stream: \(text)") }
      let times = engine.startTimes
      func text(_ seconds: Double) -> String { Format.decimal(seconds * 1000, 0) + " ms" }
      Output.note(
        "of which weights \(text(times.weights)), caches \(text(times.runner)), tuning \(text(times.tuning)), first steps "
          + "\(text(times.steps)); \(Format.count(times.pipelines, "pipeline")) made in \(text(times.pipelineSeconds))"
      )
    }
  }

  /// The first, which the others are like.
  var engine: Engine { engines[0] }

  /// Requests that run at a time.
  var maxSequences: Int { engines.reduce(0) { $0 + $1.maxSequences } }

  /// What it runs on, and the memory that it took.
  var deviceText: String {
    let times = engines.count > 1 ? "\(engines.count) engines on " : ""
    return "\(times)\(engine.deviceName)\(engine.isCPUDevice ? ", a CPU driver: slow" : ""); "
      + "\(Format.bytes(engines.reduce(0) { $0 + $1.deviceMemory.peak })) of its memory used"
  }

  /// Keeps the pipelines compiled in this run.
  func savePipelines(verbose: Bool) {
    do {
      for engine in engines { try engine.savePipelineCache() }
    } catch {
      // The next start is slower, nothing else.
      if verbose { Output.note("\(error)") }
    }
  }

  /// Throws when a validation layer found fault with the run.
  func checkValidation() throws {
    try Self.checkValidation(messages: engines.reduce(0) { $0 + $1.validationMessageCount })
  }

  static func checkValidation(messages: Int) throws {
    guard messages > 0 else { return }
    throw CommandError(
      "the Vulkan validation layer reported \(Format.count(messages, "message")) (above); please report them")
  }
}
