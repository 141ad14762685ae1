import Foundation

/// Why a shader was not compiled: the lines to print.
struct ShaderError: Error {
  let message: String
}

/// One run of glslc over one variant.
struct ShaderCompilation {
  let compiler: String
  let name: String
  let source: String
  /// The folders that `#include` searches.
  let shaders: String
  let interface: String
  let output: String
  let format: String?
  /// The `//! formats:` line that the build was planned by.
  let formatsLine: String

  /// Compiles the variant. Empty data stands for a variant that needs a GLSL extension which this compiler
  /// does not know: the build goes on without it.
  func run() throws -> Data {
    let text = try String(contentsOfFile: source, encoding: .utf8)
    // Which variants there are is decided when the build is planned, and an edit of a file plans nothing anew.
    guard marked("formats:", in: text).first ?? "" == formatsLine else {
      throw ShaderError(
        message: "error: the formats of \(source) changed: touch Package.swift, then build again")
    }
    for needed in extensions(in: text) where try !compilerKnows(needed) {
      print("warning: shader \(name) left out: \(compiler) does not know \(needed)")
      return Data()
    }
    let input = try preparedSource(text)
    let spirv = output + ".spv"
    defer { try? FileManager.default.removeItem(atPath: spirv) }
    let sourceFolder = URL(filePath: source).deletingLastPathComponent().path
    var options = ["-O", "-I", sourceFolder, "-I", shaders, "-I", interface]
    if let format { options.append("-DFORMAT_\(format.uppercased())=1") }
    let (status, messages) = try compile(input, to: spirv, options: options)
    // A prepared source has the lines of the file it was made from.
    let readable = messages.replacing(input, with: source)
    guard status == 0 else { throw ShaderError(message: "shader \(name) does not compile\n\(readable)") }
    print(readable, terminator: "")
    return try Data(contentsOf: URL(filePath: spirv))
  }

  /// The GLSL extensions of the source's `//! needs:` lines.
  private func extensions(in text: String) -> [String] {
    marked("needs:", in: text).map { $0.dropFirst("//! needs:".count).trimmingCharacters(in: .whitespaces) }
  }

  /// The lines that start with `//!` and the word.
  private func marked(_ word: String, in text: String) -> [String] {
    text.split(whereSeparator: \.isNewline).filter { $0.hasPrefix("//! " + word) }.map(String.init)
  }

  /// Whether a shader that asks for nothing but the extension compiles.
  private func compilerKnows(_ needed: String) throws -> Bool {
    let probe = output + ".probe.comp"
    defer { for file in [probe, probe + ".spv"] { try? FileManager.default.removeItem(atPath: file) } }
    try "#extension \(needed) : require\nlayout(local_size_x = 1) in;\nvoid main() {}\n"
      .write(toFile: probe, atomically: true, encoding: .utf8)
    return try compile(probe, to: probe + ".spv", options: []).status == 0
  }

  /// The file to compile. An include whose name is a macro is not GLSL that glslc takes, so a shader with a
  /// format is compiled from a copy that names the format's file.
  private func preparedSource(_ text: String) throws -> String {
    guard let format else { return source }
    let copy = output + ".comp"
    try text.replacing("#include FORMAT_FILE", with: "#include \"formats/\(format).glsl\"")
      .write(toFile: copy, atomically: true, encoding: .utf8)
    return copy
  }

  private func compile(_ input: String, to spirv: String, options: [String]) throws -> (
    status: Int32, messages: String
  ) {
    let process = Process()
    process.executableURL = URL(filePath: compiler)
    process.arguments =
      ["-fshader-stage=compute", "--target-env=vulkan1.3", "-std=460"] + options + [input, "-o", spirv]
    let pipe = Pipe()
    process.standardError = pipe
    process.standardOutput = pipe
    do { try process.run() } catch {
      throw ShaderError(
        message: "error: cannot run the GLSL compiler \(compiler): \(error.localizedDescription)")
    }
    let messages = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: messages, as: UTF8.self))
  }
}
