import Foundation
import Testing

/// Commands that use a device; without any, only what they say of that.
@Suite(.serialized) struct DeviceCommandTests {
  /// Whether a device can be used here.
  static let hasDevice = (try? Program.run("devices"))?.code == 0
  static let none: Comment = "no usable Vulkan device"

  @Test func noDriverIsOneLine() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    for arguments in [["devices"], ["generate", "-m", model, "-p", "abc"]] {
      let outcome = try Program.run(arguments, environment: ["VK_DRIVER_FILES": "/nonexistent"])
      #expect(outcome.code == 1)
      #expect(outcome.error.hasPrefix("error: ") && outcome.error.split(separator: "\n").count == 1)
      #expect(outcome.error.contains("install"))
    }
  }

  @Test(.enabled(if: hasDevice, none)) func devicesSaysWhichIsUsedAndWhy() throws {
    let report = try #require(Program.run("devices", "--json").json)
    let devices = try #require(report["devices"] as? [[String: Any]])
    #expect(devices.first?["index"] as? Int == report["chosen"] as? Int)
    #expect(devices.first?["usable"] as? Bool == true)
    #expect((report["reason"] as? String)?.isEmpty == false)
    let isCPU = devices.first?["kind"] as? String == "cpu"
    #expect(isCPU == (report["warning"] is String))
  }

  @Test(.enabled(if: hasDevice, none)) func anUnknownDeviceIsNamedWithThoseThereAre() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    let outcome = try Program.run("generate", "-m", model, "-p", "abc", "--device", "no such device")
    #expect(outcome.code == 1)
    #expect(outcome.error.hasPrefix("error: no device fits 'no such device'; there are: 0 "))
  }

  @Test(.enabled(if: hasDevice, none)) func generateGivesOneObjectAndTheSameTextAsText() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    let object = try Program.run(
      "generate", "-m", model, "-p", "abcabc", "-n", "12", "--ignore-eos", "--json", "--quiet")
    #expect(object.code == 0 && object.error.isEmpty, "\(object.error)")
    let report = try #require(object.json)
    let keys: Set = [
      "text", "tokens", "prompt_tokens", "load_seconds", "time_to_first_token_seconds",
      "prompt_tokens_per_second",
      "decode_tokens_per_second", "device_memory_bytes", "device", "finish_reason",
    ]
    #expect(Set(report.keys) == keys)
    #expect((report["tokens"] as? [Int])?.count == 12)
    #expect(report["prompt_tokens"] as? Int == 2)
    #expect(report["finish_reason"] as? String == "length")
    let text = try #require(report["text"] as? String)

    let plain = try Program.run(
      ["generate", "-m", model, "-n", "12", "--ignore-eos"], input: Data("abcabc\n".utf8))
    #expect(plain.code == 0)
    #expect(plain.output == text + "\n")
    #expect(plain.error.contains("tokens/s") && plain.error.contains("memory"))
  }

  @Test(.enabled(if: hasDevice, none)) func aPrintedSeedGivesTheSameTextAgain() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    let arguments = [
      "generate", "-m", model, "-p", "abc", "-n", "20", "--ignore-eos", "--temperature", "2", "--json",
    ]
    let first = try #require(Program.run(arguments).json)
    let seed = try #require(first["seed"] as? Int)
    let second = try #require(Program.run(arguments + ["--seed", String(seed)]).json)
    #expect(first["tokens"] as? [Int] == second["tokens"] as? [Int])
    let third = try #require(Program.run(arguments + ["--seed", String(seed + 1)]).json)
    #expect(first["tokens"] as? [Int] != third["tokens"] as? [Int])
  }

  @Test(.enabled(if: hasDevice, none)) func promptsThatDoNotFitAreOneLine() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    for (prompt, context) in [("", "64"), ("!\"#$%&", "5"), (String(repeating: "!", count: 5000), "64")] {
      let outcome = try Program.run("generate", "-m", model, "-p", prompt, "--context", context)
      #expect(outcome.code == 1)
      #expect(
        outcome.error.hasPrefix("error: the prompt has ") && outcome.error.split(separator: "\n").count == 1)
    }
  }

  @Test(.enabled(if: hasDevice, none)) func perplexityEndsWithTheFigure() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    let text = Data(String(repeating: "abc!d\"e#", count: 30).utf8)
    let outcome = try Program.run(["perplexity", "-m", model, "-f", "-", "--context", "32"], input: text)
    #expect(outcome.code == 0, "\(outcome.error)")
    let figure = try #require(outcome.output.split(separator: "\n").last.flatMap { Double($0) })
    let report = try #require(
      Program.run(["perplexity", "-m", model, "-f", "-", "--context", "32", "--json"], input: text).json)
    let exact = try #require(report["perplexity"] as? Double)
    #expect(exact > 1 && abs(figure - exact) < 1e-3)
    let meshed = try #require(
      Program.run(
        ["perplexity", "-m", model, "-f", "-", "--context", "32", "--json", "--tensor-parallel", "2"],
        input: text
      ).json?["perplexity"] as? Double)
    #expect(abs(meshed - exact) < 1e-3 * exact)
  }

  /// Several jobs share out the checks: none is left out, none is done twice.
  @Test(.enabled(if: hasDevice, none)) func selftestsShareOutTheirChecks() throws {
    let counts = try ["1", "3"].map { jobs in
      let outcome = try Program.run("selftest", "--filter", "combine", "--json", "--jobs", jobs)
      #expect(outcome.code == 0, "\(outcome.error)")
      return try #require(outcome.json?["checks"] as? Int)
    }
    #expect(counts[0] > 0 && counts[0] == counts[1])
  }

  @Test(.enabled(if: hasDevice, none)) func aFullDiskEndsTheText() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    let outcome = try Program.run(
      ["generate", "-m", model, "-p", "abc", "-n", "9", "--ignore-eos"], output: "/dev/full")
    #expect(outcome.code == 1)
    #expect(outcome.error.contains("error: standard output cannot be written: No space left on device"))
  }

  /// Results of `--prompts`, by index.
  private func results(_ outcome: Program.Outcome) throws -> [Int: [String: Any]] {
    var results: [Int: [String: Any]] = [:]
    for line in outcome.output.split(separator: "\n") {
      let object = try #require(JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
      results[try #require(object["index"] as? Int)] = object
    }
    return results
  }

  @Test(.enabled(if: hasDevice, none)) func promptsOfAFileGiveWhatEachGivesAlone() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    let requests = """
      {"id": "first", "prompt": "abcabc", "max_tokens": 12}

      {"id": [1, {"a": null}], "prompt": "abc", "temperature": 2, "seed": 18446744073709551615, "top_k": 50}
      {"prompt": "ab!\\"", "max_tokens": 3, "logprobs": 2}
      {"prompt": "abc", "max_tokens": 0}
      """
    let outcome = try Program.run(
      ["generate", "-m", model, "--prompts", "-", "--parallel", "3", "-n", "5", "--ignore-eos"],
      input: Data(requests.utf8))
    #expect(outcome.code == 0, "\(outcome.error)")
    #expect(outcome.error.contains("4 requests, up to 3 at a time") && outcome.error.contains("tokens/s"))
    let results = try results(outcome)
    #expect(results.count == 4)
    #expect(results.values.allSatisfy { $0["finish_reason"] as? String == "length" })
    #expect(results[0]?["id"] as? String == "first" && results[2]?["id"] is NSNull)
    #expect((results[1]?["id"] as? [Any])?.count == 2)
    #expect(results[1]?["seed"] as? UInt64 == UInt64.max)
    #expect((results[2]?["logprobs"] as? [[String: Any]])?.count == 3)
    #expect((results[3]?["tokens"] as? [Int])?.isEmpty == true)
    for (index, options) in [
      (0, ["-p", "abcabc", "-n", "12"]),
      (1, ["-p", "abc", "-n", "5", "--temperature", "2", "--seed", "18446744073709551615", "--top-k", "50"]),
      (2, ["-p", "ab!\"", "-n", "3"]),
    ] {
      let alone = try Program.run(["generate", "-m", model, "--ignore-eos", "--json", "--quiet"] + options)
      #expect(alone.json?["tokens"] as? [Int] == results[index]?["tokens"] as? [Int])
      #expect(alone.json?["text"] as? String == results[index]?["text"] as? String)
    }
  }

  @Test(.enabled(if: hasDevice, none)) func aRequestThatIsNotPossibleEndsAlone() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    let requests = """
      {"prompt": "!#$%&'()*+,-./0", "max_tokens": 3}
      {"prompt": "abc", "max_tokens": 3, "ignore_eos": true}
      {"prompt": ""}
      """
    let outcome = try Program.run(
      ["generate", "-m", model, "--prompts", "-", "--context", "8", "--quiet"], input: Data(requests.utf8))
    #expect(outcome.code == 1)
    #expect(outcome.error == "error: 2 of 3 requests failed: see \"error\" in their results\n")
    let results = try results(outcome)
    #expect((results[0]?["error"] as? String)?.hasPrefix("the prompt has 15 tokens") == true)
    #expect((results[1]?["tokens"] as? [Int])?.count == 3)
    #expect((results[2]?["error"] as? String)?.hasPrefix("the prompt has no tokens") == true)
  }
}
