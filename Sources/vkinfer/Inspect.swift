import ArgumentParser
import Engine

/// `vkinfer inspect`: what a model file holds.
struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what a model file holds, and the memory that running it takes.")

  @Argument(help: ArgumentHelp("The model: a GGUF file, or any part of a split one.", valueName: "model"))
  var model: String

  @Option(
    help: ArgumentHelp(
      "Tokens of context to reckon memory for (default: as generate takes).", valueName: "tokens"))
  var context: Int?

  @Option(
    help: ArgumentHelp("A device's number in `vkinfer devices`, or part of its name.", valueName: "device"))
  var device: String?

  @OptionGroup var cache: CacheOptions

  @Flag(help: "List every tensor.")
  var tensors = false

  @Flag(help: "Write one JSON object.")
  var json = false

  func validate() throws {
    if let context, !(1...Int(Int32.max)).contains(context) {
      throw ValidationError("--context \(context) is not possible: use 1 to \(Int32.max)")
    }
  }

  func run() throws {
    let report = try ModelReport(
      path: model,
      contextLength: { context ?? Generate.usualContext(prompt: 0, tokens: nil, trained: $0) },
      device: device, cacheType: cache.kvType)
    try Output.write(json ? object(report).text + "\n" : text(report))
  }

  // MARK: - For a reader

  private func text(_ report: ModelReport) -> String {
    let weights = report.types.reduce(0) { $0 + $1.weightCount }
    var text = Self.section(
      nil,
      [("file", Format.oneLine(report.paths.first ?? model, limit: 4096))]
        + (report.paths.count > 1 ? [("parts", String(report.paths.count))] : [])
        + [
          ("format", "GGUF version \(report.formatVersion)"),
          ("name", Format.oneLine(report.name ?? "none", limit: 100)),
          ("architecture", Format.oneLine(report.architecture ?? "none", limit: 100)),
          ("weights", "\(Format.grouped(weights)) in \(Format.bytes(report.fileBytes))"),
        ])
    for problem in report.problems { text += "cannot be run: \(problem)\n" }
    text += Self.section(
      "hyperparameters",
      report.hyperparameters.map { ($0.name.replacing("_", with: " "), Self.text($0.value)) })
    text += Self.section(
      "tensors",
      report.types.map { type in
        (
          type.type,
          "\(Format.count(type.tensorCount, "tensor")), \(Format.grouped(type.weightCount)) weights, "
            + Format.bytes(type.byteCount)
        )
      })
    if let tokenizer = report.tokenizer { text += Self.section("tokenizer", Self.rows(tokenizer)) }
    if let memory = report.memory { text += Self.section("device memory to run it", Self.rows(memory)) }
    if let misfit = report.memory?.misfit { text += "does not fit: \(misfit)\n" }
    text += Self.section(
      "metadata", report.metadata.map { (Format.oneLine($0.key, limit: 80), Self.text($0.value)) })
    if tensors {
      text += Self.section(
        "every tensor",
        report.tensors.map { tensor in
          let shape = tensor.shape.map(String.init).joined(separator: " x ")
          return (
            Format.oneLine(tensor.name, limit: 80),
            "\(Format.pad(tensor.type, 7)) \(Format.pad(shape, 16)) \(Format.bytes(tensor.byteCount))"
          )
        })
    }
    return text
  }

  /// A heading and a line for each row, values one below the other; nothing without rows.
  private static func section(_ title: String?, _ rows: [(String, String)]) -> String {
    guard !rows.isEmpty else { return "" }
    let width = rows.reduce(0) { max($0, $1.0.count) } + 2
    let indent = title == nil ? "" : "  "
    return (title.map { "\n\($0)\n" } ?? "")
      + rows.map { "\(indent)\(Format.pad($0.0, width))\($0.1)\n" }.joined()
  }

  private static func rows(_ tokenizer: ModelReport.Tokens) -> [(String, String)] {
    let kind = tokenizer.model == "llama" ? "SentencePiece BPE" : "byte-level BPE"
    let pre = tokenizer.preTokenizer.map { ", pre-tokenizer \(Format.oneLine($0, limit: 60))" } ?? ""
    return [
      ("kind", "\(kind) (\(tokenizer.model))\(pre)"),
      ("vocabulary", Format.count(tokenizer.vocabularySize, "token")),
      (
        "begins with",
        tokenizer.addsBOS ? "token \(tokenizer.bos.map(String.init) ?? "none")" : "no special token"
      ),
      (
        "ends with",
        tokenizer.ends.isEmpty ? "none" : "token " + tokenizer.ends.map(String.init).joined(separator: ", ")
      ),
      ("chat template", tokenizer.hasChatTemplate ? "yes" : "none"),
    ]
  }

  private static func rows(_ memory: ModelReport.Memory) -> [(String, String)] {
    var rows = [
      ("weights", Format.bytes(memory.weights)),
      (
        "KV cache",
        "\(Format.bytes(memory.cache)) for \(Format.grouped(memory.contextLength)) tokens, "
          + "\(Format.bytes(memory.cachePerToken)) each in \(memory.cacheType.rawValue)"
      ),
      ("workspace", memory.workspace.map(Format.bytes) ?? "unknown: there is no Vulkan device to ask"),
      ("in all", Format.bytes(memory.total) + (memory.workspace == nil ? " and the workspace" : "")),
    ]
    if let device = memory.device {
      rows.append(("device", memory.misfit == nil ? "\(device), where it fits" : device))
    }
    return rows
  }

  private static func text(_ value: ModelReport.Value) -> String {
    switch value {
    case .text(let text): Format.oneLine(text, limit: 100)
    case .integer(let integer): String(integer)
    case .number(let number): "\(number)"
    case .flag(let flag): flag ? "yes" : "no"
    case .list(_, let values?): Format.oneLine("[\(values.joined(separator: ", "))]", limit: 100)
    case .list(let count, nil): "\(Format.grouped(count)) values"
    }
  }

  // MARK: - For a program

  private func object(_ report: ModelReport) -> JSON {
    var members: [(String, JSON)] = [
      ("files", .array(report.paths.map(JSON.string))),
      ("format_version", .int(report.formatVersion)),
      ("name", .optional(report.name)),
      ("architecture", .optional(report.architecture)),
      ("runnable", .bool(report.problems.isEmpty)),
      ("problems", .array(report.problems.map(JSON.string))),
      ("weights", .int(report.types.reduce(0) { $0 + $1.weightCount })),
      ("weight_bytes", .int(report.fileBytes)),
      ("hyperparameters", .object(report.hyperparameters.map { ($0.name, Self.json($0.value)) })),
      (
        "tensor_types",
        .array(
          report.types.map {
            .object([
              ("type", .string($0.type)), ("tensors", .int($0.tensorCount)),
              ("weights", .int($0.weightCount)),
              ("bytes", .int($0.byteCount)),
            ])
          })
      ),
      ("tokenizer", report.tokenizer.map(Self.json) ?? .null),
      ("memory", report.memory.map(Self.json) ?? .null),
      ("metadata", .object(report.metadata.map { ($0.key, Self.json($0.value)) })),
    ]
    if tensors {
      let list = report.tensors.map { tensor in
        JSON.object([
          ("name", .string(tensor.name)), ("type", .string(tensor.type)),
          ("shape", .array(tensor.shape.map(JSON.int))), ("bytes", .int(tensor.byteCount)),
        ])
      }
      members.append(("tensors", .array(list)))
    }
    return .object(members)
  }

  private static func json(_ tokenizer: ModelReport.Tokens) -> JSON {
    .object([
      ("model", .string(tokenizer.model)),
      ("pre_tokenizer", .optional(tokenizer.preTokenizer)),
      ("vocabulary_size", .int(tokenizer.vocabularySize)),
      ("bos", .optional(tokenizer.bos)),
      ("eos", .optional(tokenizer.eos)),
      ("adds_bos", .bool(tokenizer.addsBOS)),
      ("end_of_generation", .array(tokenizer.ends.map(JSON.int))),
      ("has_chat_template", .bool(tokenizer.hasChatTemplate)),
    ])
  }

  private static func json(_ memory: ModelReport.Memory) -> JSON {
    .object([
      ("weights_bytes", .int(memory.weights)),
      ("kv_cache_type", .string(memory.cacheType.rawValue)),
      ("kv_cache_bytes_per_token", .int(memory.cachePerToken)),
      ("context", .int(memory.contextLength)),
      ("kv_cache_bytes", .int(memory.cache)),
      ("workspace_bytes", .optional(memory.workspace)),
      ("total_bytes", .int(memory.total)),
      ("device", .optional(memory.device)),
      ("fits", memory.device == nil ? .null : .bool(memory.misfit == nil)),
      ("misfit", .optional(memory.misfit)),
    ])
  }

  private static func json(_ value: ModelReport.Value) -> JSON {
    switch value {
    case .text(let text): .string(text)
    case .integer(let integer): .int(integer)
    case .number(let number): .double(number)
    case .flag(let flag): .bool(flag)
    case .list(_, let values?): .array(values.map(JSON.string))
    case .list(let count, nil): .object([("count", .int(count))])
    }
  }
}
