import CShaderInterface
import Kernels
import ModelFiles
import Testing
import Transformer
import VulkanRuntime

/// Weights go to the device with `repack`, come back with `embed`, and equal what ModelFiles dequantises on the host.
@Suite(.enabled(if: TestDevice.absence == nil, "needs a Vulkan device"), .serialized)
struct WeightFormatTests {
  static let rows = 24
  /// An odd number of blocks, so that rows and blocks share words in the planes of halves and bytes.
  static func columns(_ type: TensorType) -> Int { type.blockSize == 256 ? 3 * 256 : 9 * 32 }

  @Test("a whole tensor", arguments: TensorType.allCases)
  func whole(type: TensorType) throws {
    let source = RawBlocks(type: type, rows: Self.rows, columns: Self.columns(type), names: ["a"])
    let found = try roundTrip(source, [.init(slice: source.slice("a"))])
    expectClose(found, source.weights("a"), type)
  }

  @Test("some columns of some rows", arguments: TensorType.allCases)
  func slice(type: TensorType) throws {
    let columns = Self.columns(type)
    let source = RawBlocks(type: type, rows: Self.rows, columns: columns, names: ["a"])
    let kept = (rows: 5..<22, columns: columns / 3..<columns)
    let slice = TensorSlice(tensor: "a", type: type, rows: kept.rows, columns: kept.columns)
    let found = try roundTrip(source, [.init(slice: slice)])
    expectClose(found, source.weights("a")[kept.rows].map { Array($0[kept.columns]) }, type)
  }

  @Test("two tensors whose rows alternate", arguments: TensorType.allCases)
  func alternating(type: TensorType) throws {
    let source = RawBlocks(type: type, rows: Self.rows, columns: Self.columns(type), names: ["gate", "up"])
    let found = try roundTrip(
      source,
      [
        .init(slice: source.slice("gate"), rowOffset: 0, rowStride: 2),
        .init(slice: source.slice("up"), rowOffset: 1, rowStride: 2),
      ])
    expectClose(found, zip(source.weights("gate"), source.weights("up")).flatMap { [$0, $1] }, type)
  }

  @Test("stacked tensors, one in rope pair order", arguments: TensorType.allCases)
  func pairOrder(type: TensorType) throws {
    let source = RawBlocks(
      type: type, rows: Self.rows, columns: Self.columns(type), names: ["query", "value"])
    let found = try roundTrip(
      source,
      [
        .init(slice: source.slice("query"), pairs: (headSize: 8, rotatedSize: 6)),
        .init(slice: source.slice("value"), rowOffset: Self.rows),
      ])
    // Elements i and i + 3 of a head make pair i; the last two do not turn.
    let order = [0, 3, 1, 4, 2, 5, 6, 7]
    let query = source.weights("query")
    let expected = (0..<Self.rows).map { query[$0 / 8 * 8 + order[$0 % 8]] }
    expectClose(found, expected + source.weights("value"), type)
  }

  @Test("mxfp4: every number with every exponent is exact where float32 holds it")
  func exponents() throws {
    // Block e of 17 bytes: exponent e, then each nibble twice.
    let bytes = (0..<256).flatMap { [UInt8($0)] + (0..<16).map { UInt8($0 * 0x11) } }
    let source = RawBlocks(type: .mxfp4, rows: 8, columns: 1024, bytes: ["a": bytes])
    let found = try roundTrip(source, [.init(slice: source.slice("a"))])
    for (found, expected) in zip(found.joined(), source.weights("a").joined())
    where expected == 0 || expected.isNormal {
      #expect(found == expected)
    }
  }

  @Test("planes take what the file takes, but for alignment", arguments: TensorType.allCases)
  func sizes(type: TensorType) throws {
    let (rows, columns) = (512, 4096)
    let format = WeightFormat.of(type)
    let layout = format.planeOffsets(rows: rows, columns: columns)
    #expect(layout.offsets.allSatisfy { $0.isMultiple(of: 256) })
    let inFile = try #require(type.byteCount(weights: rows * columns))
    // q3_k's scales take 16 bytes instead of 12.
    let expected = type == .q3_k ? inFile / 110 * 114 : inFile
    #expect(layout.total >= expected && layout.total <= expected + 4 * 256)
  }

  /// Loads `parts` as a matrix and reads all its rows back.
  private func roundTrip(_ source: RawBlocks, _ parts: [WeightLoader.Part]) throws -> [[Float]] {
    let device = try TestDevice.open()
    let cache = KernelCache(device: device)
    let loader = try WeightLoader(cache: cache, source: source, pieces: [], onProgress: { _ in })
    let matrix = try loader.matrix(parts)
    let weights = try loader.finish()

    let stride = activationStride(matrix.columns)
    let output = try device.makeBuffer(
      byteCount: matrix.rows * stride * 4, memory: .download, label: "output")
    let floats = try #require(output.contents).assumingMemoryBound(to: Float.self)
    floats.update(repeating: .nan, count: matrix.rows * stride)
    let step = try device.makeBuffer(byteCount: 16 + 16 * matrix.rows, memory: .upload, label: "step")
    let words = try #require(step.contents).assumingMemoryBound(to: UInt32.self)
    for (index, word) in [UInt32(matrix.rows), 0, 0, 0].enumerated() { words[index] = word }
    for row in 0..<matrix.rows {
      for (index, word) in [UInt32(row), 0, 0, 0].enumerated() { words[4 + 4 * row + index] = word }
    }

    var push = EmbedPush()
    push.outputs = output.address
    push.step = step.address
    push.output_stride = UInt32(stride)
    let commands = try device.makeCommandBuffer(queue: device.computeQueue, reusable: false)
    try commands.begin()
    commands.keepAlive(weights.buffers + [output, step])
    try EmbedKernel(table: matrix, scale: 1, next: .none)
      .record(
        commands, push: push, rowCount: matrix.rows, cache: cache)
    commands.barrierToHost()
    try commands.end()
    let done = try device.makeSemaphore()
    try device.computeQueue.submit([commands], signal: [(done, 1)])
    #expect(try done.wait(for: 1, timeoutNanoseconds: 60_000_000_000))
    return (0..<matrix.rows).map { row in
      (0..<matrix.columns).map { floats[row * stride + activationIndex($0)] }
    }
  }

  /// The same shape, and equal to rounding: 1e-6 relative in norm, in every row.
  private func expectClose(_ found: [[Float]], _ expected: [[Float]], _ type: TensorType) {
    #expect(found.map(\.count) == expected.map(\.count))
    for (row, (found, expected)) in zip(found, expected).enumerated() {
      var difference = 0.0
      var size = 0.0
      for (a, b) in zip(found, expected) {
        difference += (Double(a) - Double(b)) * (Double(a) - Double(b))
        size += Double(b) * Double(b)
      }
      #expect(
        size > 0 && difference.squareRoot() <= 1e-6 * size.squareRoot(),
        "\(type.name), row \(row): off by \(difference.squareRoot()) of \(size.squareRoot())")
    }
  }
}
