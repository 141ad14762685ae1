import CVKInfer
import Engine
import ModelFiles
import Tokenization
import Transformer
import VulkanRuntime

@c @implementation
public func vkinfer_model_open(
  _ path: UnsafePointer<CChar>?, _ model: UnsafeMutablePointer<OpaquePointer?>?
) -> vkinfer_status {
  reporting {
    let path = try Arguments.text(path, "path")
    let out = try Arguments.out(model, "model")
    let object = ModelObject(try Thread.run { try LanguageModel(path: path) })
    out.pointee = try HandleTable.shared.withLock { try $0.insert(object) }
  }
}

@c @implementation
public func vkinfer_model_close(_ model: OpaquePointer?) -> vkinfer_status {
  reporting { _ = try HandleTable.shared.withLock { try $0.remove(model, ModelObject.self) } }
}

@c @implementation
public func vkinfer_model_inspect(
  _ model: OpaquePointer?, _ info: UnsafeMutablePointer<vkinfer_model_info>?
) -> vkinfer_status {
  reporting {
    try Arguments.fill(
      info, with: vkinfer_model_info(find(model, ModelObject.self).model), "vkinfer_model_info")
  }
}

extension vkinfer_model_info {
  init(_ model: LanguageModel) {
    self.init()
    let description = model.description
    context_length = UInt32(clamping: model.contextLength)
    vocabulary_size = UInt32(clamping: model.vocabularySize)
    layers = UInt32(clamping: description.layerCount)
    width = UInt32(clamping: description.width)
    feed_forward_width = UInt32(clamping: description.feedForwardWidth)
    heads = UInt32(clamping: description.heads.headCount)
    kv_heads = UInt32(clamping: description.heads.kvHeadCount)
    head_size = UInt32(clamping: description.heads.headSize)
    bos = model.tokenizer?.bos ?? -1
    eos = model.tokenizer?.eos ?? -1
    adds_bos = model.tokenizer?.addsBOS == true ? 1 : 0
    for tensor in description.tensors {
      weight_count += UInt64(clamping: tensor.columns) * UInt64(clamping: tensor.rows)
      file_bytes += UInt64(clamping: tensor.byteCount)
    }
    Arguments.set(&architecture, description.architecture.name)
    Arguments.set(&name, description.name ?? "")
  }
}

@c @implementation
public func vkinfer_model_metadata(
  _ model: OpaquePointer?, _ key: UnsafePointer<CChar>?, _ text: UnsafeMutablePointer<CChar>?,
  _ capacity: Int, _ length: UnsafeMutablePointer<Int>?
) -> vkinfer_status {
  reporting {
    let model = try find(model, ModelObject.self).model
    let key = try Arguments.text(key, "key")
    // Names in files are ASCII; others are compared by Unicode's rules, which takes long for hostile ones.
    guard key.utf8.count <= 65_535, key.utf8.allSatisfy({ $0 < 0x80 }), let value = model.metadata[key] else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "the model has no metadata of that name")
    }
    guard let value = value.scalarText else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "\(key) is an array")
    }
    try Arguments.deliver(value, to: text, capacity: capacity, length: length)
  }
}

extension MetadataValue {
  /// A text, number or flag as text; nil for an array.
  fileprivate var scalarText: String? {
    if let string { return string }
    if let bool { return bool ? "true" : "false" }
    if case .uint64(let value) = self { return "\(value)" }
    if let int { return "\(int)" }
    if case .float32(let value) = self { return "\(value)" }
    return double.map { "\($0)" }
  }
}

// MARK: - Tokens

/// The flags of texts, checked.
struct TextFlags {
  let addsSpecial: Bool
  let parsesSpecial: Bool
  let showsSpecial: Bool

  init(_ flags: UInt32, allowed: Int32...) throws {
    let unknown = flags & ~UInt32(allowed.reduce(0, |))
    guard unknown == 0 else {
      throw Failure(VKINFER_ERROR_ARGUMENT, "flags \(unknown) are unknown here")
    }
    addsSpecial = flags & UInt32(VKINFER_ADD_SPECIAL) != 0
    parsesSpecial = flags & UInt32(VKINFER_PARSE_SPECIAL) != 0
    showsSpecial = flags & UInt32(VKINFER_SHOW_SPECIAL) != 0
  }

  /// The tokens of a caller's text.
  static func tokens(
    _ text: UnsafePointer<CChar>?, length: Int, flags: UInt32, of model: LanguageModel
  ) throws -> [Int32] {
    let flags = try TextFlags(flags, allowed: Int32(VKINFER_ADD_SPECIAL), Int32(VKINFER_PARSE_SPECIAL))
    return try model.tokens(
      of: Arguments.text(text, length: length, "text"), addSpecial: flags.addsSpecial,
      parseSpecial: flags.parsesSpecial)
  }
}

@c @implementation
public func vkinfer_tokenize(
  _ model: OpaquePointer?, _ text: UnsafePointer<CChar>?, _ length: Int, _ flags: UInt32,
  _ tokens: UnsafeMutablePointer<Int32>?, _ capacity: Int, _ count: UnsafeMutablePointer<Int>?
) -> vkinfer_status {
  reporting {
    let model = try find(model, ModelObject.self).model
    try Arguments.deliver(
      TextFlags.tokens(text, length: length, flags: flags, of: model), to: tokens, capacity: capacity,
      count: count)
  }
}

@c @implementation
public func vkinfer_detokenize(
  _ model: OpaquePointer?, _ tokens: UnsafePointer<Int32>?, _ count: Int, _ flags: UInt32,
  _ text: UnsafeMutablePointer<CChar>?, _ capacity: Int, _ length: UnsafeMutablePointer<Int>?
) -> vkinfer_status {
  reporting {
    let model = try find(model, ModelObject.self).model
    let flags = try TextFlags(flags, allowed: Int32(VKINFER_SHOW_SPECIAL))
    let tokens = Array(try Arguments.elements(tokens, count: count, "tokens"))
    if let wrong = tokens.first(where: { !(0..<model.vocabularySize).contains(Int($0)) }) {
      throw Failure(
        VKINFER_ERROR_PROMPT, "token id \(wrong) is not in the vocabulary of \(model.vocabularySize)")
    }
    try Arguments.deliver(
      model.text(of: tokens, showsSpecial: flags.showsSpecial), to: text, capacity: capacity, length: length)
  }
}

@c @implementation
public func vkinfer_token_ends(
  _ model: OpaquePointer?, _ token: Int32, _ ends: UnsafeMutablePointer<Int32>?
) -> vkinfer_status {
  reporting {
    let model = try find(model, ModelObject.self).model
    try Arguments.out(ends, "ends").pointee = model.tokenizer?.endOfGeneration.contains(token) == true ? 1 : 0
  }
}
