import Kernels
import ModelFiles

/// A text with the keys and values of its full pages, in a file.
///
/// Little-endian: `Header`, the token ids (4 bytes each), the pages, and a checksum of all that (FNV-1a, 64 bits). Sizes
/// in the header are claims: the file's own size must bear them out before anything is allocated or read.
struct SavedState {
  struct Header: BitwiseCopyable {
    var magic = SavedState.magic
    /// Of the model, and of what a page's bytes mean.
    var fingerprint: UInt64 = 0
    var pageBytes: UInt64 = 0
    var pageTokens: UInt32 = 0
    var tokenCount: UInt32 = 0
    var pageCount: UInt32 = 0
    var reserved: UInt32 = 0
  }

  /// "VKISTAT1", version 1 of the format.
  static let magic: UInt64 = 0x3154_4154_5349_4B56

  /// FNV-1a over eight bytes at a time, and single ones at the end of each piece.
  struct Checksum {
    private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

    mutating func add(_ bytes: UnsafeRawBufferPointer) {
      let words = bytes.count / 8
      for word in 0..<words {
        value = (value ^ bytes.loadUnaligned(fromByteOffset: 8 * word, as: UInt64.self)) &* 0x100_0000_01b3
        // A product only carries upwards.
        value ^= value >> 29
      }
      for byte in bytes[(8 * words)...] { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
    }

    mutating func add(_ text: String) {
      var text = text
      text.withUTF8 { add(UnsafeRawBufferPointer($0)) }
    }
  }

  let header: Header
  let tokens: [Int32]
  private let file: InputFile
  private let path: String
  private var checksum = Checksum()

  /// Reads header and tokens of a file that must be of this model.
  init(path: String, expected: Header, model: LanguageModel, contextLength: Int) throws {
    self.path = path
    let file = try InputFile(path: path)
    func damaged(_ what: String) -> ModelFileError {
      ModelFileError(path: path, reason: "damaged: \(what); save the state again")
    }
    var header = Header()
    let headerBytes = MemoryLayout<Header>.size
    guard file.byteCount >= headerBytes + 8 else { throw damaged("it has only \(file.byteCount) bytes") }
    try withUnsafeMutableBytes(of: &header) { try file.read($0) }
    guard header.magic == Self.magic else {
      throw ModelFileError(path: path, reason: "is no saved state of this version of vkinfer")
    }
    guard header.fingerprint == expected.fingerprint, header.pageBytes == expected.pageBytes,
      header.pageTokens == expected.pageTokens
    else {
      throw EngineError(.model, "\(path): the state of another model, or of another type of keys and values")
    }
    let count = Int(header.tokenCount)
    guard Int(header.pageCount) <= count / Int(header.pageTokens),
      file.byteCount == headerBytes + 4 * count + Int(header.pageCount) * Int(header.pageBytes) + 8
    else { throw damaged("its size is not what its header says") }
    guard count <= contextLength else {
      throw EngineError(
        .prompt, "\(path): the text has \(count) tokens, but the context holds \(contextLength)")
    }
    var tokens = [Int32](repeating: 0, count: count)
    try tokens.withUnsafeMutableBytes { try file.read($0) }
    guard tokens.allSatisfy({ (0..<model.vocabularySize).contains(Int($0)) }) else {
      throw damaged("a token is not in the vocabulary")
    }
    self.header = header
    self.tokens = tokens
    self.file = file
    withUnsafeBytes(of: header) { checksum.add($0) }
    tokens.withUnsafeBytes { checksum.add($0) }
  }

  /// Reads the next page.
  mutating func readPage(_ bytes: UnsafeMutableRawBufferPointer) throws {
    try file.read(bytes)
    checksum.add(UnsafeRawBufferPointer(bytes))
  }

  /// Throws if anything read so far is not as it was written.
  func finish() throws {
    var found: UInt64 = 0
    try withUnsafeMutableBytes(of: &found) { try file.read($0) }
    guard found == checksum.value else {
      throw ModelFileError(path: path, reason: "damaged: its checksum is wrong; save the state again")
    }
  }

  /// Writes a state; `pages` hands each page's bytes to the closure that it is given.
  static func write(
    path: String, header: Header, tokens: [Int32],
    pages: (_ write: (UnsafeRawBufferPointer) throws -> Void) throws -> Void
  ) throws {
    let file = try OutputFile(path: path)
    var checksum = Checksum()
    let write = { (bytes: UnsafeRawBufferPointer) in
      try file.write(bytes)
      checksum.add(bytes)
    }
    try withUnsafeBytes(of: header) { try write($0) }
    try tokens.withUnsafeBytes { try write($0) }
    try pages(write)
    try withUnsafeBytes(of: checksum.value) { try file.write($0) }
    try file.finish()
  }
}

extension Engine {
  /// Writes a text, and the keys and values that the cache has of it, to a file. Waits for the step under way.
  public func saveState(of tokens: [Int32], to path: String) throws {
    guard tokens.count <= contextLength else {
      throw EngineError(
        .prompt, "the text has \(tokens.count) tokens, but the context holds \(contextLength)")
    }
    try withBatch { batch in
      // The last token is one more than is to be found.
      let pages = batch.scheduler.pages.match(tokens + [0], step: batch.scheduler.stepCount).pages
      let runner = try soleRunner(batch)
      var header = stateHeader(runner)
      header.tokenCount = UInt32(tokens.count)
      header.pageCount = UInt32(pages.count)
      try SavedState.write(path: path, header: header, tokens: tokens) { write in
        try runner.readPages(pages) { try write($0) }
      }
    }
  }

  /// Reads a file of `saveState`: its keys and values go to the cache, where a request that begins with the text finds
  /// them. Waits for the step under way.
  ///
  /// - Returns: the text's tokens.
  /// - Throws: one line if the file is damaged or of another model; the cache knows nothing of it then.
  public func restoreState(from path: String) throws -> [Int32] {
    try withBatch { batch in
      let runner = try soleRunner(batch)
      var state = try SavedState(
        path: path, expected: stateHeader(runner), model: model, contextLength: contextLength)
      let size = Int(state.header.pageTokens)
      let covered = Array(state.tokens.prefix(Int(state.header.pageCount) * size))
      var pages: [UInt32] = []
      defer { batch.scheduler.pages.release(&pages) }
      guard batch.scheduler.pages.grow(&pages, tokens: covered.count) else {
        throw EngineError(
          .device, "\(path): the KV cache has no room for \(covered.count) tokens now; end some sessions")
      }
      try runner.writePages(pages) { try state.readPage($0) }
      try state.finish()
      var node: PrefixCache.Node = 0
      for (index, page) in pages.enumerated() {
        node = batch.scheduler.pages.remember(
          page, after: node, tokens: Array(covered[index * size..<(index + 1) * size]),
          step: batch.scheduler.stepCount)
      }
      return state.tokens
    }
  }

  /// The device that has all keys and values.
  private func soleRunner(_ batch: Batch) throws -> ModelRunner {
    if let runner = batch.runner as? ModelRunner { return runner }
    throw EngineError(
      .option, "the state of a text cannot be saved or restored where several devices share a model: use one")
  }

  private func stateHeader(_ runner: ModelRunner) -> SavedState.Header {
    var header = SavedState.Header()
    header.fingerprint = model.fingerprint
    header.pageBytes = UInt64(runner.kvCache.pageByteCount)
    header.pageTokens = UInt32(KVCache.pageTokens)
    return header
  }
}

extension LanguageModel {
  /// Tells models apart whose keys and values differ: names, types, shapes and the first bytes of all tensors.
  fileprivate var fingerprint: UInt64 {
    var checksum = SavedState.Checksum()
    checksum.add(KVCache.pageLayout)
    checksum.add(description.architecture.name)
    for tensor in description.tensors {
      checksum.add("\(tensor.name) \(tensor.type.name) \(tensor.shape)")
      guard tensor.rows > 0 else { continue }
      try? source.withBytes(of: tensor, rows: 0..<1) { bytes in
        checksum.add(UnsafeRawBufferPointer(rebasing: bytes.prefix(256)))
      }
    }
    return checksum.value
  }
}
