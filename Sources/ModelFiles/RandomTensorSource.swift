import Synchronization

/// Weights that no file holds: random blocks of any format, for benchmarks of a model's shape and for tests.
///
/// The weights of a tensor have mean 0 and a standard deviation of about `1/sqrt(columns)`, so activations keep
/// their size from layer to layer; one-dimensional floating-point tensors are near 1, as norm weights are, unless
/// they are named as biases. The same seed, name, shape and format give the same bytes.
///
/// Bytes come from a pool of random blocks for each format and number of columns, which a tensor reads from a place
/// of its own and round again. The pool's number of blocks is prime, so rows do not repeat at a tensor's period.
/// A source with recipes lets a device make the blocks of matrices itself: like these, but not the same ones.
package struct RandomTensorSource: TensorSource {
  package let tensors: [TensorInfo]
  private let indices: [String: Int]
  private let seed: UInt64
  private let hasRecipes: Bool
  private let pools = Pools()
  private let scratch = ScratchMemory()

  /// - Parameter hasRecipes: whether matrices may be made where they are needed, without their bytes here: faster,
  ///   but then nobody else can read what was made.
  /// - Precondition: names in `tensors` are unique. Where the tensors say that they lie is ignored.
  package init(tensors: [TensorInfo], seed: UInt64, hasRecipes: Bool = false) {
    self.tensors = tensors
    self.seed = seed
    self.hasRecipes = hasRecipes
    indices = Dictionary(uniqueKeysWithValues: zip(tensors.map(\.name), tensors.indices))
  }

  package func tensor(_ name: String) -> TensorInfo? { indices[name].map { tensors[$0] } }

  package func withBytes<R>(
    of tensor: TensorInfo, rows: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> R
  ) throws -> R {
    precondition(rows.lowerBound >= 0 && rows.upperBound <= tensor.rows, "rows \(rows) of \(tensor.rows)")
    let pool = pools.pool(RandomBlocks.Kind(tensor), seed: seed)
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

  package func recipe(of tensor: TensorInfo) -> RandomRecipe? {
    guard hasRecipes else { return nil }
    let hash = hash(of: tensor)
    return pools.recipe(RandomBlocks.Kind(tensor), seed: UInt32(truncatingIfNeeded: hash ^ hash >> 32))
  }

  /// Where in its pool a tensor starts: at a block, and a multiple of 32 bytes as in a file.
  private func place(of tensor: TensorInfo, in poolBytes: Int) -> Int {
    let step = 32 * tensor.type.blockBytes
    return Int(hash(of: tensor) % UInt64(poolBytes / step)) * step
  }

  /// FNV-1a of the name and the seed: the standard library's hashes differ from run to run.
  private func hash(of tensor: TensorInfo) -> UInt64 {
    tensor.name.utf8.reduce(0xcbf2_9ce4_8422_2325 ^ seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}

/// What each kind of tensor is made of, prepared when first asked for.
private final class Pools: Sendable {
  private let pools = Mutex<[RandomBlocks.Kind: [UInt8]]>([:])
  private let recipes = Mutex<[RandomBlocks.Kind: RandomRecipe]>([:])

  func pool(_ kind: RandomBlocks.Kind, seed: UInt64) -> [UInt8] {
    pools.withLock { pools in
      if let known = pools[kind] { return known }
      let made = RandomBlocks.pool(kind, seed: seed)
      pools[kind] = made
      return made
    }
  }

  func recipe(_ kind: RandomBlocks.Kind, seed: UInt32) -> RandomRecipe {
    var recipe = recipes.withLock { recipes in
      let recipe = recipes[kind] ?? RandomBlocks.recipe(kind, seed: 0)
      recipes[kind] = recipe
      return recipe
    }
    recipe.seed = seed
    return recipe
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
