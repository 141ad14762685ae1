import CShaderInterface
import Glibc
import Kernels
import Reference
import VulkanRuntime

/// The kernels behind the logits: `sample` against the rule's exact probabilities, `score` against log-softmax.
struct SamplingChecks {
  let bench: TestBench

  private static let vocabularies = [32, 1000, 49152]

  func run() throws {
    for vocabulary in Self.vocabularies {
      try greedy(vocabulary)
      for (name, rule) in Self.rules { try draws(vocabulary, name, rule) }
      try score(vocabulary)
    }
  }

  private static let rules: [(String, SamplingRule)] = {
    func rule(_ change: (inout SamplingRule) -> Void) -> SamplingRule {
      var rule = SamplingRule()
      change(&rule)
      return rule
    }
    return [
      ("plain", rule { $0.temperature = 1 }),
      ("temperature 0.6", rule { $0.temperature = 0.6 }),
      ("top-k 7", rule { $0.topK = 7 }),
      ("top-p 0.8", rule { $0.topP = 0.8 }),
      ("min-p 0.1", rule { $0.minP = 0.1 }),
      (
        "all",
        rule {
          $0.temperature = 0.8
          $0.topK = 20
          $0.topP = 0.9
          $0.minP = 0.03
        }
      ),
      (
        "penalties",
        rule {
          $0.repeatPenalty = 1.3
          $0.presencePenalty = 0.4
          $0.frequencyPenalty = 0.2
          $0.topK = 16
        }
      ),
    ]
  }()

  // MARK: Greedy

  /// The best token, the lowest of equals; with penalties and without, for several sequences in one step.
  private func greedy(_ vocabulary: Int) throws {
    let name = "sample greedy, vocabulary \(vocabulary)"
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let outputCount = 6
    var logits: [[Float]] = []
    var rules: [SamplingRule] = []
    var histories: [History] = []
    for output in 0..<outputCount {
      var row = random.normals(vocabulary)
      // Several tokens share the maximum, in other invocations' parts of the vocabulary.
      let tied = (0..<vocabulary).shuffled(using: &random).prefix(output)
      for token in tied { row[token] = 9 }
      var rule = SamplingRule()
      rule.temperature = 0
      if output % 2 == 1 {
        rule.repeatPenalty = 1.5
        rule.presencePenalty = 0.5
        rule.frequencyPenalty = 0.25
      }
      logits.append(row)
      rules.append(rule)
      histories.append(
        History(vocabulary: vocabulary, including: tied.prefix(output / 2).map { Int32($0) }, &random))
    }
    let setting = Setting(vocabulary: vocabulary, logits: logits, rules: rules, histories: histories)
    var image = bench.newImage()
    let arrays = add(setting, to: &image, target: nil, &random)
    try bench.check(name, image: image) { commands in
      try record(.sample, arrays, setting, commands)
    } compare: { outcome in
      var wrong = 0.0
      for output in 0..<outputCount {
        let expected = setting.probabilities(output).firstIndex(of: 1)
        let found = take(output, arrays, setting, &outcome, &wrong)
        if found != expected { wrong += 1 }
      }
      return [Comparison("tokens and state that are wrong", value: wrong, tolerance: 0)]
    }
  }

  // MARK: Draws

  /// Many draws from the same logits with other seeds and positions.
  private func draws(_ vocabulary: Int, _ ruleName: String, _ rule: SamplingRule) throws {
    let name = "sample \(ruleName), vocabulary \(vocabulary)"
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let outputCount = vocabulary <= 32 ? 2000 : vocabulary <= 1000 ? 600 : 16
    let row = random.normals(vocabulary).map { 2 * $0 }
    let history = History(vocabulary: vocabulary, including: [], &random)
    let setting = Setting(
      vocabulary: vocabulary, logits: Array(repeating: row, count: outputCount),
      rules: Array(repeating: rule, count: outputCount),
      histories: Array(repeating: history, count: outputCount))
    var image = bench.newImage()
    let arrays = add(setting, to: &image, target: nil, &random)
    try bench.check(name, image: image) { commands in
      try record(.sample, arrays, setting, commands)
    } compare: { outcome in
      let probabilities = setting.probabilities(0)
      // A token at the very edge may fall on either side of it in single precision.
      var wider = rule
      if rule.topP < 1 { wider.topP += 1e-5 }
      wider.minP *= 1 - 1e-5
      let allowed = history.probabilities(wider, row)
      var wrong = 0.0
      var counts = [Double](repeating: 0, count: vocabulary)
      for output in 0..<outputCount {
        let token = take(output, arrays, setting, &outcome, &wrong)
        if let token, allowed[token] > 0 { counts[token] += 1 } else { wrong += 1 }
      }
      return [
        Comparison("tokens and state that are wrong", value: wrong, tolerance: 0),
        Comparison(
          "chi-square over its bound",
          value: Self.chiSquare(counts, probabilities, draws: Double(outputCount)),
          tolerance: 1),
      ]
    }
  }

  /// Pearson's statistic over a bound that one run in many millions exceeds by chance.
  private static func chiSquare(_ counts: [Double], _ probabilities: [Double], draws: Double) -> Double {
    var statistic = 0.0
    var cells = 0.0
    // Tokens too rare for a cell of their own share one.
    var rare = (count: 0.0, expected: 0.0)
    func add(_ count: Double, _ expected: Double) {
      statistic += (count - expected) * (count - expected) / expected
      cells += 1
    }
    for (count, probability) in zip(counts, probabilities) where count > 0 || probability > 0 {
      if probability * draws >= 5 {
        add(count, probability * draws)
      } else {
        rare.count += count
        rare.expected += probability * draws
      }
    }
    if rare.expected >= 5 { add(rare.count, rare.expected) }
    let freedom = max(1, cells - 1)
    return statistic / (freedom + 6 * (2 * freedom).squareRoot() + 20)
  }

  // MARK: Score

  private func score(_ vocabulary: Int) throws {
    let name = "score vocabulary \(vocabulary)"
    guard bench.wants(name) else { return }
    var random = bench.random(name)
    let outputCount = 9
    let logits = (0..<outputCount).map { _ in random.normals(vocabulary).map { 5 * $0 } }
    let targets = (0..<outputCount).map { _ in Int.random(in: 0..<vocabulary, using: &random) }
    let history = History(vocabulary: vocabulary, including: [], &random)
    let setting = Setting(
      vocabulary: vocabulary, logits: logits, rules: Array(repeating: SamplingRule(), count: outputCount),
      histories: Array(repeating: history, count: outputCount))
    var image = bench.newImage()
    let arrays = add(setting, to: &image, target: targets, &random)
    try bench.check(name, image: image) { commands in
      try record(.score, arrays, setting, commands)
    } compare: { outcome in
      let found = targets.indices.map { outcome.float(arrays.results, $0) }
      let expected = targets.indices.map {
        log(ReferenceStages.softmax(logits[$0].map(Double.init))[targets[$0]])
      }
      return [Comparison(found: found, expected: expected, tolerance: 1e-5)]
    }
  }

  // MARK: Memory

  /// What a sequence already holds.
  private struct History {
    var prompt: [Int32]
    var output: [Int32]

    /// A few tokens in the prompt, the output or both, once or several times; `including` are in both.
    init(vocabulary: Int, including tokens: [Int32], _ random: inout SeededRandom) {
      prompt = tokens + (0..<6).map { _ in Int32.random(in: 0..<Int32(vocabulary), using: &random) }
      output = tokens + (0..<6).map { _ in Int32.random(in: 0..<Int32(vocabulary), using: &random) }
      output += output.prefix(3)
    }

    /// Of every token: how often it was generated, and in the top bit whether the prompt holds it.
    func counts(vocabulary: Int) -> [UInt32] {
      var counts = [UInt32](repeating: 0, count: vocabulary)
      for token in output { counts[Int(token)] += 1 }
      for token in prompt { counts[Int(token)] |= 0x8000_0000 }
      return counts
    }

    func probabilities(_ rule: SamplingRule, _ logits: [Float]) -> [Double] {
      rule.probabilities(logits: logits.map(Double.init), prompt: prompt, output: output)
    }
  }

  /// Outputs of one step, each of a sequence of its own.
  private struct Setting {
    var vocabulary: Int
    var logits: [[Float]]
    var rules: [SamplingRule]
    var histories: [History]

    /// Sequences whose counts are kept; without penalties nobody reads them.
    var sequenceCount: Int { logits.count }
    var stride: Int { (vocabulary + 63) / 64 * 64 }

    func probabilities(_ output: Int) -> [Double] {
      histories[output].probabilities(rules[output], logits[output])
    }

    func hasPenalties(_ output: Int) -> Bool {
      let rule = rules[output]
      return rule.repeatPenalty != 1 || rule.presencePenalty != 0 || rule.frequencyPenalty != 0
    }
  }

  private struct Arrays {
    var logits: MemoryImage.Region
    var counts: MemoryImage.Region
    var lastTokens: MemoryImage.Region
    var results: MemoryImage.Region
    var push: SamplePush
    /// The sequence of each output.
    var sequences: [Int]
  }

  private func add(
    _ setting: Setting, to image: inout MemoryImage, target: [Int]?, _ random: inout SeededRandom
  ) -> Arrays {
    let outputCount = setting.logits.count
    let sequences = Array(0..<setting.sequenceCount).shuffled(using: &random)
    var counts = [UInt32](repeating: 0, count: setting.sequenceCount * setting.vocabulary)
    for output in 0..<outputCount {
      let start = sequences[output] * setting.vocabulary
      counts.replaceSubrange(
        start..<start + setting.vocabulary,
        with: setting.histories[output].counts(vocabulary: setting.vocabulary))
    }
    let parameters = (0..<outputCount).map { output in
      let rule = setting.rules[output]
      return SampleParameters(
        temperature: Float(rule.temperature), top_p: Float(rule.topP), min_p: Float(rule.minP),
        repeat_penalty: Float(rule.repeatPenalty), presence_penalty: Float(rule.presencePenalty),
        frequency_penalty: Float(rule.frequencyPenalty), top_k: UInt32(rule.topK),
        sequence: UInt32(sequences[output]), seed_low: UInt32(truncatingIfNeeded: random.next()),
        seed_high: UInt32(truncatingIfNeeded: random.next()), position: UInt32(output),
        target: UInt32(target?[output] ?? 0))
    }
    let padding = [Float](repeating: .nan, count: setting.stride - setting.vocabulary)
    let logits = image.add(setting.logits.flatMap { $0 + padding })
    let countRegion = image.add(counts)
    let lastTokens = image.addPoisoned(setting.sequenceCount)
    let results = image.addPoisoned(outputCount)
    var push = SamplePush()
    push.logits = logits.address
    push.step = image.addStep([], outputCount: outputCount).address
    push.parameters = image.add(structs: parameters).address
    push.counts = countRegion.address
    push.last_tokens = lastTokens.address
    push.results = results.address
    push.vocabulary = UInt32(setting.vocabulary)
    push.logits_stride = UInt32(setting.stride)
    return Arrays(
      logits: logits, counts: countRegion, lastTokens: lastTokens, results: results, push: push,
      sequences: sequences)
  }

  private func record(
    _ kernel: OutputKernel, _ arrays: Arrays, _ setting: Setting, _ commands: CommandBuffer
  ) throws {
    // More outputs than the step has, as in a plan recorded for a larger one.
    try kernel.record(
      commands, push: arrays.push, outputCount: setting.logits.count + 2, cache: bench.cache)
  }

  /// The token of an output; adds to `wrong` what the kernel did not leave as it should.
  private func take(
    _ output: Int, _ arrays: Arrays, _ setting: Setting, _ outcome: inout Outcome, _ wrong: inout Double
  ) -> Int? {
    let token = Int(outcome.word(arrays.results, output))
    let sequence = arrays.sequences[output]
    if outcome.word(arrays.lastTokens, sequence) != UInt32(token) { wrong += 1 }
    guard token < setting.vocabulary else { return nil }
    guard setting.hasPenalties(output) else { return token }
    // Only logits of tokens that the sequence holds change, and only the count of the token that was chosen.
    let before = setting.histories[output].counts(vocabulary: setting.vocabulary)
    for held in before.indices where before[held] != 0 {
      _ = outcome.word(arrays.logits, output * setting.stride + held)
    }
    if outcome.word(arrays.counts, sequence * setting.vocabulary + token) != before[token] + 1 { wrong += 1 }
    return token
  }
}
