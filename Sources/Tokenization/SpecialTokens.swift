/// Finds the tokens that are taken out of the text before it is cut into words.
///
/// A trie over bytes; at each place in the text the longest token wins.
struct SpecialTokens: Sendable {
  private var edges: IntegerTable
  /// For each node of the trie the token that ends there, or -1. Node 0 is the root.
  private var tokens: [Int32] = [-1]
  /// Which bytes a special token starts with: most of a text is passed over by these alone.
  private var isFirstByte = [Bool](repeating: false, count: 256)
  private let vocabulary: Vocabulary

  /// Bytes of text that special tokens may have together: 200 000 named ones of an audio model have 3.6 MB. A node of
  /// the trie takes many times the byte that it stands for, so the limit bounds what a hostile file can cost.
  private static let textLimit = 4 << 20

  /// - Throws: when the special tokens are longer than those of any model.
  init(_ vocabulary: Vocabulary) throws(TokenizerError) {
    self.vocabulary = vocabulary
    edges = IntegerTable(capacity: 0)
    let special = (0..<vocabulary.count).filter { token in
      switch vocabulary.kinds[token] {
      case .control, .unknown, .userDefined: true
      case .normal, .unused, .byte: false
      }
    }
    let size = special.reduce(0) { $0 + vocabulary.pieces[$1].count }
    guard size <= Self.textLimit else {
      throw TokenizerError(
        "tokenizer.ggml.tokens has special tokens of \(size) bytes together, and no model has more than "
          + "\(Self.textLimit): the file is damaged; fetch it again")
    }
    for token in special { insert(vocabulary.pieces[token], Int32(token)) }
  }

  private mutating func insert(_ text: ArraySlice<UInt8>, _ token: Int32) {
    guard let first = text.first else { return }
    isFirstByte[Int(first)] = true
    var node: Int32 = 0
    for byte in text {
      let edge = Self.edge(node, byte)
      if let child = edges[edge] {
        node = child
      } else {
        let child = Int32(tokens.count)
        tokens.append(-1)
        edges.insertIfAbsent(edge, child)
        node = child
      }
    }
    if tokens[Int(node)] < 0 { tokens[Int(node)] = token }
  }

  @inline(__always)
  private static func edge(_ node: Int32, _ byte: UInt8) -> UInt64 {
    UInt64(UInt32(bitPattern: node)) << 8 | UInt64(byte)
  }

  /// The first special token in `text` at `offset` or later, and where it lies.
  ///
  /// - Parameter parsesControl: Whether names of control and unknown tokens count; user-defined ones always do.
  func first(
    in text: UnsafeBufferPointer<UInt8>, from offset: Int, parsesControl: Bool
  ) -> (token: Int32, range: Range<Int>)? {
    for start in offset..<text.count where isFirstByte[Int(text[start])] {
      var node: Int32 = 0
      var longest: (token: Int32, range: Range<Int>)?
      for end in start..<text.count {
        guard let child = edges[Self.edge(node, text[end])] else { break }
        node = child
        let token = tokens[Int(node)]
        if token >= 0 && (parsesControl || vocabulary.kinds[Int(token)] == .userDefined) {
          longest = (token, start..<end + 1)
        }
      }
      if let longest { return longest }
    }
    return nil
  }
}
