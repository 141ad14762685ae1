import Synchronization

/// Weights that no file holds: random blocks of any format, for benchmarks of a model's shape and for tests.
///
/// The weights of a tensor have mean 0 and a standard deviation of about `1/sqrt(columns)`, so activations keep
/// their size from layer to layer; one-dimensional floating-point tensors are near 1, as norm weights are, unless
/// they are named as biases. The same seed, name, shape and format give the same bytes.
///
/// Bytes come from a pool of random blocks for each format and number of columns, which a tensor reads from a place
/// of its own and round again. The pool's number of blocks is prime, so rows do not repeat at a tensor's period.
package struct RandomTensorSource: TensorSource {
  package let tensors: [TensorInfo]
  private let indices: [String: Int]
  private let seed: UInt64
  private let pools: [RandomBlocks.Kind: [UInt8]]
  private let scratch = ScratchMemory()

  /// - Precondition: names in `tensors` are unique. Where the tensors say that they lie is ignored.
  package init(tensors: [TensorInfo], seed: UInt64) {
    self.tensors = tensors
    self.seed = seed
    indices = Dictionary(uniqueKeysWithValues: zip(tensors.map(\.name), tensors.indices))
    pools = Dictionary(
      uniqueKeysWithValues: Set(tensors.map(RandomBlocks.Kind.init)).map {
        ($0, RandomBlocks.pool($0, seed: seed))
      })
  }

  package func tensor(_ name: String) -> TensorInfo? { indices[name].map { tensors[$0] } }

  package func withBytes<R>(
    of tensor: TensorInfo, rows: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R
  ) throws -> R {
    precondition(rows.lowerBound >= 0 && rows.upperBound <= tensor.rows, "rows \(rows) of \(tensor.rows)")
    let pool = pools[RandomBlocks.Kind(tensor)]!
    return try pool.withUnsafeBytes { pool in
      let count = rows.count * tensor.rowBytes
      let start = (place(of: tensor, in: pool.count) + rows.lowerBound * tensor.rowBytes) % pool.count
      if start + count <= pool.count {
        return try body(UnsafeRawBufferPointer(rebasing: pool[start..<start + count]))
      }
      return try scratch.withBytes(count) { copy in
        var source = start
        var written = 0
        while written < count {
          let piece = min(pool.count - source, count - written)
          // Never empty: an empty range of rows fits in the pool.
          (copy.baseAddress! + written).copyMemory(from: pool.baseAddress! + source, byteCount: piece)
          written += piece
          source = 0
        }
        return try body(UnsafeRawBufferPointer(copy))
      }
    }
  }

  /// Where in its pool a tensor starts: at a block, and a multiple of 32 bytes as in a file.
  private func place(of tensor: TensorInfo, in poolBytes: Int) -> Int {
    // FNV-1a: the standard library's hashes differ from run to run.
    var hash = 0xcbf2_9ce4_8422_2325 ^ seed
    for byte in tensor.name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    let step = 32 * tensor.type.blockBytes
    return Int(hash % UInt64(poolBytes / step)) * step
  }
}

/// Memory that is kept from use to use: paging in fresh memory takes longer than filling it.
private final class ScratchMemory: Sendable {
  private let unused = Mutex<[[UInt8]]>([])

  func withBytes<R>(_ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> R) rethrows -> R {
    var memory = unused.withLock { $0.popLast() } ?? []
    if memory.count < count { memory = [UInt8](repeating: 0, count: count) }
    defer { unused.withLock { $0.append(memory) } }
    return try memory.withUnsafeMutableBytes {
      try body(UnsafeMutableRawBufferPointer(rebasing: $0[..<count]))
    }
  }
}
