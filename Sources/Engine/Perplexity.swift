import CShaderInterface
import Kernels

#if canImport(Glibc)
  import Glibc
#endif

public struct PerplexityResult: Sendable {
  public var perplexity: Double
  public var scoredTokens: Int
  public var chunks: Int
  public var seconds: Double
}

extension Engine {
  /// The perplexity of a text: exp of the mean negative log-probability of its tokens.
  ///
  /// The text is cut into chunks of `chunkLength` tokens, each seen on its own; in each, tokens of the second half
  /// are scored (the method by which figures for GGUF models are usually given). A model that expects a
  /// beginning-of-sequence token gets one in place of each chunk's first token.
  ///
  /// - Parameters:
  ///   - tokens: the whole text, without special tokens.
  ///   - onChunk: called after each chunk with the chunks done and in all, and the figure so far; false stops.
  public func perplexity(
    of tokens: [Int32], chunkLength: Int,
    onChunk: (_ done: Int, _ total: Int, _ soFar: Double) -> Bool = { _, _, _ in true }
  ) throws -> PerplexityResult {
    guard chunkLength >= 4, chunkLength <= contextLength else {
      throw EngineError(
        .option, "chunks of \(chunkLength) tokens are not possible: use 4 to \(contextLength)")
    }
    let chunks = tokens.count / chunkLength
    guard chunks > 0 else {
      throw EngineError(
        .prompt,
        "the text has \(tokens.count) tokens, less than one chunk of \(chunkLength); use a smaller --context")
    }
    let clock = ContinuousClock()
    let start = clock.now
    let prefix = model.tokenizer.flatMap { $0.addsBOS ? $0.bos : nil }
    return try withWorkingBatch { batch in
      try batch.lend(tokens: chunkLength) { runner in
        let step = min(promptChunk, runner.limits.outputs)
        var sum = 0.0
        var scored = 0
        var done = 0
        for chunk in 0..<chunks {
          var text = Array(tokens[chunk * chunkLength..<(chunk + 1) * chunkLength])
          if let prefix { text[0] = prefix }
          try check(text)
          var position = 0
          // The last token predicts nothing that is known.
          while position < chunkLength - 1 {
            let end = min(position + step, chunkLength - 1)
            let rows = (position..<end).map { index in
              StepRow(
                token: UInt32(bitPattern: text[index]), position: UInt32(index), sequence: 0, output_row: 0)
            }
            let outputs = (position..<end).filter { $0 >= chunkLength / 2 }
            let samples = outputs.map { index in
              SamplingParameters().device(sequence: 0, position: index + 1, target: text[index + 1])
            }
            let ticket = try runner.submit(
              rows: rows, outputs: outputs.map { $0 - position }, samples: samples, output: .score)
            for bits in try runner.results(ticket) { sum -= Double(Float(bitPattern: bits)) }
            scored += outputs.count
            position = end
          }
          done = chunk + 1
          if !onChunk(done, chunks, exp(sum / Double(max(scored, 1)))) { break }
        }
        return PerplexityResult(
          perplexity: exp(sum / Double(max(scored, 1))), scoredTokens: scored, chunks: done,
          seconds: (clock.now - start) / .seconds(1))
      }
    }
  }

  /// The logits after each of the last `count` tokens of a text: for comparing models, not for speed.
  package func logits(of tokens: [Int32], last count: Int) throws -> [[Float]] {
    try check(tokens)
    return try withWorkingBatch { batch in
      try batch.lend(tokens: tokens.count) { runner in
        var logits: [[Float]] = []
        var position = 0
        let step = min(promptChunk, runner.limits.outputs)
        while position < tokens.count {
          let end = min(position + step, tokens.count)
          let rows = (position..<end).map { index in
            StepRow(
              token: UInt32(bitPattern: tokens[index]), position: UInt32(index), sequence: 0, output_row: 0)
          }
          let outputs = (position..<end).filter { $0 >= tokens.count - count }.map { $0 - position }
          let samples = outputs.map { SamplingParameters().device(sequence: 0, position: position + $0 + 1) }
          let ticket = try runner.submit(rows: rows, outputs: outputs, samples: samples, output: .score)
          _ = try runner.results(ticket)
          for index in outputs.indices { logits.append(try runner.readLogits(output: index)) }
          position = end
        }
        return logits
      }
    }
  }
}
