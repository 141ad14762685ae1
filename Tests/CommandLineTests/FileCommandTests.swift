import Foundation
import Testing

/// Commands that need no device: tokenize and inspect.
@Suite struct FileCommandTests {
  @Test func aVocabularyWithoutWeightsIsEnoughToTokenize() throws {
    let folder = try TemporaryFolder()
    let model = try Models.vocabulary(in: folder)
    // Ids count from "!", 0x21.
    let ids = try Program.run(["tokenize", "-m", model, "--ids", "xabcab<end>"])
    #expect(ids.code == 0)
    #expect(ids.output == "\(0x78 - 0x21) 94 93 95\n")
    let lines = try Program.run(["tokenize", "-m", model, "ab\"<end>"])
    #expect(lines.output == "93  \"ab\"\n 1  \"\\\"\"\n95  \"<end>\"\n")
  }

  @Test func textComesFromStandardInputAsItIs() throws {
    let folder = try TemporaryFolder()
    let model = try Models.vocabulary(in: folder)
    let outcome = try Program.run(["tokenize", "-m", model, "--ids"], input: Data("abc".utf8))
    #expect(outcome.output == "94\n")
    let invalid = try Program.run(["tokenize", "-m", model, "--ids"], input: Data([0xFF, 0x61, 0x62]))
    #expect(invalid.code == 0 && !invalid.crashed)
    #expect(invalid.output.hasSuffix("93\n"))
  }

  @Test func inspectShowsWhatTheFileHolds() throws {
    let outcome = try Program.run(["inspect", "--json", "--tensors", Models.fixture("gemma3.gguf")])
    #expect(outcome.code == 0)
    let report = try #require(outcome.json)
    #expect(report["architecture"] as? String == "gemma3")
    // It has no tokenizer.
    #expect(report["runnable"] as? Bool == false)
    let parameters = try #require(report["hyperparameters"] as? [String: Any])
    #expect(parameters["window"] as? Int == 5)
    #expect(parameters["head_size"] as? Int == 16)
    let tensors = try #require(report["tensors"] as? [[String: Any]])
    #expect(
      tensors.contains { $0["name"] as? String == "token_embd.weight" && $0["shape"] as? [Int] == [32, 96] })
    let memory = try #require(report["memory"] as? [String: Any])
    // Seven layers of one kv head of 16, keys and values, in 16 bits.
    #expect(memory["kv_cache_bytes_per_token"] as? Int == 7 * 16 * 2 * 2)
    #expect(memory["context"] as? Int == 128)
  }

  @Test func inspectDoesWithoutAVulkanDriver() throws {
    let outcome = try Program.run(
      ["inspect", "--json", Models.fixture("llama.gguf")], environment: ["VK_DRIVER_FILES": "/nonexistent"])
    #expect(outcome.code == 0)
    let memory = try #require(outcome.json?["memory"] as? [String: Any])
    #expect(memory["device"] is NSNull && memory["workspace_bytes"] is NSNull)
  }
}
