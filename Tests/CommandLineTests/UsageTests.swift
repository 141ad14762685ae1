import Foundation
import Testing

/// What a user is told who asks for what cannot be.
@Suite struct UsageTests {
  @Test func theVersionIsOneLine() throws {
    let outcome = try Program.run("--version")
    #expect(outcome.code == 0)
    #expect(outcome.output.hasPrefix("vkinfer ") && outcome.output.split(separator: "\n").count == 1)
  }

  @Test(arguments: [
    ["bogus"], ["generate"], ["generate", "-m", "x", "-p", "a", "-f", "b"],
    ["generate", "-m", "x", "-n", "-1"],
    ["generate", "-m", "x", "-n", "many"], ["generate", "-m", "x", "-p", "a", "--temperature", "-1"],
    ["generate", "-m", "x", "-p", "a", "--temperature", "nan"],
    ["generate", "-m", "x", "-p", "a", "--top-p", "1.5"],
    ["generate", "-m", "x", "-p", "a", "--context", "0"],
    ["perplexity", "-m", "x", "-f", "y", "--context", "3"],
    ["inspect"], ["inspect", "x", "--context", "-5"], ["devices", "x"], ["tokenize", "text"],
    ["bench"], ["bench", "-m", "x", "--shape", "llama-3.2-1b"],
    ["bench", "-m", "x", "--prompt", "1,,2"],
    ["bench", "-m", "x", "--batch", "0"], ["bench", "-m", "x", "--json", "--csv"],
    ["bench", "--shape", "llama-3.2-1b", "--type", "q9_k"],
    ["bench", "shaders", "--columns", "0"], ["bench", "shaders", "--repetitions", "0"],
  ])
  func wrongOptionsAreNamedBeforeAnythingIsOpened(_ arguments: [String]) throws {
    let outcome = try Program.run(arguments)
    #expect(outcome.code == 64)
    #expect(outcome.error.hasPrefix("error: "))
    #expect(!outcome.error.contains("cannot be opened"))
    #expect(outcome.output.isEmpty)
  }

  @Test(arguments: [
    ["generate", "-p", "a", "-m"], ["perplexity", "-f", "/dev/null", "-m"], ["tokenize", "a", "-m"],
    ["inspect"],
  ])
  func hostileFilesAreOneLine(_ command: [String]) throws {
    let folder = try TemporaryFolder()
    let whole = try Data(contentsOf: URL(fileURLWithPath: Models.fixture("llama.gguf")))
    var files = [folder.path("missing.gguf"), folder.path("")]
    for (name, bytes) in [
      ("empty", Data()), ("text", Data("hello\n".utf8)), ("cut", whole.prefix(700)),
      ("short", whole.dropLast(4096)),
      ("counts", Data("GGUF".utf8) + Data([3, 0, 0, 0]) + Data(repeating: 0xFF, count: 64)),
    ] {
      files.append(folder.path(name))
      try bytes.write(to: URL(fileURLWithPath: folder.path(name)))
    }
    for file in files {
      let outcome = try Program.run(command + [file])
      #expect(!outcome.crashed && outcome.code == 1, "\(file)")
      #expect(outcome.error.hasPrefix("error: ") && outcome.error.contains(file), "\(outcome.error)")
      #expect(outcome.error.split(separator: "\n").count == 1, "\(outcome.error)")
    }
  }

  @Test func anUnsupportedArchitectureIsNamedWithThoseSupported() throws {
    let outcome = try Program.run(["generate", "-p", "a", "-m", modelFixture("metadata.gguf")])
    #expect(outcome.code == 1)
    #expect(outcome.error.contains("\"fixture\"") && outcome.error.contains("llama, qwen2, qwen3, gemma3"))
  }

  @Test func aFullDiskIsAnError() throws {
    let outcome = try Program.run("inspect", Models.fixture("llama.gguf"), output: "/dev/full")
    #expect(outcome.code == 1)
    #expect(outcome.error.hasPrefix("error: standard output cannot be written"))
  }

  private func modelFixture(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appending(path: "ModelFilesTests/Fixtures/\(name)").path
  }
}
