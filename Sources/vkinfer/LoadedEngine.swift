import ArgumentParser
import Benchmark
import Engine

/// Loads a model onto a device and shows how far it is; keeps compiled pipelines for the next start.
struct LoadedEngine {
  let engine: Engine
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
    engine = try Engine(model: model, options: options) { step in
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
      switch step {
      case .weights(let loaded, let total):
        progress.draw(
          "loading", done: loaded, total: total, detail: "\(Format.bytes(loaded)) of \(Format.bytes(total))")
      case .kernels(let seconds):
        progress.draw(
          "compiling kernels",
          detail: "\(Format.decimal(seconds, 1)) s; the driver keeps them for the next start")
      }
    }
    loadSeconds = (ContinuousClock.now - start).inSeconds
    if verbose {
      Output.note(
        "loaded onto \(engine.deviceName) in \(Format.decimal(loadSeconds, 2)) s, with a context of "
          + "\(Format.count(engine.contextLength, "token"))")
      if let text = engine.placementText { Output.note("weights: \(text)") }
      for text in StreamText.predictions(engine.streaming) { Output.note("stream: \(text)") }
    }
  }

  /// Keeps the pipelines compiled in this run.
  func savePipelines(verbose: Bool) {
    do {
      try engine.savePipelineCache()
    } catch {
      // The next start is slower, nothing else.
      if verbose { Output.note("\(error)") }
    }
  }

  /// Throws when a validation layer found fault with the run.
  func checkValidation() throws {
    try Self.checkValidation(messages: engine.validationMessageCount)
  }

  static func checkValidation(messages: Int) throws {
    guard messages > 0 else { return }
    throw CommandError(
      "the Vulkan validation layer reported \(Format.count(messages, "message")) (above); please report them")
  }
}
