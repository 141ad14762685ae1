import ArgumentParser
import ModelFiles
import Tokenization
import Transformer

/// `vkinfer synthesize`: a model file with random weights.
struct Synthesize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write a model file with random weights.",
    discussion: """
      For measuring: of some shape and format, as large as the real model. Its vocabulary is bytes and numbers, so that \
      generate takes it; the text means nothing. The file appears under its name when it is complete.

      SHAPE is \(SyntheticShape.all.map(\.name).joined(separator: ", ")), or numbers: \
      layers=32,width=4096,heads=32,kv-heads=8,head-size=128,ff=14336,vocabulary=128256[,tied].
      """)

  @Option(parsing: .unconditional, help: ArgumentHelp("The shape of the model.", valueName: "shape"))
  var shape: String

  @Option(parsing: .unconditional, help: ArgumentHelp("The format of the weights.", valueName: "type"))
  var type = "q4_k"

  @Option(
    name: .shortAndLong, parsing: .unconditional, help: ArgumentHelp("The file to write.", valueName: "file"))
  var output: String

  @Option(parsing: .unconditional, help: "With it, the same weights every time.")
  var seed: UInt64 = 1

  func run() throws {
    Interruption.watch()
    let types = try FormatList(text: type).types
    guard types.count == 1 else { throw ValidationError("--type takes one format") }
    let shape = try SyntheticShape(text: shape)
    let tensors = try ModelDescription.synthetic(shape: shape, weights: types[0])
    var writer = GGUFWriter()
    for (key, value) in shape.metadata(weights: types[0]) { writer.set(key, value) }
    for (key, value) in SyntheticVocabulary.metadata(count: shape.vocabularySize) { writer.set(key, value) }
    for tensor in tensors.tensors { writer.add(tensor) }
    let source = RandomTensorSource(tensors: tensors.tensors, seed: seed)
    let total = tensors.tensors.reduce(0) { $0 + $1.byteCount }
    let progress = Progress()
    defer { progress.clear() }
    let start = ContinuousClock.now
    var written = 0
    try writer.write(to: output) { tensor, emit in
      let step = max(1, (4 << 20) / tensor.rowBytes)
      for row in stride(from: 0, to: tensor.rows, by: step) {
        if Interruption.isRequested { throw ExitCode(Interruption.exitCode) }
        try source.withBytes(of: tensor, rows: row..<min(row + step, tensor.rows)) { bytes in
          try emit(bytes)
          written += bytes.count
        }
        progress.draw(
          "writing", done: written, total: total, detail: "\(Format.bytes(written)) of \(Format.bytes(total))"
        )
      }
    }
    progress.clear()
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    Output.note(
      "\(Format.bytes(total)) in \(Format.decimal(seconds, 1)) s, "
        + "\(Format.bytes(Int(Double(total) / max(seconds, 1e-3)))) a second")
  }
}
