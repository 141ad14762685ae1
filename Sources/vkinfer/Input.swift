import Glibc

/// Texts that a user hands over: files, pipes, standard input. Bytes that are no UTF-8 become U+FFFD.
enum Input {
  /// The most that is taken for a text; more is a mistake, or an endless device.
  private static let limit = 1 << 30

  /// A file's text; "-" is standard input.
  static func text(ofFile path: String) throws -> String {
    if path == "-" { return try standardInput(as: "the text") }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw failure(path, "cannot be opened") }
    defer { close(descriptor) }
    return try read(descriptor, name: path)
  }

  /// All of standard input.
  ///
  /// - Parameter what: what is expected there, for a user at a terminal.
  static func standardInput(as what: String) throws -> String {
    if isatty(STDIN_FILENO) == 1, Output.errorIsTerminal {
      Output.note("type \(what) and end it with Ctrl-D on a line of its own:")
    }
    return try read(STDIN_FILENO, name: "standard input")
  }

  private static func read(_ descriptor: Int32, name: String) throws -> String {
    var text: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = Glibc.read(descriptor, &piece, piece.count)
      if count == 0 { return String(decoding: text, as: UTF8.self) }
      if count < 0 {
        if errno == EINTR { continue }
        throw failure(name, "cannot be read")
      }
      text += piece[..<count]
      guard text.count <= limit else {
        throw CommandError(
          "\(name): is longer than \(Format.bytes(limit)), too much for a text; use a part of it")
      }
    }
  }

  private static func failure(_ name: String, _ what: String) -> CommandError {
    let reason =
      switch errno {
      case ENOENT: "no such file; check the path"
      case EACCES: "permission denied; check the file's mode and owner"
      case EISDIR: "it is a directory; name a file"
      case let code: String(cString: strerror(code))
      }
    return CommandError("\(Format.oneLine(name, limit: 4096)): \(what): \(reason)")
  }
}
