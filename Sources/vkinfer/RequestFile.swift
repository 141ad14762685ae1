import Engine
import FoundationEssentials

/// Requests of a file with one JSON object a line; empty lines are skipped.
///
/// Every line is checked before anything runs: the first that is wrong is an error with its number.
struct RequestFile {
  struct Entry {
    /// Whatever the line gives to tell results apart.
    var id: JSON
    var prompt: String
    /// The request but for the prompt's tokens.
    var request: GenerationRequest
  }

  private(set) var entries: [Entry] = []

  /// - Parameters:
  ///   - name: what the file is called, for errors.
  ///   - defaults: what lines that say nothing else get.
  ///   - drawSeed: the seed of a request that samples and names none.
  init(_ text: String, name: String, defaults: GenerationRequest, drawSeed: () -> UInt64) throws {
    // By bytes: a carriage return and the newline behind it are one character.
    for (index, bytes) in text.utf8.split(separator: 0x0A, omittingEmptySubsequences: false).enumerated() {
      let line = String(decoding: bytes.last == 0x0D ? bytes.dropLast() : bytes, as: UTF8.self)
      guard line.contains(where: { !$0.isWhitespace }) else { continue }
      do {
        entries.append(try Self.entry(line, defaults: defaults, drawSeed: drawSeed))
      } catch {
        throw CommandError("\(Format.oneLine(name, limit: 4096)), line \(index + 1): \(error)")
      }
    }
    guard !entries.isEmpty else {
      throw CommandError(
        "\(Format.oneLine(name, limit: 4096)) has no requests: give one JSON object a line, such as {\"prompt\": \"Hello\"}"
      )
    }
  }

  private static let keys = [
    "id", "prompt", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "seed", "stop", "ignore_eos", "logprobs",
  ]

  private static func entry(
    _ line: String, defaults: GenerationRequest, drawSeed: () -> UInt64
  ) throws -> Entry {
    guard case .object(let members)? = try? JSONDecoder().decode(JSON.self, from: Data(line.utf8)) else {
      throw CommandError("is no JSON object: write one request a line, such as {\"prompt\": \"Hello\"}")
    }
    if let unknown = members.first(where: { !keys.contains($0.0) }) {
      throw CommandError(
        "\"\(Format.oneLine(unknown.0, limit: 64))\" is unknown; there are: \(keys.joined(separator: ", "))")
    }
    let fields = Fields(members: Dictionary(members, uniquingKeysWith: { $1 }))
    guard let prompt = try fields.string("prompt") else {
      throw CommandError("\"prompt\" is missing: it is the text to continue")
    }
    var request = defaults
    request.maxTokens = try fields.integer("max_tokens") ?? defaults.maxTokens
    request.sampling.temperature = try fields.number("temperature") ?? defaults.sampling.temperature
    request.sampling.topK = try fields.integer("top_k") ?? defaults.sampling.topK
    request.sampling.topP = try fields.number("top_p") ?? defaults.sampling.topP
    request.sampling.minP = try fields.number("min_p") ?? defaults.sampling.minP
    request.sampling.repeatPenalty = try fields.number("repeat_penalty") ?? defaults.sampling.repeatPenalty
    request.sampling.presencePenalty =
      try fields.number("presence_penalty") ?? defaults.sampling.presencePenalty
    request.sampling.frequencyPenalty =
      try fields.number("frequency_penalty") ?? defaults.sampling.frequencyPenalty
    request.stopStrings = try fields.strings("stop") ?? defaults.stopStrings
    request.ignoresEndOfText = try fields.bool("ignore_eos") ?? defaults.ignoresEndOfText
    request.logprobs = try fields.integer("logprobs")
    let seed = try fields.unsigned("seed")
    if request.sampling.temperature > 0 { request.sampling.seed = seed ?? drawSeed() }
    try request.validate()
    return Entry(id: fields.members["id"] ?? .null, prompt: prompt, request: request)
  }

  /// Members of an object, by name and kind; null counts as absent.
  private struct Fields {
    let members: [String: JSON]

    private func value(_ key: String) -> JSON? {
      if case .null? = members[key] { return nil }
      return members[key]
    }

    private func wrong(_ key: String, _ wanted: String) -> CommandError {
      CommandError("\"\(key)\" must be \(wanted), not \(Format.oneLine(members[key]?.text ?? "", limit: 40))")
    }

    func string(_ key: String) throws -> String? {
      switch value(key) {
      case nil: return nil
      case .string(let text): return text
      default: throw wrong(key, "a string")
      }
    }

    func strings(_ key: String) throws -> [String]? {
      switch value(key) {
      case nil: return nil
      case .string(let text): return [text]
      case .array(let values):
        return try values.map {
          guard case .string(let text) = $0 else { throw wrong(key, "a list of strings") }
          return text
        }
      default: throw wrong(key, "a list of strings")
      }
    }

    func bool(_ key: String) throws -> Bool? {
      switch value(key) {
      case nil: return nil
      case .bool(let value): return value
      default: throw wrong(key, "true or false")
      }
    }

    func integer(_ key: String) throws -> Int? {
      switch value(key) {
      case nil: return nil
      case .int(let value): return value
      default: throw wrong(key, "a whole number")
      }
    }

    func unsigned(_ key: String) throws -> UInt64? {
      switch value(key) {
      case nil: return nil
      case .int(let value) where value >= 0: return UInt64(value)
      case .unsigned(let value): return value
      default: throw wrong(key, "a whole number from 0 on")
      }
    }

    func number(_ key: String) throws -> Float? {
      switch value(key) {
      case nil: return nil
      case .int(let value): return Float(value)
      case .unsigned(let value): return Float(value)
      case .double(let value): return Float(value)
      default: throw wrong(key, "a number")
      }
    }
  }
}

extension JSON: Decodable {
  private struct Key: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  /// Members of objects come in the order of their names: decoders do not keep the file's.
  init(from decoder: any Decoder) throws {
    if let object = try? decoder.container(keyedBy: Key.self) {
      let keys = object.allKeys.sorted { $0.stringValue < $1.stringValue }
      self = .object(try keys.map { ($0.stringValue, try object.decode(JSON.self, forKey: $0)) })
    } else if var array = try? decoder.unkeyedContainer() {
      var values: [JSON] = []
      while !array.isAtEnd { values.append(try array.decode(JSON.self)) }
      self = .array(values)
    } else {
      let value = try decoder.singleValueContainer()
      if value.decodeNil() {
        self = .null
      } else if let bool = try? value.decode(Bool.self) {
        self = .bool(bool)
      } else if let int = try? value.decode(Int.self) {
        self = .int(int)
      } else if let unsigned = try? value.decode(UInt64.self) {
        self = .unsigned(unsigned)
      } else if let double = try? value.decode(Double.self) {
        self = .double(double)
      } else {
        self = .string(try value.decode(String.self))
      }
    }
  }
}
