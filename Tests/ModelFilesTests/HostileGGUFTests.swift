import Foundation
import ModelFiles
import Testing

/// Files that lie. Each is refused with its reason, at once: `expectRefusal` holds the clock.
@Suite struct HostileGGUFTests {
  @Test func cutAnywhere() throws {
    for name in ["metadata.gguf", "weights-blocks32.gguf", "split-00002-of-00003.gguf"] {
      let whole = [UInt8](try Data(contentsOf: URL(filePath: fixture(name))))
      let header = try whole.withUnsafeBytes { try GGUFHeader(parsing: $0, path: name) }
      // The padding after the last tensor may go missing; nothing before it may.
      let end = header.tensors.map { Int($0.offset) + $0.byteCount }.max() ?? whole.count - 31
      for length in stride(from: 0, to: end, by: max(1, end / 700)) {
        whole[..<length].withUnsafeBytes { bytes in
          _ = #expect(throws: ModelFileError.self, "\(name) cut to \(length) bytes") {
            try GGUFHeader(parsing: bytes, path: name)
          }
        }
      }
    }
  }

  /// Whatever single bytes are changed, parsing ends and what it accepts lies in the file.
  @Test func corruptBytesNeverCrash() throws {
    var generator = SeededGenerator(state: 1)
    for name in ["metadata.gguf", "weights-floats.gguf", "split-00003-of-00003.gguf"] {
      let whole = [UInt8](try Data(contentsOf: URL(filePath: fixture(name))))
      for _ in 0..<500 {
        var bytes = whole
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
          bytes[Int.random(in: 0..<min(1200, bytes.count), using: &generator)] = [0, 1, 0x7f, 0x80, 0xff]
            .randomElement(
              using: &generator)!
        }
        bytes.withUnsafeBytes { raw in
          guard let header = try? GGUFHeader(parsing: raw, path: name) else { return }
          for tensor in header.tensors { #expect(Int(tensor.offset) + tensor.byteCount <= raw.count) }
        }
      }
    }
  }

  @Test func absurdTensorCount() {
    expectRefusal(GGUFBytes(tensors: .max), because: "claims 18446744073709551615 tensors")
    expectRefusal(GGUFBytes(tensors: 100_000), because: "the name of tensor 1 of 100000")
  }

  @Test func absurdKeyCount() {
    expectRefusal(GGUFBytes(keys: 1 << 62), because: "claims 4611686018427387904 metadata keys")
    expectRefusal(GGUFBytes(keys: 60_000), because: "the name of metadata key 1 of 60000")
  }

  @Test func stringOfTwoToTheSixty() {
    var value = GGUFBytes(keys: 1)
    value.addKey("general.name", type: 8)
    value.add(UInt64(1) << 60)
    expectRefusal(value, because: "metadata 'general.name' needs 1152921504606846976 bytes")

    var key = GGUFBytes(keys: 1)
    key.add(UInt64.max)
    expectRefusal(key, because: "the name of metadata key 1 of 1 needs 18446744073709551615 bytes")

    var tensor = GGUFBytes(tensors: 1)
    tensor.add(UInt64(1) << 63)
    expectRefusal(tensor, because: "the name of tensor 1 of 1")
  }

  @Test(arguments: [UInt32](0...8) + [10, 11, 12])
  func arrayLongerThanTheFile(elementType: UInt32) {
    for count in [UInt64(1) << 61, .max, 1 << 32, 1000] {
      var file = GGUFBytes(keys: 1)
      file.addArrayKey("a", elementType: elementType, count: count)
      file.bytes += [UInt8](repeating: 0, count: 999)
      expectRefusal(file, because: "the array in metadata 'a' needs")
    }
  }

  @Test func stringInAnArrayLongerThanTheFile() {
    var file = GGUFBytes(keys: 1)
    file.addArrayKey("tokenizer.ggml.tokens", elementType: 8, count: 2)
    file.add("a")
    file.add(UInt64(1) << 60)
    expectRefusal(file, because: "needs 1152921504606846976 bytes")
  }

  @Test func nestedArrays() {
    var file = GGUFBytes(keys: 1)
    file.addArrayKey("deep", elementType: 9, count: 1)
    for _ in 0..<1000 {
      file.add(UInt32(9))
      file.add(UInt64(1))
    }
    expectRefusal(file, because: "the array in metadata 'deep' holds arrays")
  }

  @Test func unknownValueTypes() {
    var scalar = GGUFBytes(keys: 1)
    scalar.addKey("k", type: 13)
    scalar.add(UInt64(0))
    expectRefusal(scalar, because: "metadata 'k' has value type 13")

    var array = GGUFBytes(keys: 1)
    array.addArrayKey("k", elementType: .max, count: 0)
    expectRefusal(array, because: "has element type 4294967295")
  }

  @Test func duplicateKey() {
    var file = GGUFBytes(keys: 2)
    for _ in 0..<2 {
      file.addKey("general.name", type: 0)
      file.add(UInt8(0))
    }
    expectRefusal(file, because: "metadata key 'general.name' occurs twice")
  }

  @Test func namesThatAreNotASCII() {
    var key = GGUFBytes(keys: 1)
    key.add("é")
    expectRefusal(key, because: "the name of metadata key 1 of 1 at byte 24 is not ASCII")

    // Comparing texts with many combining marks in one place takes time with the square of their number.
    var tensors = GGUFBytes(tensors: 2)
    let marks = String(repeating: "\u{301}\u{327}", count: 10_000)
    tensors.addTensor("e\(marks)", shape: [1], type: 0)
    tensors.addTensor("e\(marks)\u{301}", shape: [1], type: 0)
    tensors.addWeights(64)
    expectRefusal(tensors, because: "the name of tensor 1 of 2 at byte 24 is not ASCII")
  }

  @Test func nameLongerThanGGUFAllows() {
    var file = GGUFBytes(keys: 1)
    file.addKey(String(repeating: "k", count: 65_536), type: 0)
    file.add(UInt8(0))
    expectRefusal(file, because: "has 65536 bytes, and GGUF allows 65535")
  }

  @Test func moreTextsThanAnyModelHas() {
    var file = GGUFBytes(keys: 2)
    for key in ["a", "b"] {
      file.addArrayKey(key, elementType: 8, count: 1_100_000)
      file.bytes += [UInt8](repeating: 0, count: 8 * 1_100_000)
    }
    expectRefusal(file, because: "metadata 'b' brings the file to 2200000 texts")
  }

  @Test func longTextThatIsNotUTF8() {
    var file = GGUFBytes(keys: 1)
    file.addKey("a", type: 8)
    file.add(UInt64(5 << 20))
    file.bytes += [UInt8](repeating: 0xff, count: 5 << 20)
    expectRefusal(file, because: "metadata 'a' is not UTF-8")
  }

  @Test func textWithManyMarks() throws {
    func file(marks: Int) -> GGUFBytes {
      var file = GGUFBytes(keys: 1)
      file.addKey("a", type: 8)
      file.add("e" + String(repeating: "\u{301}\u{327}", count: marks / 2) + "e\u{301}")
      return file
    }
    expectRefusal(file(marks: 100_000), because: "metadata 'a' has more than 30 combining marks in a row")
    #expect(try file(marks: 30).header().metadata["a"]?.string?.unicodeScalars.count == 33)
  }

  /// As many tensors as are allowed, with long names, cost less than a second.
  @Test func manyTensors() throws {
    let count = 1 << 17
    var file = GGUFBytes(tensors: UInt64(count))
    let name = String(repeating: "n", count: 120)
    for number in 0..<count { file.addTensor("\(name)\(number)", shape: [1], type: 0) }
    expectRefusal(file, because: "cut short or corrupt: tensor 'nnn")
    file.addWeights(4)
    #expect(try file.header().tensors.count == count)
  }

  @Test func textThatIsNotUTF8IsRepaired() throws {
    var file = GGUFBytes(keys: 1)
    file.addKey("general.description", type: 8)
    file.add(UInt64(2))
    file.bytes += [0xc3, 0x28]
    #expect(try file.header().metadata["general.description"]?.string == "\u{fffd}(")
  }

  @Test(arguments: [0, 3, 48, UInt32.max])
  func alignmentThatIsNoPowerOfTwo(alignment: UInt32) {
    var file = GGUFBytes(keys: 1)
    file.addKey("general.alignment", type: 4)
    file.add(alignment)
    expectRefusal(file, because: "general.alignment is not a power of two")
  }

  @Test func alignmentOfTheWrongType() {
    var file = GGUFBytes(keys: 1)
    file.addKey("general.alignment", type: 8)
    file.add("32")
    expectRefusal(file, because: "general.alignment is not a power of two")
  }

  @Test func alignmentBeyondTheFile() {
    var file = GGUFBytes(tensors: 1, keys: 1)
    file.addKey("general.alignment", type: 10)
    file.add(UInt64(1) << 62)
    file.addTensor("t", shape: [1], type: 0)
    file.addWeights(64)
    expectRefusal(
      file,
      because: "tensor 't' has 4 bytes at byte 0 of the weights, which start at byte 4611686018427387904")
  }

  // MARK: - Tensors

  private func oneTensor(shape: [UInt64], type: UInt32 = 0, offset: UInt64 = 0, weights: Int = 64)
    -> GGUFBytes
  {
    var file = GGUFBytes(tensors: 1)
    file.addTensor("t", shape: shape, type: type, offset: offset)
    file.addWeights(weights)
    return file
  }

  @Test func sizesThatOverflow() {
    expectRefusal(oneTensor(shape: [1 << 32, 1 << 32]), because: "claims 4294967296 x 4294967296 weights")
    expectRefusal(
      oneTensor(shape: [1 << 31, 1 << 31, 1 << 31, 1 << 31]), because: "more than any memory holds")
    expectRefusal(oneTensor(shape: [.max]), because: "claims 18446744073709551615 weights")
    expectRefusal(oneTensor(shape: [1 << 62]), because: "more than any memory holds")
    expectRefusal(
      oneTensor(shape: [1 << 31, (1 << 32) - 32], type: 8), because: "more than any memory holds")
  }

  @Test func offsetOutsideTheFile() {
    expectRefusal(
      oneTensor(shape: [16], offset: 32), because: "tensor 't' has 64 bytes at byte 32 of the weights")
    expectRefusal(
      oneTensor(shape: [16], offset: .max - 31), because: "at byte 18446744073709551584 of the weights")
    expectRefusal(oneTensor(shape: [17]), because: "tensor 't' has 68 bytes")
  }

  @Test func offsetOffTheAlignment() {
    expectRefusal(oneTensor(shape: [1], offset: 4), because: "not a multiple of the alignment 32")
  }

  @Test func zeroDimensions() {
    expectRefusal(oneTensor(shape: []), because: "has 0 dimensions")
    expectRefusal(oneTensor(shape: [4, 0]), because: "has a dimension of size 0")
    expectRefusal(oneTensor(shape: [0], type: 12), because: "has a dimension of size 0")
  }

  @Test func tooManyDimensions() {
    expectRefusal(oneTensor(shape: [1, 1, 1, 1, 1]), because: "has 5 dimensions")
    var file = GGUFBytes(tensors: 1)
    file.add("t")
    file.add(UInt32.max)
    expectRefusal(file, because: "has 4294967295 dimensions")
  }

  @Test func unknownTensorTypes() {
    expectRefusal(
      oneTensor(shape: [256], type: 16), because: "is stored as iq2_xxs, which cannot be read; use a file")
    expectRefusal(oneTensor(shape: [256], type: 4), because: "has type 4, which no known format has")
    expectRefusal(oneTensor(shape: [256], type: .max), because: "has type 4294967295")
  }

  @Test func rowsThatAreNotWholeBlocks() {
    expectRefusal(
      oneTensor(shape: [48, 2], type: 8), because: "rows of 48 weights, not a multiple of q8_0's 32")
    expectRefusal(
      oneTensor(shape: [128, 2], type: 12), because: "rows of 128 weights, not a multiple of q4_k's 256")
  }

  @Test func duplicateTensor() {
    var file = GGUFBytes(tensors: 2)
    file.addTensor("blk.0.attn_q.weight", shape: [8], type: 0)
    file.addTensor("blk.0.attn_q.weight", shape: [8], type: 0, offset: 32)
    file.addWeights(64)
    expectRefusal(file, because: "tensor 'blk.0.attn_q.weight' occurs twice")
  }

  /// Names reach the user's terminal in messages.
  @Test func namesWithControlCharactersAreEscaped() {
    var file = GGUFBytes(tensors: 1)
    file.addTensor("a\n\u{1b}[2J" + String(repeating: "x", count: 60_000), shape: [0], type: 0)
    file.addWeights(64)
    expectRefusal(file, because: #"tensor 'a\n\u{1B}[2Jxxx"#)
    let error = #expect(throws: ModelFileError.self) { try file.header() }
    #expect((error?.description.count ?? .max) < 400)
  }

  /// A sparse file claims nothing that its size does not bear out, yet must not cost its size.
  @Test func hugeSparseFile() throws {
    try withTemporaryFolder { folder in
      var file = GGUFBytes(keys: 1)
      file.addArrayKey("a", elementType: 0, count: 1 << 40)
      let path = "\(folder)/sparse.gguf"
      try Data(file.bytes).write(to: URL(filePath: path))
      try #require(truncate(path, 1 << 41) == 0)
      let start = threadMilliseconds()
      let error = #expect(throws: ModelFileError.self) { try GGUFFile(path: path) }
      #expect(error?.reason.contains("would reach past the first 64 MiB") == true)
      #expect(threadMilliseconds() - start < 500)
    }
  }

  @Test(arguments: [(5, 2), (-1, 2), (0, -1), (1, 0), (0, 70_000)])
  func splitNumbersThatMakeNoSense(number: Int, count: Int) throws {
    try withTemporaryFolder { folder in
      var file = GGUFBytes(keys: 2)
      file.addKey("split.no", type: 11)
      file.add(number)
      file.addKey("split.count", type: 11)
      file.add(count)
      let path = "\(folder)/split-00001-of-00002.gguf"
      try Data(file.bytes).write(to: URL(filePath: path))
      let error = #expect(throws: ModelFileError.self) { try GGUFFile(path: path) }
      #expect(error?.reason.contains("split.no and split.count make no sense") == true)
    }
  }
}

/// A generator with a seed, so that a failure can be seen again (Marsaglia's xorshift64).
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }
}
