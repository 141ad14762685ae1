import Kernels
import ModelFiles

/// A text with the keys and values of its full pages, in a file.
///
/// Little-endian: `Header`, the token ids (4 bytes each), the pages, and a checksum of all that (FNV-1a, 64 bits). A page
/// has the keys of a layer, kv head by kv head, then its values, then the next layer's (`StepRunner.readPages`), whichever
/// devices had them. Sizes in the header are claims: the file's own size must bear them out before anything is allocated
/// or read.
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
    guard header.fingerprint == expected.fingerprint, header.pageTokens == expected.pageTokens else {
      throw EngineError(
        .model, "\(path): is the state of another model; restore it with the model that it was saved with")
    }
    guard header.pageBytes == expected.pageBytes else {
      let type = KVCacheType.allCases.first {
        model.pageBytes($0) == Int(clamping: header.pageBytes)
      }
      throw EngineError(
        .model,
        "\(path): "
          + (type.map { "has keys and values in \($0.rawValue): open the engine with that type of them" }
            ?? "has pages of \(header.pageBytes) bytes, not \(expected.pageBytes); save the state again"))
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

  /// Reads what comes next of the pages.
  mutating func read(_ bytes: UnsafeMutableRawBufferPointer) throws {
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

  /// Goes through pages some at a time, with memory for these.
  static func inPieces<Page>(
    _ pages: [Page], pageBytes: Int, _ body: ([Page], UnsafeMutableRawBufferPointer) throws -> Void
  ) throws {
    let most = max(1, (16 << 20) / pageBytes)
    let bytes = UnsafeMutableRawBufferPointer.allocate(
      byteCount: min(most, pages.count) * pageBytes, alignment: 16)
    defer { bytes.deallocate() }
    for start in stride(from: 0, to: pages.count, by: most) {
      let piece = Array(pages[start..<min(start + most, pages.count)])
      try body(piece, UnsafeMutableRawBufferPointer(rebasing: bytes[..<(piece.count * pageBytes)]))
    }
  }

  /// Writes a state; `pages` hands their bytes to the closure that it is given.
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
  /// Writes a text, and the keys and values that the cache has of it, to a file. Waits for the step under way. What the
  /// file holds does not depend on the devices: other meshes can restore it.
  public func saveState(of tokens: [Int32], to path: String) throws {
    guard tokens.count <= contextLength else {
      throw EngineError(
        .prompt, "the text has \(tokens.count) tokens, but the context holds \(contextLength)")
    }
    try withWorkingBatch { batch in
      try batch.makeMoves()
      let places = batch.scheduler.places(of: tokens)
      let runner = try batch.runner
      var header = stateHeader(runner)
      header.tokenCount = UInt32(tokens.count)
      header.pageCount = UInt32(places.count)
      try SavedState.write(path: path, header: header, tokens: tokens) { write in
        try SavedState.inPieces(places, pageBytes: runner.pageByteCount) { piece, bytes in
          try runner.readPages(piece, into: bytes)
          try write(UnsafeRawBufferPointer(bytes))
        }
      }
    }
  }

  /// Reads a file of `saveState`: its keys and values go to the cache, where a request that begins with the text finds
  /// them. Waits for the step under way.
  ///
  /// - Returns: the text's tokens.
  /// - Throws: one line if the file is damaged, of another model, or has keys and values of another type; the cache knows
  ///   nothing of it then.
  public func restoreState(from path: String) throws -> [Int32] {
    try withWorkingBatch { batch in
      let runner = try batch.runner
      var state = try SavedState(
        path: path, expected: stateHeader(runner), model: model, contextLength: contextLength)
      let size = Int(state.header.pageTokens)
      let covered = Array(state.tokens.prefix(Int(state.header.pageCount) * size))
      try batch.makeMoves()
      var pages: [UInt32] = []
      defer { batch.scheduler.pages.release(&pages) }
      guard batch.scheduler.pages.grow(&pages, tokens: covered.count) else {
        throw EngineError(
          .device, "\(path): the KV cache has no room for \(covered.count) tokens now; end some sessions")
      }
      try SavedState.inPieces(pages, pageBytes: runner.pageByteCount) { piece, bytes in
        try state.read(bytes)
        try runner.writePages(piece, from: UnsafeRawBufferPointer(bytes))
      }
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

  private func stateHeader(_ runner: any StepRunner) -> SavedState.Header {
    var header = SavedState.Header()
    header.fingerprint = model.fingerprint
    header.pageBytes = UInt64(runner.pageByteCount)
    header.pageTokens = UInt32(KVCache.pageTokens)
    return header
  }
}

extension LanguageModel {
  /// Bytes of a page of the KV cache in all layers.
  fileprivate func pageBytes(_ type: KVCacheType) -> Int {
    var heads = program.heads
    heads.cacheType = type
    return KVCache.pageBytes(heads: heads) * program.layerCount
  }

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
