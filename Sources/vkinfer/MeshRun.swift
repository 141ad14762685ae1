import ArgumentParser
import Benchmark
import Engine
import Placement
import Transformer

/// Requests of one kind that are generated together on an engine.
struct MeshRun {
  /// Tokens of a prompt that is measured.
  let prompt: Int
  /// Tokens before texts that are measured.
  let depth: Int
  let tokens: Int
  let engine: Engine

  /// Tokens of prompts, `depth` each if not told otherwise, then of texts, a second.
  func measure(_ count: Int, prompt: Int? = nil) throws -> (prompt: Double, decode: Double) {
    let prompt = prompt ?? depth
    let counts = TokenCounts(count)
    let vocabulary = Int32(min(1000, engine.model.program.vocabularySize))
    let start = ContinuousClock.now
    // Different from the first token on: no prompt shares another's pages.
    try submit(counts, of: count) { _ in (0..<prompt).map { _ in Int32.random(in: 1..<vocabulary) } }
    while try engine.step() {
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
    }
    if let failure = counts.failure { throw failure }
    let (first, known) = counts.whenAllHadStarted
    let end = ContinuousClock.now
    return (
      Double(prompt * count) / ((first - start) / .seconds(1)),
      Double(count * tokens - known) / ((end - first) / .seconds(1))
    )
  }

  /// Asks for as many texts, which `counts` follows.
  private func submit(_ counts: TokenCounts, of count: Int, prompt: (Int) -> [Int32]) throws {
    for index in 0..<count {
      var request = GenerationRequest(prompt: prompt(index))
      request.maxTokens = tokens
      request.ignoresEndOfText = true
      try engine.submit(request) { counts.take($0, index: index) }
    }
  }

  /// The prompt of a request alone, and texts of `count` requests, so many times each after ones that do not count.
  func samples(_ count: Int, repetitions: Int) throws -> (prompt: Samples, decode: Samples) {
    _ = try measure(count)
    if depth != prompt { _ = try measure(1, prompt: prompt) }
    let alone = try (0..<repetitions).map { _ in try measure(1, prompt: prompt).prompt }
    return (Samples(alone), Samples(try (0..<repetitions).map { _ in try measure(count).decode }))
  }

  /// Loses a device in the middle of a step of `batch` texts: how soon the texts ended with an error, and how soon the
  /// devices that are left gave another token.
  func loss(of device: Int, batch: Int) throws -> String {
    let counts = TokenCounts(batch)
    try submit(counts, of: batch) { [1, 2, Int32(3 + $0)] }
    let moment = try engine.loseDevice(device, atStep: 2 + tokens / 2)
    var failure: (any Error)?
    while failure == nil {
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
      do {
        guard try engine.step() else { break }
      } catch { failure = error }
    }
    let known = ContinuousClock.now
    guard let failure, let lost = moment.instant else {
      throw CommandError("texts of \(tokens) tokens ended before device \(device) was lost: use a larger -n")
    }
    let text =
      "lost     device \(device), in mid-step: \(counts.failureCount) of \(batch) texts ended with an error "
      + "\(Format.decimal((known - lost) / .milliseconds(1), 1)) ms after (\(failure))"
    var request = GenerationRequest(prompt: [1, 2, 3])
    request.maxTokens = 1
    _ = try engine.generate(request)
    let again = Format.decimal((ContinuousClock.now - lost) / .seconds(1), 1)
    return "\(text); \(again) s after it there is the next token: \(engine.lossText ?? "")"
  }

  /// The part of the steps of `count` texts that devices spend leaving things for others of their stage, and waiting for
  /// them; nil where they have no clocks.
  func exchangeShare(_ count: Int) throws -> Double? {
    let timeline = try engine.timeline {
      // Recordings that note the clock are made anew: the first run makes them.
      for _ in 0..<2 { _ = try measure(count) }
    }
    guard let texts = timeline?.steps({ $0.tokens == $0.outputs }), texts.stepCount > 1 else { return nil }
    let middle = Set(texts.spans.map(\.step)).sorted()[texts.stepCount / 2]
    return texts.steps { $0.step >= middle }.exchangeShare
  }
}

/// What one device does with the model of a mesh, which the mesh is compared to.
struct DeviceAlone {
  /// Tokens a second of so many texts; none where the device has no room for the model.
  var decode: [Int: Double] = [:]
  /// Seconds of one prompt.
  var prompt = 0.0
  /// Bytes a second that a kernel which only reads reaches.
  var bandwidth = 0.0
  /// Why it was not measured.
  var note: String?

  /// Loads the model onto one device, measures, and lets go of it.
  ///
  /// - Parameters:
  ///   - options: those of the mesh.
  ///   - batches: requests that run at a time.
  init(
    _ model: LanguageModel, options mesh: EngineOptions, batches: Set<Int>, prompt: Int, depth: Int,
    tokens: Int, repetitions: Int
  ) throws {
    var options = mesh
    options.device = mesh.devices.first ?? mesh.device
    options.devices = []
    (options.tensorParallel, options.pipelineParallel) = (1, 1)
    (options.meshPath, options.meshMemory, options.stageDelay) = (nil, nil, nil)
    (options.groups, options.flushes, options.measuresStages, options.stageLayers) = (nil, false, nil, [])
    do {
      let loaded = try LoadedEngine(model, since: .now, options: options, verbose: false)
      guard loaded.engine.streamedBytes == 0 else { throw CommandError("weights would stream") }
      let run = MeshRun(prompt: prompt, depth: depth, tokens: tokens, engine: loaded.engine)
      for count in batches.sorted() {
        let samples = try run.samples(count, repetitions: repetitions)
        decode[count] = samples.decode.median
        self.prompt = Double(prompt) / samples.prompt.median
      }
      loaded.savePipelines(verbose: false)
    } catch let error as ExitCode {
      throw error
    } catch {
      note =
        "one device does not run the model alone (\(error)): predictions are by the bandwidth of its memory"
      decode = [:]
    }
    let device = try BenchmarkDevice(
      spec: options.device, pipelineDirectory: EngineOptions.usualCacheDirectory)
    bandwidth = try Bandwidth(benchmark: device, repetitions: repetitions).read().median
  }

  /// What the cost model is set by.
  var basis: MeshPrediction.Device {
    decode.isEmpty
      ? .bandwidth(bandwidth)
      : .measured(
        steps: Dictionary(uniqueKeysWithValues: decode.map { ($0, Double($0) / $1) }), prompt: prompt,
        bandwidth: bandwidth)
  }
}

extension MeshPrediction {
  /// Of a mesh that is loaded, with the link between its devices measured.
  init(
    _ engine: Engine, mesh: MeshShape, alone: DeviceAlone, prompt: Int, depth: Int, tokens: Int,
    repetitions: Int
  ) throws {
    guard let transport = engine.meshTransport else {
      throw CommandError("one device alone is no mesh: use --tensor-parallel or --pipeline-parallel")
    }
    // Those that split layers, or the first two stages.
    let numbers = engine.deviceNumbers.prefix(max(2, mesh.tensor)).map(String.init)
    let link = try CollectiveBenchmark(
      devices: numbers, pipelineDirectory: EngineOptions.usualCacheDirectory
    ).link(transport, repetitions: repetitions) {
      if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
    }
    self.init(
      program: engine.model.program, mesh: mesh, devices: engine.deviceNumbers, device: alone.basis,
      link: link, prompt: prompt, depth: depth, tokens: tokens)
  }
}
