import Foundation
import ModelFiles
import Testing

/// Files made by Tools/reference/ggml-fixtures.py.
func fixture(_ name: String) -> String {
  URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/\(name)").path
}

/// Runs `body` with an empty folder, which is removed afterwards.
func withTemporaryFolder<R>(_ body: (String) throws -> R) throws -> R {
  let folder = FileManager.default.temporaryDirectory.appending(path: "model-files-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.path)
}

/// The bytes of a GGUF file, right or wrong, put together field by field.
struct GGUFBytes {
  var bytes: [UInt8] = []

  /// A header that claims `tensors` and `keys`; nothing follows yet.
  init(version: UInt32 = 3, tensors: UInt64 = 0, keys: UInt64 = 0) {
    bytes = Array("GGUF".utf8)
    add(version)
    add(tensors)
    add(keys)
  }

  mutating func add<T: BitwiseCopyable>(_ value: T) { withUnsafeBytes(of: value) { bytes += $0 } }

  mutating func add(_ text: String) {
    add(UInt64(text.utf8.count))
    bytes += text.utf8
  }

  /// A key with its value type; the value follows.
  mutating func addKey(_ name: String, type: UInt32) {
    add(name)
    add(type)
  }

  /// An array key's name, types and count; the elements follow.
  mutating func addArrayKey(_ name: String, elementType: UInt32, count: UInt64) {
    addKey(name, type: 9)
    add(elementType)
    add(count)
  }

  mutating func addTensor(_ name: String, shape: [UInt64], type: UInt32, offset: UInt64 = 0) {
    add(name)
    add(UInt32(shape.count))
    for size in shape { add(size) }
    add(type)
    add(offset)
  }

  /// Zeros up to the start of the weights and then `count` more.
  mutating func addWeights(_ count: Int, alignment: Int = 32) {
    bytes += [UInt8](repeating: 0, count: (alignment - bytes.count % alignment) % alignment + count)
  }

  func header() throws -> GGUFHeader {
    try bytes.withUnsafeBytes { try GGUFHeader(parsing: $0, path: "model.gguf") }
  }
}

/// Expects `file` to be refused, at once, for a reason that holds `text`, in one line that names the file.
func expectRefusal(
  _ file: GGUFBytes, because text: String, sourceLocation: SourceLocation = #_sourceLocation
) {
  let start = threadMilliseconds()
  let error = #expect(throws: ModelFileError.self, sourceLocation: sourceLocation) { try file.header() }
  #expect(threadMilliseconds() - start < 1000, sourceLocation: sourceLocation)
  guard let error else { return }
  #expect(error.description.contains(text), "\(error)", sourceLocation: sourceLocation)
  #expect(error.description.hasPrefix("model.gguf: "), sourceLocation: sourceLocation)
  #expect(!error.description.contains { $0.isNewline }, sourceLocation: sourceLocation)
}

/// Processor time of this thread: what a hostile file costs, whatever else the machine does.
func threadMilliseconds() -> Int {
  var time = timespec()
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
  return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}
