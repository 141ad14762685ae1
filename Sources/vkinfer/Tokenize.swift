import ArgumentParser
import ModelFiles
import Tokenization

/// `vkinfer tokenize`: the tokens of a text.
struct Tokenize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show the tokens of a text.",
    discussion: """
      A line for each token: its id and what it stands for, with bytes that are no printable text escaped. Without \
      TEXT, all of standard input is taken as it is. A GGUF file with a vocabulary and no weights is enough.
      """)

  @Option(name: .shortAndLong, help: ArgumentHelp("A GGUF file with a vocabulary.", valueName: "file"))
  var model: String

  @Flag(help: "Write the ids alone, on one line.")
  var ids = false

  @Flag(
    name: .customLong("no-bos"),
    help: "Without the token that begins a sequence, also where the model expects it.")
  var noBOS = false

  @Argument(help: "The text.")
  var text: String?

  func run() throws {
    let tokenizer: Tokenizer
    do {
      tokenizer = try Tokenizer(metadata: GGUFFile(path: model).metadata)
    } catch let error as TokenizerError {
      throw CommandError("\(Format.oneLine(model, limit: 4096)): \(error)")
    }
    let text = try self.text ?? Input.standardInput(as: "the text")
    let tokens = tokenizer.encode(text, addSpecial: !noBOS, parseSpecial: true)
    if ids { return try Output.write(tokens.map(String.init).joined(separator: " ") + "\n") }
    let width = String(tokens.max() ?? 0).count
    var lines = ""
    for token in tokens {
      let piece = Self.printable(tokenizer.bytes(of: token, special: true))
      lines += "\(Format.padLeft(String(token), width))  \(piece)\n"
    }
    try Output.write(lines)
  }

  /// The bytes of a token in quotes; a part of a character, or one that does not print, as escapes.
  private static func printable(_ bytes: [UInt8]) -> String {
    var result = "\""
    var rest = bytes[...]
    while let first = rest.first {
      let length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
      let character = rest.prefix(length)
      if let text = String(validating: character, as: UTF8.self), let scalar = text.unicodeScalars.first {
        switch scalar {
        case "\"", "\\": result += "\\" + text
        case "\n": result += "\\n"
        case "\t": result += "\\t"
        case "\r": result += "\\r"
        default: result += Format.oneLine(text, limit: 1)
        }
        rest = rest.dropFirst(length)
      } else {
        let digits = String(first, radix: 16)
        result += "\\x" + (digits.count == 1 ? "0" : "") + digits
        rest = rest.dropFirst()
      }
    }
    return result + "\""
  }
}
