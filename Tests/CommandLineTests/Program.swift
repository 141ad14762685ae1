import Foundation
import ModelFiles

/// The built program, run as a user runs it.
enum Program {
  struct Outcome {
    var output: String
    var error: String
    var code: Int32
    /// Whether a signal ended it: a trap, for one.
    var crashed: Bool

    var json: [String: Any]? {
      (try? JSONSerialization.jsonObject(with: Data(output.utf8))) as? [String: Any]
    }
  }

  /// Beside the tests' own program.
  private static let url = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    .deletingLastPathComponent().appending(path: "vkinfer")

  static func run(_ arguments: String..., output: String? = nil) throws -> Outcome {
    try run(arguments, output: output)
  }

  /// Runs it to its end.
  ///
  /// - Parameters:
  ///   - environment: variables that differ from this process's.
  ///   - output: a file to write standard output to; nil collects it.
  static func run(
    _ arguments: [String], input: Data = Data(), environment: [String: String] = [:], output: String? = nil
  ) throws -> Outcome {
    let process = Process()
    process.executableURL = url
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    // Files, not pipes: whatever the program writes, nobody has to read beside it.
    let folder = try TemporaryFolder()
    func file(_ name: String, _ contents: Data = Data()) throws -> FileHandle {
      let path = folder.path(name)
      try contents.write(to: URL(fileURLWithPath: path))
      return try FileHandle(forUpdating: URL(fileURLWithPath: path))
    }
    process.standardInput = try file("in", input)
    let outputFile = try output.map { try FileHandle(forWritingTo: URL(fileURLWithPath: $0)) } ?? file("out")
    let errorFile = try file("error")
    process.standardOutput = outputFile
    process.standardError = errorFile
    try process.run()
    process.waitUntilExit()
    func text(_ name: String) throws -> String {
      String(decoding: try Data(contentsOf: URL(fileURLWithPath: folder.path(name))), as: UTF8.self)
    }
    return Outcome(
      output: output == nil ? try text("out") : "", error: try text("error"), code: process.terminationStatus,
      crashed: process.terminationReason == .uncaughtSignal)
  }
}

/// A folder that goes away with its last user.
final class TemporaryFolder {
  private let url: URL

  init() throws {
    url = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  func path(_ name: String) -> String { url.appending(path: name).path }
}

/// Model files made for these tests.
enum Models {
  private static let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent()

  /// A model of random weights and 96 tokens, without a tokenizer.
  static func fixture(_ name: String) -> String {
    tests.appending(path: "ReferenceTests/Fixtures/\(name)").path
  }

  /// A byte-level vocabulary of 96 tokens: printable ASCII without a space, two merges among them, then `<end>`.
  private static func setVocabulary(_ writer: inout GGUFWriter) {
    var tokens = (0x21...0x7D).map { String(UnicodeScalar(UInt8($0))) }
    tokens += ["ab", "abc", "<end>"]
    writer.set("tokenizer.ggml.model", .string("gpt2"))
    writer.set("tokenizer.ggml.pre", .string("gpt-2"))
    writer.set("tokenizer.ggml.tokens", .stringArray(tokens))
    writer.set("tokenizer.ggml.token_type", .int32Array(tokens.map { $0 == "<end>" ? 3 : 1 }))
    writer.set("tokenizer.ggml.merges", .stringArray(["a b", "ab c"]))
    writer.set("tokenizer.ggml.eos_token_id", .uint32(95))
    writer.set("tokenizer.ggml.bos_token_id", .uint32(95))
    writer.set("tokenizer.ggml.add_bos_token", .bool(false))
  }

  /// A file with a vocabulary and no weights.
  static func vocabulary(in folder: TemporaryFolder) throws -> String {
    var writer = GGUFWriter()
    setVocabulary(&writer)
    let path = folder.path("vocabulary.gguf")
    try writer.write(to: path) { _, _ in }
    return path
  }

  /// A small model of random weights that can be run.
  static func runnable(in folder: TemporaryFolder) throws -> String {
    let source = try GGUFFile(path: fixture("llama.gguf"))
    var writer = GGUFWriter()
    for key in source.metadataKeys { if let value = source.metadata[key] { writer.set(key, value) } }
    setVocabulary(&writer)
    for tensor in source.tensors { writer.add(tensor) }
    let path = folder.path("model.gguf")
    try writer.write(to: path, from: source)
    return path
  }
}
