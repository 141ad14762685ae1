import ArgumentParser

/// The command line: language models on any Vulkan device.
@main
struct VKInfer: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vkinfer",
    abstract: "Runs language models (GGUF files) on any Vulkan device.",
    version: "vkinfer 0.1.0",
    subcommands: [
      Generate.self, Devices.self, Inspect.self, Perplexity.self, Bench.self, Tokenize.self,
      Synthesize.self,
      Selftest.self,
    ])

  static var _errorPrefix: String { "error: " }

  static func main() {
    Output.prepare()
    Interruption.reportLostPages()
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch is Output.ReaderIsGone {
      // Whoever read has what he wanted.
    } catch {
      exit(withError: error)
    }
  }
}

/// A failure of the command line itself, in one line: what, where, what to do.
struct CommandError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) {
    self.description = description
  }
}
