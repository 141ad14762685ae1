import Foundation
import Testing

/// `bench` with a shape so small that a CPU driver is done with it at once.
@Suite(.serialized, .enabled(if: DeviceCommandTests.hasDevice, DeviceCommandTests.none))
struct BenchCommandTests {
  private static let shape = "layers=2,width=64,heads=4,kv-heads=2,head-size=16,ff=96,vocabulary=100,tied"

  @Test func figuresAreOneObject() throws {
    let outcome = try Program.run(
      "bench", "--shape", Self.shape, "--type", "f16,q8_0", "--prompt", "40", "-n", "3", "--depth", "100",
      "--batch", "1,3", "--repetitions", "2", "--plan", "--json")
    #expect(outcome.code == 0 && outcome.error.isEmpty, "\(outcome.error)")
    let report = try #require(outcome.json)
    #expect((report["models"] as? [[String: Any]])?.count == 2)
    let results = try #require(report["results"] as? [[String: Any]])
    // A prompt, and two batches, of each model.
    #expect(results.count == 6)
    for result in results {
      let speed = try #require(result["tokens_per_second"] as? Double)
      #expect(speed > 0 && speed.isFinite)
      let (least, most) = (result["least"] as? Double ?? .nan, result["most"] as? Double ?? .nan)
      #expect(least <= speed && speed <= most)
      #expect((result["kind"] as? String == "decode") == (result["gigabytes_per_second"] is Double))
    }
    let stages = try #require(report["stages"] as? [[String: Any]])
    // Embedding, five kinds of stages in a layer and at the end, sampling, and the sum, for each step.
    #expect(stages.count == 4 * 9)
    let names = Set(stages.compactMap { $0["stage"] as? String })
    #expect(names.isSuperset(of: ["embed", "attention", "norm+gate/up", "sampling", "total"]))
  }

  @Test func ablationMeasuresEveryCombination() throws {
    let outcome = try Program.run(
      "bench", "--shape", Self.shape, "--type", "f16", "--prompt", "0", "-n", "2", "--batch", "1,3",
      "--repetitions", "1", "--fusion", "off,on", "--linear", "naive,sbi", "--plan", "--json")
    #expect(outcome.code == 0 && outcome.error.isEmpty, "\(outcome.error)")
    let results = try #require(outcome.json?["results"] as? [[String: Any]])
    let methods = results.map { "\($0["fusion"] ?? "") \($0["linear"] ?? "") \($0["batch"] ?? "")" }
    #expect(
      methods == [
        "off naive 1", "off naive 3", "off sbi 1", "off sbi 3", "on naive 1", "on naive 3", "on sbi 1",
        "on sbi 3",
      ])
    #expect(results.allSatisfy { ($0["tokens_per_second"] as? Double ?? 0) > 0 })
    let stages = try #require(outcome.json?["stages"] as? [[String: Any]])
    #expect(stages.count == 8 * 9)
  }

  /// Rows of comma-separated values under their columns, without notes.
  private static func rows(_ text: String) -> [[String: String]] {
    let lines = text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map {
      $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    }
    guard let columns = lines.first else { return [] }
    return lines.dropFirst().map { Dictionary(zip(columns, $0)) { first, _ in first } }
  }

  /// Each row of a mesh says how it ran, and stands beside one device and the cost model.
  @Test func meshesAreComparedWithOneDevice() throws {
    for memory in ["host", "device"] {
      let outcome = try Program.run(
        "bench", "mesh", "--shape", Self.shape, "--type", "f16", "--prompt", "20", "-n", "6", "--batch",
        "1,2", "--repetitions", "1", "--tensor-parallel", "2", "--mesh-memory", memory, "--mesh-path",
        "threads", "--compare", "--csv")
      #expect(outcome.code == 0, "\(outcome.error)")
      let rows = Self.rows(outcome.output)
      #expect(rows.map { $0["batch"] } == ["1", "2"], "\(outcome.output)")
      for row in rows {
        #expect(row["memory"] == memory && row["path"] == "threads")
        func number(_ key: String) -> Double { row[key].flatMap(Double.init) ?? .nan }
        for key in ["prompt_predicted", "decode_predicted", "speedup"] { #expect(number(key) > 0, "\(key)") }
        // Two logical devices are one CPU.
        #expect(abs(number("efficiency_percent") / (100 * number("speedup")) - 1) < 1e-6)
        #expect((0.1...100).contains(number("exchange_percent")), "\(number("exchange_percent"))")
      }
    }
  }

  @Test func collectivesStandBesideWhatTheLinkSays() throws {
    let outcome = try Program.run(
      "bench", "collectives", "--bytes", "4096,65536", "--paths", "threads", "--repetitions", "1", "--csv")
    #expect(outcome.code == 0, "\(outcome.error)")
    let rows = Self.rows(outcome.output)
    #expect(Set(rows.compactMap { $0["path"] }) == ["threads"])
    #expect(!rows.isEmpty)
    for row in rows {
      #expect(row["predicted_microseconds"].flatMap(Double.init) ?? 0 > 0)
      #expect(row["microseconds"].flatMap(Double.init) ?? 0 > 0)
    }
  }

  @Test func requestsAreComparedWithBatches() throws {
    let outcome = try Program.run(
      "bench", "requests", "--shape", Self.shape, "--type", "f16", "--requests", "12", "--min-prompt", "3",
      "--max-prompt", "60", "--min-output", "2", "--max-output", "9", "--batch", "2,4", "-n", "3",
      "--parallel", "3", "--repetitions", "1", "--json")
    #expect(outcome.code == 0 && outcome.error.isEmpty, "\(outcome.error)")
    let report = try #require(outcome.json)
    let results = try #require(report["results"] as? [[String: Any]])
    #expect(results.compactMap { $0["kind"] as? String } == ["batch", "batch", "requests"])
    #expect(results.compactMap { $0["sequences"] as? Int } == [2, 4, 3])
    let requests = try #require(results.last)
    func number(_ key: String) -> Double { requests[key] as? Double ?? .nan }
    #expect(number("first_token_median") > 0)
    #expect(number("first_token_p99") >= number("first_token_median"))
    #expect(number("between_tokens_p99") >= number("between_tokens_median"))
    let best = results.dropLast().compactMap { $0["tokens_per_second"] as? Double }.max() ?? .nan
    #expect(abs(number("percent_of_best_batch") / (100 * number("tokens_per_second") / best) - 1) < 1e-9)
    let tokens = try #require(report["prompt_tokens"] as? Int)
    let outputs = try #require(report["output_tokens"] as? Int)
    #expect((36...720).contains(tokens) && (24...108).contains(outputs))
    let ratio = number("tokens_per_second_with_prompts") / number("tokens_per_second")
    #expect(abs(ratio - Double(tokens + outputs) / Double(outputs)) < 1e-6)
  }

  @Test func figuresAreLinesOfValues() throws {
    let outcome = try Program.run(
      "bench", "--shape", Self.shape, "--type", "f32", "--prompt", "0", "-n", "2", "--repetitions", "1",
      "--csv")
    #expect(outcome.code == 0, "\(outcome.error)")
    let lines = outcome.output.split(separator: "\n")
    #expect(lines.count == 2)
    #expect(
      lines.first?.hasPrefix(
        "model,test,fusion,linear,gemm,kv_offload,kind,tokens,depth,batch,tokens_per_second,") == true)
    // The shape has commas in its name.
    #expect(
      lines.last?.hasPrefix("\"\(Self.shape) f32\",decode 2 after 64,on,sbi,usual,auto,decode,2,64,1,")
        == true)
  }

  @Test func kernelsAreFoundByName() throws {
    let outcome = try Program.run(
      "bench", "shaders", "--shape", Self.shape, "--type", "q8_0", "--filter", "down projection", "--columns",
      "1,3", "--linear", "sbi,naive",
      "--repetitions", "1", "--json")
    #expect(outcome.code == 0 && outcome.error.isEmpty, "\(outcome.error)")
    let results = try #require(outcome.json?["results"] as? [[String: Any]])
    #expect(results.compactMap { $0["columns"] as? Int } == [1, 3, 1, 3])
    let name = "linear down projection 64x96"
    #expect(
      results.compactMap { $0["kernel"] as? String } == [name, name, name + ", naive", name + ", naive"])
    #expect(results.allSatisfy { ($0["microseconds"] as? Double ?? 0) > 0 })
  }

  @Test(arguments: [
    (["bench", "--shape", "gpt-2"], "llama-3.1-8b"),
    (["bench", "--shape", "gpt-j 6b"], "not supported yet"),
    (["bench", "--shape", "layers=2,width=96,heads=2,ff=96,vocabulary=9", "--type", "q4_k"], "q4_k"),
    (
      ["bench", "--shape", "llama-3.2-1b", "--depth", "16000000", "--batch", "4096"],
      "too little device memory"
    ),
    (
      ["bench", "shaders", "--shape", shape, "--type", "f16", "--filter", "no such kernel"], "no such kernel"
    ),
    (["bench", "shaders", "--shape", shape, "--type", "q4_k"], "q6_k block"),
  ])
  func whatCannotBeIsOneLine(arguments: [String], part: String) throws {
    let outcome = try Program.run(arguments)
    #expect(outcome.code == 1)
    #expect(outcome.error.hasPrefix("error: ") && outcome.error.contains(part), "\(outcome.error)")
    #expect(outcome.error.split(separator: "\n").count == 1)
  }
}
