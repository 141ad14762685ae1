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
    ["generate", "-m", "x", "--prompts", "y", "-p", "a"],
    ["generate", "-m", "x", "--prompts", "y", "--json"],
    ["generate", "-m", "x", "--prompts", "y", "--parallel", "0"],
    ["generate", "-m", "x", "-p", "a", "--parallel", "2"],
    ["generate", "-m", "x", "-n", "many"], ["generate", "-m", "x", "-p", "a", "--temperature", "-1"],
    ["generate", "-m", "x", "-p", "a", "--temperature", "nan"],
    ["generate", "-m", "x", "-p", "a", "--top-p", "1.5"],
    ["generate", "-m", "x", "-p", "a", "--context", "0"],
    ["perplexity", "-m", "x", "-f", "y", "--context", "3"],
    ["perplexity", "-m", "x", "-f", "y", "--device", "0", "--devices", "0,0"],
    ["perplexity", "-m", "x", "-f", "y", "--data-parallel", "2"],
    ["inspect"], ["inspect", "x", "--context", "-5"], ["devices", "x"], ["tokenize", "text"],
    ["bench"], ["bench", "-m", "x", "--shape", "llama-3.2-1b"],
    ["bench", "-m", "x", "--prompt", "1,,2"],
    ["bench", "-m", "x", "--batch", "0"], ["bench", "-m", "x", "--json", "--csv"],
    ["bench", "--shape", "llama-3.2-1b", "--type", "q9_k"],
    ["selftest", "--jobs", "0"], ["selftest", "--compile-only", "--jobs", "2"],
    ["bench", "mesh", "--shape", "llama-3.2-1b", "--depth", "0"],
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

  @Test(arguments: [
    ("nonsense", "is no JSON object"), ("[1]", "is no JSON object"),
    ("{\"prompt\": \"a\"", "is no JSON object"),
    ("{\"prompt\": 1}", "\"prompt\" must be a string"), ("{\"max_tokens\": 1}", "\"prompt\" is missing"),
    ("{\"prompt\": \"a\", \"max_token\": 1}", "\"max_token\" is unknown"),
    ("{\"prompt\": \"a\", \"max_tokens\": 1.5}", "\"max_tokens\" must be a whole number"),
    ("{\"prompt\": \"a\", \"top_p\": 2}", "top-p 2.0 is out of range"),
    ("{\"prompt\": \"a\", \"temperature\": 1e60}", "temperature inf is out of range"),
    ("{\"prompt\": \"a\", \"seed\": -1}", "\"seed\" must be a whole number"),
    ("{\"prompt\": \"a\", \"stop\": [\"b\", 2]}", "\"stop\" must be a list of strings"),
    (String(repeating: "[", count: 100_000), "is no JSON object"),
  ])
  func aWrongRequestIsNamedByItsLineBeforeAnythingRuns(line: String, error: String) throws {
    for end in ["\n", "\r\n"] {
      let outcome = try Program.run(
        ["generate", "-m", "missing.gguf", "--prompts", "-"],
        input: Data("{\"prompt\": \"good\"}\(end)\(end)\(line)\(end)".utf8))
      #expect(outcome.code == 1 && !outcome.crashed && outcome.output.isEmpty)
      #expect(outcome.error.hasPrefix("error: standard input, line 3: \(error)"), "\(outcome.error)")
      #expect(outcome.error.split(separator: "\n").count == 1)
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
