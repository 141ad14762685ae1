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
  }

  @Test(.enabled(if: hasDevice, none)) func aFullDiskEndsTheText() throws {
    let folder = try TemporaryFolder()
    let model = try Models.runnable(in: folder)
    let outcome = try Program.run(
      ["generate", "-m", model, "-p", "abc", "-n", "9", "--ignore-eos"], output: "/dev/full")
    #expect(outcome.code == 1)
    #expect(outcome.error.contains("error: standard output cannot be written: No space left on device"))
  }
}
