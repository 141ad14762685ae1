import Tokenization

/// Text as it is shown: whole characters, and nothing of a stop string.
struct TextOutput {
  private(set) var text = ""
  private var decoder: StreamingDecoder?
  private let stopStrings: [[UInt8]]
  /// Decoded, but perhaps the start of a stop string.
  private var held: [UInt8] = []
  private var stopped = false

  init(tokenizer: Tokenizer?, stopStrings: [String]) {
    decoder = tokenizer.map { StreamingDecoder($0) }
    self.stopStrings = stopStrings.filter { !$0.isEmpty }.map { Array($0.utf8) }
  }

  /// The text that a token adds, and whether a stop string ended the text.
  mutating func append(_ token: Int32) -> (text: String, stopped: Bool) {
    held += Array((decoder?.append(token) ?? "").utf8)
    if let (start, _) = firstStop() {
      stopped = true
      let shown = String(decoding: held[..<start], as: UTF8.self)
      held = []
      text += shown
      return (shown, true)
    }
    // Keep back the longest tail that a stop string starts with.
    var keep = 0
    for stop in stopStrings {
      for length in stride(from: min(stop.count - 1, held.count), to: keep, by: -1)
      where held.suffix(length).elementsEqual(stop.prefix(length)) {
        keep = length
        break
      }
    }
    let shown = String(decoding: held.dropLast(keep), as: UTF8.self)
    held = Array(held.suffix(keep))
    text += shown
    return (shown, false)
  }

  /// What was held back, when no more tokens come.
  mutating func finish() -> String {
    guard !stopped else { return "" }
    let rest = String(decoding: held, as: UTF8.self) + (decoder?.finish() ?? "")
    held = []
    text += rest
    return rest
  }

  /// Where the first stop string starts and ends.
  private func firstStop() -> (start: Int, end: Int)? {
    var found: (start: Int, end: Int)?
    for stop in stopStrings where stop.count <= held.count {
      for start in 0...(held.count - stop.count)
      where held[start..<start + stop.count].elementsEqual(stop) {
        if found == nil || start < found!.start { found = (start, start + stop.count) }
        break
      }
    }
    return found
  }
}
