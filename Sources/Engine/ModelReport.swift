import Kernels
import ModelFiles
import Placement
import Tokenization
import Transformer
import VulkanRuntime

/// What a model file holds, and what running it takes; also of files that cannot be run.
public struct ModelReport: Sendable {
  /// One tensor of the file.
  public struct Tensor: Sendable {
    public let name: String
    /// For example "q4_k".
    public let type: String
    /// Sizes in the file's order: the contiguous dimension first.
    public let shape: [Int]
    public let byteCount: Int
  }

  /// All tensors of one type.
  public struct TypeSummary: Sendable {
    public let type: String
    public let tensorCount: Int
    public let weightCount: Int
    public let byteCount: Int
  }

  public enum Value: Sendable {
    case text(String)
    case integer(Int)
    case number(Double)
    case flag(Bool)
    /// An array: how long, with its values as text where it is short.
    case list(count: Int, values: [String]?)
  }

  public struct Tokens: Sendable {
    /// "gpt2" for byte-level BPE, "llama" for SentencePiece.
    public let model: String
    public let preTokenizer: String?
    public let vocabularySize: Int
    public let bos: Int?
    public let eos: Int?
    public let addsBOS: Bool
    /// Tokens that end a text.
    public let ends: [Int]
    public let hasChatTemplate: Bool
  }

  /// Device memory that a run takes, in bytes.
  public struct Memory: Sendable {
    public let weights: Int
    /// Keys and values of one token, all layers.
    public let cachePerToken: Int
    public let cacheType: KVCacheType
    public let contextLength: Int
    /// Activations of a step; nil when no device is there to ask.
    public let workspace: Int?
    /// The device that was asked, and why the model does not fit it, if it does not.
    public let device: String?
    public let misfit: String?

    /// Keys and values of the whole context.
    public var cache: Int { cachePerToken * contextLength }
    public var total: Int { weights + cache + (workspace ?? 0) }
  }

  public let paths: [String]
  public let fileBytes: Int
  public let formatVersion: Int
  public let name: String?
  public let architecture: String?
  /// What the architecture's row and the metadata come to; empty when the model cannot be run.
  public let hyperparameters: [(name: String, value: Value)]
  public let tensors: [Tensor]
  /// Largest first.
  public let types: [TypeSummary]
  public let metadata: [(key: String, value: Value)]
  public let tokenizer: Tokens?
  public let memory: Memory?
  /// Why the model cannot be run; empty if it can.
  public let problems: [String]

  /// Reads a GGUF file (any part of a split one).
  ///
  /// - Parameters:
  ///   - contextLength: gives, for those that the model was trained for, the tokens for which memory is reckoned.
  ///   - device: what `EngineOptions.device` takes.
  ///   - cacheType: what is kept of keys and values.
  /// - Throws: one line when it is no GGUF file or a damaged one. A model that is not supported is no error here.
  public init(
    path: String, contextLength: (_ trained: Int) -> Int, device: String? = nil, cacheType: KVCacheType = .f16
  ) throws {
    let file = try GGUFFile(path: path)
    paths = file.paths
    formatVersion = file.version
    name = file.metadata["general.name"]?.string
    architecture = file.metadata["general.architecture"]?.string
    tensors = file.tensors.map {
      Tensor(name: $0.name, type: $0.type.name, shape: $0.shape, byteCount: $0.byteCount)
    }
    fileBytes = file.tensors.reduce(0) { $0 + $1.byteCount }
    types = Self.summaries(file.tensors)
    metadata = file.metadataKeys.compactMap { key in file.metadata[key].map { (key, Value($0)) } }

    var problems: [String] = []
    do {
      tokenizer = Tokens(try Tokenizer(metadata: file.metadata))
    } catch {
      tokenizer = nil
      problems.append("\(error)")
    }
    var hyperparameters: [(name: String, value: Value)] = []
    var memory: Memory?
    do {
      let description = try ModelDescription(metadata: file.metadata, tensors: file.tensors)
      hyperparameters = Self.hyperparameters(description)
      let program = try Program(description, source: file).keeping(cacheType)
      memory = try Self.memory(
        program, contextLength: contextLength(description.contextLength), device: device)
    } catch let error as VulkanError {
      // A device was named that is not there.
      throw error
    } catch {
      problems.append("\(error)")
    }
    self.hyperparameters = hyperparameters
    self.memory = memory
    self.problems = problems
  }
}

// MARK: - Parts

extension ModelReport {
  private static func summaries(_ tensors: [TensorInfo]) -> [TypeSummary] {
    Dictionary(grouping: tensors, by: \.type).map { type, tensors in
      TypeSummary(
        type: type.name, tensorCount: tensors.count,
        weightCount: tensors.reduce(0) { $0 + $1.columns * $1.rows },
        byteCount: tensors.reduce(0) { $0 + $1.byteCount })
    }.sorted { ($0.byteCount, $0.type) > ($1.byteCount, $1.type) }
  }

  private static func hyperparameters(_ model: ModelDescription) -> [(name: String, value: Value)] {
    var values: [(name: String, value: Value)] = [
      ("context_length", .integer(model.contextLength)),
      ("layers", .integer(model.layerCount)),
      ("width", .integer(model.width)),
      ("feed_forward_width", .integer(model.feedForwardWidth)),
      ("heads", .integer(model.heads.headCount)),
      ("kv_heads", .integer(model.heads.kvHeadCount)),
      ("head_size", .integer(model.heads.headSize)),
      ("vocabulary_size", .integer(model.vocabularySize)),
      ("norm_epsilon", Value(model.normEpsilon)),
      ("rope_base", Value(model.rope.base)),
      ("rope_size", .integer(model.rope.rotatedSize)),
    ]
    if model.rope.positionScale != 1 {
      values.append(("rope_position_scale", Value(model.rope.positionScale)))
    }
    if model.rope.frequencyFactors != nil { values.append(("rope_frequency_factors", .flag(true))) }
    if let window = model.window {
      values.append(("window", .integer(window)))
      values.append(("windowed_layers", .integer(model.windowedLayers.count { $0 })))
      values.append(("windowed_rope_base", Value(model.windowedRope.base)))
    }
    if let softcap = model.attentionSoftcap { values.append(("attention_softcap", Value(softcap))) }
    if let softcap = model.logitsSoftcap { values.append(("logits_softcap", Value(softcap))) }
    return values
  }

  /// What a run takes on the device that it would use; without any device, all but the workspace.
  private static func memory(_ program: Program, contextLength: Int, device: String?) throws -> Memory {
    let cachePerToken = KVCache.pageBytes(heads: program.heads) / KVCache.pageTokens * program.layerCount
    guard let physical = try physicalDevice(device) else {
      return Memory(
        weights: DeviceModel.weightBytes(of: program), cachePerToken: cachePerToken,
        cacheType: program.heads.cacheType,
        contextLength: contextLength,
        workspace: nil, device: nil, misfit: nil)
    }
    let traits = DeviceTraits(physical)
    let plan = Engine.memoryPlan(
      program: program, contextLength: contextLength,
      limits: Engine.stepLimits(EngineOptions(), context: contextLength, traits: traits), traits: traits)
    var misfit: String?
    do {
      _ = try plan.fitted(
        available: Engine.availableMemory(physical), pageTokens: KVCache.pageTokens, mayShorten: false)
    } catch {
      misfit = "\(error)"
    }
    return Memory(
      weights: plan.weights, cachePerToken: plan.cachePerToken,
      cacheType: program.heads.cacheType, contextLength: contextLength,
      workspace: plan.workspace, device: physical.name, misfit: misfit)
  }

  /// The device that a run would use; nil where there is none and none was named.
  private static func physicalDevice(_ spec: String?) throws -> PhysicalDevice? {
    do {
      return try DeviceSelection.select(spec: spec, from: VulkanInstance().physicalDevices)
    } catch {
      if spec != nil { throw error }
      return nil
    }
  }
}

extension ModelReport.Value {
  /// The shortest number that reads back as the same single-precision one.
  init(_ value: Float) {
    self = .number(Double("\(value)") ?? Double(value))
  }

  init(_ value: MetadataValue) {
    if let text = value.string {
      self = .text(text)
    } else if let flag = value.bool {
      self = .flag(flag)
    } else if let integer = value.int {
      self = .integer(integer)
    } else if case .float32(let number) = value {
      self.init(number)
    } else if let number = value.double {
      self = .number(number)
    } else {
      let count = value.count ?? 0
      self = .list(count: count, values: count <= 16 ? Self.texts(value) : nil)
    }
  }

  private static func texts(_ value: MetadataValue) -> [String]? {
    if let strings = value.strings { return strings }
    if case .uint64Array(let values) = value { return values.map(String.init) }
    if let integers = value.ints { return integers.map(String.init) }
    if let flags = value.bools { return flags.map { $0 ? "true" : "false" } }
    if let numbers = value.floats { return numbers.map { "\($0)" } }
    return nil
  }
}

extension ModelReport.Tokens {
  init(_ tokenizer: Tokenizer) {
    model = tokenizer.modelName
    preTokenizer = tokenizer.preTokenizerName
    vocabularySize = tokenizer.vocabularySize
    bos = tokenizer.bos.map(Int.init)
    eos = tokenizer.eos.map(Int.init)
    addsBOS = tokenizer.addsBOS
    ends = tokenizer.endOfGeneration.map(Int.init).sorted()
    hasChatTemplate = tokenizer.chatTemplate != nil
  }
}
