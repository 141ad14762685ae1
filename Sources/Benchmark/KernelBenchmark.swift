import CShaderInterface
import Kernels
import ModelFiles
import Transformer
import VulkanRuntime

/// Every kernel alone, over the shapes and formats of real models.
package struct KernelBenchmark {
  let benchmark: BenchmarkDevice
  let shape: SyntheticShape
  let repetitions: Int
  let cacheType: KVCacheType
  /// Whether a figure of that name is wanted.
  let wants: (String) -> Bool

  package init(
    benchmark: BenchmarkDevice, shape: SyntheticShape, repetitions: Int, cacheType: KVCacheType = .f16,
    wants: @escaping (String) -> Bool
  ) {
    self.benchmark = benchmark
    self.shape = shape
    self.repetitions = repetitions
    self.cacheType = cacheType
    self.wants = wants
  }

  /// From so many tokens on they are taken for those of one prompt, not of as many sequences.
  private static let leastPrompt = 64

  // MARK: Kernels that depend on the weights

  /// The kernels that read weights of `type`: products, embedding, repacking.
  ///
  /// - Parameter method: how products are computed; only those are measured where it is not the usual way.
  package func weights(
    _ type: TensorType, columns: [Int], method: StepMethod = StepMethod(),
    onFigure: (KernelFigure) throws -> Void
  ) throws {
    for (stage, model) in try stages(type) where method.isUsual || stage.isLinear {
      let name =
        Self.name(stage) + (method.linear == .naive ? ", naive" : method.gemm.map { ", \($0)" } ?? "")
      let wanted = columns.filter { wants("\(name), columns \($0)") }
      guard let most = wanted.max(), stage.isLinear || stage.isEmbed else { continue }
      let subject = try subject(stage, model, most: most, method: method)
      for count in wanted {
        let step = StageSubject.Step(columns: count, isPrompt: true, hasOutputs: stage.isLogits)
        let timing = try subject.time(step, repetitions: repetitions)
        let weights = Self.weights(stage)
        let bytes =
          stage.isEmbed
          ? Double(count * subject.model.stages[0].tableBytes / max(1, shape.vocabularySize))
          : Double(subject.model.stages[0].matrixBytes)
        try onFigure(
          KernelFigure(
            name: name, type: Self.type(stage), columns: count,
            microseconds: timing.seconds.map { $0 * 1e6 }, bytes: bytes,
            operations: stage.isEmbed ? nil : 2 * weights * Double(count),
            compiler: try benchmark.compilerText(timing.pipelines)))
      }
    }
    if method.isUsual { try loading(type, onFigure: onFigure) }
  }

  /// Each product of the layer and the logits cut in every sound way, the default first, then the `count` fastest.
  ///
  /// - Parameter method: how products are computed; where that is the usual way, several columns go straight to the
  ///   matrix units where they can, and many through shared memory.
  package func tilings(
    _ type: TensorType, columns: [Int], method: StepMethod, count: Int,
    onFigure: (KernelFigure) throws -> Void
  ) throws {
    let direct = StepMethod(gemm: .direct)
    let canDirect = benchmark.cache(for: direct).traits.fragments != nil
    func chosen(_ columnCount: Int) -> StepMethod {
      guard method.isUsual, canDirect, columnCount > 1 else { return method }
      return columnCount <= DirectMatrixKernel.mostTokens ? direct : StepMethod(gemm: .matrix)
    }
    for (stage, model) in try stages(type) where stage.isLinear {
      let name = Self.name(stage) + (method.gemm.map { ", \($0)" } ?? "")
      let wanted = columns.filter { wants("\(name), columns \($0)") }
      guard let most = wanted.max() else { continue }
      let weights = Self.weights(stage)
      var subjects: [StepMethod: StageSubject] = [:]
      for columnCount in wanted {
        let method = chosen(columnCount)
        let subject = try subjects[method] ?? subject(stage, model, most: most, method: method)
        subjects[method] = subject
        let step = StageSubject.Step(
          columns: columnCount, isPrompt: columnCount >= Self.leastPrompt, hasOutputs: true)
        let timings =
          subject.prepare(step).usesMatrixUnits
          ? try MatrixTilingComparison(subject: subject, step: step).run(
            repetitions: repetitions, best: count)
          : try TilingComparison(subject: subject, columnCount: columnCount)
            .run(repetitions: repetitions, best: count)
        for (tiling, timing) in timings {
          try onFigure(
            KernelFigure(
              name: "\(name), \(tiling)", type: Self.type(stage), columns: columnCount,
              microseconds: timing.seconds.map { $0 * 1e6 },
              bytes: Double(subject.model.stages[0].matrixBytes),
              operations: 2 * Double(columnCount) * weights,
              compiler: try benchmark.compilerText(timing.pipelines)))
        }
      }
    }
  }

  /// Random blocks made and unpacked: what loading costs beyond the transfer.
  private func loading(_ type: TensorType, onFigure: (KernelFigure) throws -> Void) throws {
    let columns = shape.feedForwardWidth
    let (randomName, repackName) = ("random blocks", "repack, rows of \(columns)")
    guard wants(randomName) || wants(repackName), columns.isMultiple(of: type.blockSize) else { return }
    let format = WeightFormat.of(type)
    let rowBytes = columns / type.blockSize * type.blockBytes
    let rows = min(32768, max(1, (benchmark.traits.isCPU ? 16 << 20 : 256 << 20) / rowBytes))
    let blocks = try benchmark.device.makeBuffer(
      byteCount: rows * rowBytes + 8, memory: .device, label: "blocks")
    guard let tensor = TensorInfo(name: "blocks", shape: [columns, rows], type: type) else { return }
    let source = RandomTensorSource(tensors: [tensor], seed: 1, hasRecipes: true)
    guard let recipe = source.recipe(of: tensor) else { return }
    let cache = benchmark.cache
    func report(_ name: String, bytes: Int, _ record: (CommandBuffer) throws -> Void) throws {
      let timing = try benchmark.time(
        repetitions: repetitions, keepAlive: [blocks], record: record)
      guard wants(name) else { return }
      try onFigure(
        KernelFigure(
          name: name, type: type.name, microseconds: timing.seconds.map { $0 * 1e6 }, bytes: Double(bytes),
          compiler: try benchmark.compilerText(timing.pipelines)))
    }
    // Repacking needs blocks to work on.
    try report(randomName, bytes: rows * rowBytes) { commands in
      try RandomKernel(recipe: recipe).record(
        commands, destination: blocks.address, byteCount: rows * rowBytes, firstBlock: 0, cache: cache)
    }
    guard wants(repackName) else { return }
    let loader = try WeightLoader(
      cache: cache, source: source, pieces: [], onProgress: { _ in })
    let matrix = try loader.matrix([.init(slice: TensorSlice(tensor))])
    let planes = try loader.finish().buffers
    try report(repackName, bytes: rows * rowBytes + matrix.byteCount) { commands in
      var push = RepackPush()
      push.source = blocks.address
      push.source_blocks_per_row = UInt32(columns / format.repackBlock)
      push.row_count = UInt32(rows)
      push.row_stride = 1
      commands.keepAlive(planes)
      try RepackKernel(matrix: matrix).record(commands, push: push, cache: cache)
    }
  }

  // MARK: Kernels that do not

  /// Attention after each of `depths` tokens, and sampling.
  package func others(
    columns: [Int], depths: [Int], onFigure: (KernelFigure) throws -> Void
  ) throws {
    let (program, tensors) = try model(.f32)
    for stage in program.stages {
      guard case .attention(let attention) = stage else { continue }
      let heads = attention.heads
      for depth in depths {
        let name =
          "attention \(heads.headCount)/\(heads.kvHeadCount)x\(heads.headSize)"
          + (cacheType == .f16 ? "" : " \(cacheType.rawValue)") + " after \(depth)"
        for count in columns where wants("\(name), columns \(count)") {
          let isPrompt = count >= Self.leastPrompt
          let step = StageSubject.Step(columns: count, depth: depth, isPrompt: isPrompt)
          let positionBytes = 2 * heads.kvHeadCount * heads.cacheType.byteCount(heads.headSize)
          let positions = isPrompt ? depth + count : (depth + 1) * count
          let subject = try StageSubject(
            benchmark: benchmark, stage: stage, of: program, source: tensors,
            bytesPerCopy: positions * positionBytes, most: step)
          let timing = try subject.time(step, repetitions: repetitions)
          // Each token with those before it.
          let pairs =
            isPrompt
            ? Double(count) * (Double(depth) + Double(count + 1) / 2) : Double(positions)
          try onFigure(
            KernelFigure(
              name: name + (isPrompt ? ", prompt" : ""), columns: count,
              microseconds: timing.seconds.map { $0 * 1e6 }, bytes: Double(positions * positionBytes),
              operations: 4 * pairs * Double(heads.headCount * heads.headSize),
              compiler: try benchmark.compilerText(timing.pipelines)))
        }
      }
    }
    try sampling(program, tensors, columns: columns, onFigure: onFigure)
  }

  private func sampling(
    _ program: Program, _ tensors: [TensorInfo], columns: [Int], onFigure: (KernelFigure) throws -> Void
  ) throws {
    var filtered = SampleParameters.greedy(sequence: 0, position: 1)
    filtered.temperature = 0.8
    filtered.top_k = 40
    filtered.top_p = 0.95
    let kinds = [
      ("greedy", SampleParameters.greedy(sequence: 0, position: 1)),
      ("t 0.8, top-k 40, top-p 0.95", filtered),
    ]
    for (kind, parameters) in kinds {
      let name = "sampling of \(program.vocabularySize), \(kind)"
      for count in columns where count < Self.leastPrompt && wants("\(name), columns \(count)") {
        let step = StageSubject.Step(columns: count, hasOutputs: true)
        let subject = try StageSubject(
          benchmark: benchmark, stage: nil, of: program, source: tensors, bytesPerCopy: 0, most: step)
        let timing = try subject.time(step, samples: parameters, repetitions: repetitions)
        try onFigure(
          KernelFigure(
            name: name, columns: count, microseconds: timing.seconds.map { $0 * 1e6 },
            bytes: Double(4 * count * program.vocabularySize),
            compiler: try benchmark.compilerText(timing.pipelines)))
      }
    }
  }

  // MARK: -

  /// The shape with one layer.
  private func model(_ type: TensorType) throws -> (Program, [TensorInfo]) {
    var shape = shape
    shape.layerCount = 1
    let description = try ModelDescription.synthetic(shape: shape, weights: type)
    let source = RandomTensorSource(tensors: description.tensors, seed: 1, hasRecipes: true)
    return (try Program(description, source: source).keeping(cacheType), description.tensors)
  }

  private func stages(_ type: TensorType) throws -> [(Stage, (Program, [TensorInfo]))] {
    let model = try model(type)
    return model.0.stages.map { ($0, model) }
  }

  private func subject(
    _ stage: Stage, _ model: (Program, [TensorInfo]), most: Int, method: StepMethod = StepMethod()
  ) throws -> StageSubject {
    let bytes = Set(stage.matrices).reduce(0) { sum, slice in
      sum
        + WeightFormat.of(slice.type).planeOffsets(rows: slice.rows.count, columns: slice.columns.count).total
    }
    return try StageSubject(
      benchmark: benchmark, method: method, stage: stage, of: model.0, source: model.1, bytesPerCopy: bytes,
      most: StageSubject.Step(columns: most, isPrompt: true, hasOutputs: true))
  }

  /// "linear norm+QKV+rope 6144x4096": rows by columns of all matrices together.
  private static func name(_ stage: Stage) -> String {
    let rows = stage.matrices.reduce(0) { $0 + $1.rows.count }
    let columns = stage.matrices.first?.columns.count ?? 0
    return "\(stage.isEmbed ? "" : "linear ")\(stage.kindName) \(rows)x\(columns)"
  }

  /// Weights of all matrices together.
  private static func weights(_ stage: Stage) -> Double {
    stage.matrices.reduce(0) { $0 + Double($1.rows.count) * Double($1.columns.count) }
  }

  private static func type(_ stage: Stage) -> String? { stage.matrices.first?.type.name }
}

extension Stage {
  fileprivate var isEmbed: Bool { if case .embed = self { true } else { false } }
  fileprivate var isLogits: Bool { if case .logits = self { true } else { false } }
  fileprivate var isLinear: Bool { !matrices.isEmpty && !isEmbed }
}

extension DeviceStage {
  /// Bytes of an embedding table; 0 for other stages.
  fileprivate var tableBytes: Int { if case .embed(let table, _, _) = self { table.byteCount } else { 0 } }
}
