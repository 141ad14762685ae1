import ArgumentParser
import Benchmark
import Placement
import Transformer

/// `vkinfer bench predict`: what meshes of so many devices would give, by the cost model.
struct BenchPredict: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "predict",
    abstract: "Compute what meshes of many devices would give.",
    discussion: """
      No device is needed. The model is dense, with float16 weights and cache, of some --layers and --width with a \
      feed-forward width of --ff; time is that of bytes, operations and collectives with the figures given.
      """)

  @Option(parsing: .unconditional, help: "Devices in all.") var devices = 8
  @Option(parsing: .unconditional, help: "Layers.") var layers = 80
  @Option(parsing: .unconditional, help: "Elements of the residual stream.") var width = 8192
  @Option(parsing: .unconditional, help: "Feed-forward columns.") var ff = 28672
  @Option(parsing: .unconditional, help: "Elements of all kv heads.") var kvWidth = 1024
  @Option(parsing: .unconditional, help: "Feed-forward matrices: 3 with a gate, 2 without.") var matrices = 3
  @Option(parsing: .unconditional, help: "Tokens of the vocabulary.") var vocabulary = 128256
  @Option(parsing: .unconditional, help: "Bytes of a weight.") var weightBytes = 2.0
  @Option(parsing: .unconditional, help: "Sequences at a time, as a list.") var batch = CountList([1, 64])
  @Option(parsing: .unconditional, help: "Tokens of each in the cache.") var context = 2048
  @Option(parsing: .unconditional, help: "GB of memory of a device.") var memory = 80.0
  @Option(parsing: .unconditional, help: "GB/s that kernels read.") var bandwidth = 2500.0
  @Option(parsing: .unconditional, help: "TFLOPS that products of many tokens reach.") var teraflops = 400.0
  @Option(parsing: .unconditional, help: "GB/s between two devices.") var link = 25.0
  @Option(parsing: .unconditional, help: "us of an all-reduce of next to nothing.") var latency = 20.0
  @Option(parsing: .unconditional, help: "us of a layer's dispatches and barriers.") var overhead = 15.0
  @Option(parsing: .unconditional, help: "Devices of a node, between which the link is (default: all).")
  var node: Int?
  @Option(parsing: .unconditional, help: "GB/s of a device between nodes.") var network = 25.0
  @Option(parsing: .unconditional, help: "us of a message between nodes.") var networkLatency = 20.0

  func validate() throws {
    let counts = [devices, layers, width, ff, kvWidth, vocabulary, context]
    guard counts.allSatisfy({ $0 <= 1 << 24 }), devices <= 1 << 16 else {
      throw ValidationError("counts must be at most \(1 << 24), --devices \(1 << 16)")
    }
    let figures = [
      weightBytes, memory, bandwidth, teraflops, link, latency, overhead, network, networkLatency,
    ]
    guard figures.allSatisfy(\.isFinite), weightBytes > 0, memory > 0, latency >= 0, overhead >= 0,
      networkLatency >= 0, ff > 0, kvWidth > 0, vocabulary > 0, context > 0, [2, 3].contains(matrices)
    else {
      throw ValidationError("figures and counts must be numbers above 0, --matrices 2 or 3")
    }
    guard devices > 0, layers > 0, width > 0, batch.counts.allSatisfy({ $0 > 0 }) else {
      throw ValidationError("--devices, --layers, --width and --batch must be 1 or more")
    }
    if let node, node < 1 || !devices.isMultiple(of: node) {
      throw ValidationError("--node \(node) is not possible: use a divisor of \(devices)")
    }
    guard network > 0 else { throw ValidationError("--network must be more than 0") }
    guard link > 0, bandwidth > 0, teraflops > 0 else {
      throw ValidationError("--link, --bandwidth and --teraflops must be more than 0")
    }
  }

  func run() throws {
    let (width, ff, kvWidth) = (Double(width), Double(ff), Double(kvWidth))
    let layer = 2 * width * width + 2 * width * kvWidth + Double(matrices) * width * ff
    let weights = Double(layers) * layer + 2 * Double(vocabulary) * width
    let model = MeshCost.Model(
      layers: Double(layers), width: width, keyValueBytesPerToken: 4 * kvWidth * Double(layers),
      weights: weights,
      weightBytes: weights * weightBytes)
    var hardware = MeshCost.Hardware(
      memory: memory * 1e9, bandwidth: bandwidth * 1e9, operations: teraflops * 1e12, link: link * 1e9,
      latency: latency * 1e-6, layerOverhead: overhead * 1e-6)
    hardware.node = node
    hardware.network = network * 1e9
    hardware.networkLatency = networkLatency * 1e-6
    let report = Report(
      style: .table,
      columns: [
        Report.Column(key: "tensor", title: "tensor", width: 6),
        Report.Column(key: "pipeline", title: "pipeline", width: 8),
        Report.Column(key: "batch", title: "batch", width: 5),
        Report.Column(key: "milliseconds", title: "ms a token", width: 10),
        Report.Column(key: "tokens_per_second", title: "tokens/s", width: 9),
        Report.Column(key: "prompt_milliseconds", title: "prompt ms", width: 9),
        Report.Column(key: "fits", title: "fits", width: 4),
      ])
    try report.note("\(Format.decimal(weights / 1e9, 1)) billion weights; a prompt of \(context) tokens")
    var best: [Int: (seconds: Double, mesh: String)] = [:]
    var bestPrompt: (seconds: Double, mesh: String)?
    for tensor in 1...devices where devices.isMultiple(of: tensor) {
      let cost = MeshCost(
        hardware: hardware, model: model, mesh: MeshShape(tensor: tensor, pipeline: devices / tensor))
      guard devices / tensor <= layers else { continue }
      for count in batch.counts {
        let seconds = cost.decode(batch: Double(count), context: Double(context))
        let fits = cost.fits(batch: Double(count), context: Double(context))
        let name = "T\(tensor) P\(devices / tensor)"
        let prompt = cost.prompt(tokens: Double(context))
        if fits, seconds < best[count]?.seconds ?? .infinity { best[count] = (seconds, name) }
        if fits, prompt < bestPrompt?.seconds ?? .infinity { bestPrompt = (prompt, name) }
        try report.add([
          .count(tensor), .count(devices / tensor), .count(count), .number(seconds * 1000, decimals: 2),
          .number(Double(count) / seconds, decimals: 1),
          .number(prompt * 1000, decimals: 1), .text(fits ? "yes" : "no"),
        ])
      }
    }
    for count in batch.counts {
      guard let best = best[count] else {
        try report.note("batch \(count): fits no mesh of \(Format.count(devices, "device"))")
        continue
      }
      try report.note(
        "batch \(count): best \(best.mesh), \(Format.decimal(best.seconds * 1000, 2)) ms a token, "
          + "\(Format.decimal(Double(count) / best.seconds, 0)) tokens/s")
    }
    if let best = bestPrompt {
      try report.note("prompt: best \(best.mesh), \(Format.decimal(best.seconds * 1000, 1)) ms")
    }
  }
}
