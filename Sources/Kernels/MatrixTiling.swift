/// How a matrix product is cut (Shaders/matrix/matrix.comp).
package struct MatrixTiling: Sendable, Hashable {
  /// Subgroups of a workgroup, along rows and along tokens.
  package var rowSubgroups: Int
  package var tokenSubgroups: Int
  /// Fragments of a subgroup, along rows and along tokens.
  package var rowFragments: Int
  package var tokenFragments: Int
  /// Inputs in shared memory at a time.
  package var step: Int
  /// Workgroups that share the inputs of a tile.
  package var split: Int = 1
  /// Token tiles that neighbouring workgroups walk over before the next row tile, so that weights stay in the cache.
  package var band: Int = 1

  package init(rowSubgroups: Int, tokenSubgroups: Int, rowFragments: Int, tokenFragments: Int, step: Int) {
    self.rowSubgroups = rowSubgroups
    self.tokenSubgroups = tokenSubgroups
    self.rowFragments = rowFragments
    self.tokenFragments = tokenFragments
    self.step = step
  }

  package var subgroups: Int { rowSubgroups * tokenSubgroups }
  package func tileRows(_ units: MatrixUnits) -> Int { rowSubgroups * rowFragments * units.m }
  package func tileTokens(_ units: MatrixUnits) -> Int { tokenSubgroups * tokenFragments * units.n }

  /// Bytes of shared memory: a step of the tile, or at the end some of its sums.
  package func sharedBytes(_ units: MatrixUnits) -> Int {
    let quadInputs = 16 / units.inputs.byteCount
    // Fragments start at a quad.
    let rowQuads = step / quadInputs * max(1, quadInputs / units.k) + 1
    let tile = (tileRows(units) + tileTokens(units)) * rowQuads
    let sums = subgroups * units.n * (rowFragments * units.m / 4 + 1)
    // Blocks have a scale, and a minimum or a sum.
    let scales = units.inputs == .bytes ? 8 * (tileRows(units) + tileTokens(units)) * step / 32 : 0
    return 16 * max(tile, sums) + scales + 16
  }

  /// Whether a device has room for its workgroups. No driver can be relied on to say so: on some, a workgroup with
  /// more shared memory than there is loses the device instead of failing.
  package func fits(_ units: MatrixUnits, _ traits: DeviceTraits) -> Bool {
    sharedBytes(units) <= traits.sharedMemory
      && subgroups * traits.subgroupSize <= traits.maxWorkgroupInvocations
  }
}

extension MatrixTiling {
  /// "tile 8x4, subgroups 2x1, step 32, split 2, band 1", the tile in fragments.
  package var text: String {
    "tile \(rowSubgroups * rowFragments)x\(tokenSubgroups * tokenFragments), "
      + "subgroups \(rowSubgroups)x\(tokenSubgroups), step \(step), split \(split), band \(band)"
  }

  /// Any order will do, so long as it is the same in every run.
  fileprivate var order: (Int, Int, Int, Int, Int) {
    (rowSubgroups, tokenSubgroups, rowFragments, tokenFragments, step)
  }
}

/// The tilings that pay somewhere, and which of them does for a product.
package struct MatrixTilingChoice {
  private let units: MatrixUnits
  private let traits: DeviceTraits
  /// How much of the work that it can be is unpacking the weights, from 0 to 1: those of float16 and bfloat16 are there
  /// as they are, bytes nearly so.
  private let unpacking: Double
  /// Bytes of a weight.
  private let weightBytes: Double

  package init(format: WeightFormat, units: MatrixUnits, traits: DeviceTraits) {
    self.units = units
    self.traits = traits
    unpacking = [.f16, .bf16].contains(format.type) ? 0 : format.type == .q8_0 ? 0.5 : 1
    weightBytes = format.planes.reduce(0) { $0 + Double($1.bytes) / Double($1.weights) }
  }

  /// Every tiling that may be chosen on the device, but for split and band.
  package var all: [MatrixTiling] {
    let tokenCounts = [units.n, 16, 32, 48, 64]
    if traits.isCPU { return Set(tokenCounts.map { onCPU(tokenCount: $0) }).sorted { $0.order < $1.order } }
    return Set(tokenCounts.compactMap { small(tokenCount: $0) } + large.map(\.tiling))
      .sorted { $0.order < $1.order }
  }

  /// A tiling with what is known of it.
  private struct Candidate {
    var tiling: MatrixTiling
    /// Share of the matrix units' best speed that a device full of such workgroups reaches, as measured on an H200;
    /// for weights that must be unpacked, too.
    var speed: Double
    var unpackingSpeed: Double
    /// Workgroups that a device has at work, as a share of those of 4 subgroups.
    var share: Double
  }

  /// Rows and tokens of a subgroup, in elements; nil where the units' fragments or the device's limits do not fit.
  private func tiling(
    _ rowSubgroups: Int, _ tokenSubgroups: Int, rows: Int, tokens: Int, step: Int
  ) -> MatrixTiling? {
    guard rows % units.m == 0, tokens % units.n == 0, step % units.k == 0 else { return nil }
    let tiling = MatrixTiling(
      rowSubgroups: rowSubgroups, tokenSubgroups: tokenSubgroups, rowFragments: rows / units.m,
      tokenFragments: tokens / units.n, step: step)
    guard tiling.fits(units, traits) else { return nil }
    // Sums and what is loaded for the next step, with its addresses, lie in registers: 170 of an invocation leave room
    // for the rest.
    let sums = Double(rows * tokens) / Double(traits.subgroupSize)
    let rowBytes = weightBytes * Double(step * tiling.tileRows(units))
    let loadedBytes = rowBytes + Double(units.inputs.byteCount * step * tiling.tileTokens(units))
    let loads = loadedBytes / 16 / Double(tiling.subgroups * traits.subgroupSize)
    return sums <= 128 && sums + loads * (step > 32 ? 6 : 5) <= 170 ? tiling : nil
  }

  /// Tilings for many tokens that are worth a look, for comparisons.
  package var candidates: [MatrixTiling] {
    var result: [MatrixTiling] = []
    for (rowSubgroups, tokenSubgroups) in [(1, 4), (2, 2), (4, 1), (2, 4), (4, 2)] {
      for rows in [32, 48, 64, 80] {
        for tokens in [32, 48, 64] {
          for step in [32, 64, 128] {
            result += [tiling(rowSubgroups, tokenSubgroups, rows: rows, tokens: tokens, step: step)]
              .compactMap(\.self)
          }
        }
      }
    }
    return result
  }

  /// For many tokens, the arithmetic decides.
  private var large: [Candidate] {
    func candidate(
      _ tiling: MatrixTiling?, _ speed: Double, _ unpackingSpeed: Double, share: Double
    ) -> Candidate? {
      tiling.map { Candidate(tiling: $0, speed: speed, unpackingSpeed: unpackingSpeed, share: share) }
    }
    if units.inputs == .bytes {
      return [
        candidate(tiling(4, 2, rows: 32, tokens: 64, step: 128), 0.42, 0.34, share: 0.5),
        candidate(tiling(1, 4, rows: 80, tokens: 32, step: 64), 0.43, 0.32, share: 1),
        candidate(tiling(2, 2, rows: 64, tokens: 32, step: 64), 0.40, 0.31, share: 1),
        candidate(tiling(2, 2, rows: 32, tokens: 32, step: 64), 0.33, 0.26, share: 1),
        candidate(tiling(2, 2, rows: 32, tokens: 32, step: 32), 0.25, 0.20, share: 1),
      ].compactMap(\.self)
    }
    return [
      candidate(tiling(2, 2, rows: 64, tokens: 64, step: 32), 0.55, 0.48, share: 1),
      candidate(tiling(4, 2, rows: 48, tokens: 64, step: 64), 0.60, 0.43, share: 0.5),
      candidate(tiling(2, 4, rows: 64, tokens: 48, step: 64), 0.58, 0.47, share: 0.5),
      candidate(tiling(2, 4, rows: 80, tokens: 32, step: 64), 0.53, 0.36, share: 0.5),
      candidate(tiling(2, 4, rows: 64, tokens: 32, step: 64), 0.52, 0.43, share: 0.5),
      candidate(tiling(2, 2, rows: 32, tokens: 32, step: 64), 0.31, 0.24, share: 1),
      candidate(tiling(2, 2, rows: 32, tokens: 32, step: 32), 0.25, 0.20, share: 1),
    ].compactMap(\.self)
  }

  /// For few tokens, the time to read weights does: long runs of a row at a time, and the device full of workgroups.
  private func small(tokenCount: Int) -> MatrixTiling? {
    if tokenCount <= 16 {
      return tiling(4, 1, rows: 16, tokens: 16, step: 128) ?? tiling(4, 1, rows: 16, tokens: 16, step: 64)
    }
    if tokenCount <= 32 {
      return tiling(4, 1, rows: 32, tokens: 32, step: 128) ?? tiling(4, 1, rows: 16, tokens: 32, step: 64)
    }
    guard tokenCount <= 64 else { return nil }
    return tiling(7, 1, rows: 16, tokens: 64, step: 128) ?? tiling(2, 2, rows: 32, tokens: 32, step: 64)
  }

  /// A CPU's registers hold few fragments, and compiling many costs seconds.
  private func onCPU(tokenCount: Int) -> MatrixTiling {
    MatrixTiling(
      rowSubgroups: 1, tokenSubgroups: 1, rowFragments: max(1, 16 / units.m),
      tokenFragments: min(max(1, 16 / units.n), max(1, (tokenCount + units.n - 1) / units.n)), step: 32)
  }

  func tiling(rows: Int, columns: Int, tokenCount: Int) -> MatrixTiling {
    if traits.isCPU { return onCPU(tokenCount: tokenCount) }
    // Workgroups of 4 subgroups that the device has at work: as many as hide the latency of its memory.
    let slots = max(1, traits.wantedSubgroups / 16)
    func tiles(_ tiling: MatrixTiling) -> Int {
      let (tileRows, tileTokens) = (tiling.tileRows(units), tiling.tileTokens(units))
      return ((rows + tileRows - 1) / tileRows) * ((tokenCount + tileTokens - 1) / tileTokens)
    }
    if var tiling = small(tokenCount: tokenCount) {
      let resident = tiling.sharedBytes(units) > traits.sharedMemory / 2 ? slots / 2 : slots
      let mostSplits = max(1, columns / (4 * tiling.step))
      tiling.split = min(max(1, resident / tiles(tiling)), mostSplits, 8)
      return tiling
    }
    var best: (tiling: MatrixTiling, time: Double)?
    for candidate in large {
      let speed = candidate.speed + unpacking * (candidate.unpackingSpeed - candidate.speed)
      let workgroups = Double(slots) * candidate.share
      for split in 1...4 where split == 1 || columns >= 8 * split * candidate.tiling.step {
        var tiling = candidate.tiling
        tiling.split = split
        // Of few rounds the last one counts in full.
        let rounds = Double(tiles(tiling) * split) / workgroups
        let counted = rounds < 4 ? rounds.rounded(.up) : rounds + 0.3
        let area = Double(tiling.tileRows(units) * tiling.tileTokens(units))
        var time = counted * workgroups * area / speed / Double(split)
        // Sums that go through memory cost as much as some 1500 inputs each.
        if split > 1 { time += Double(split * rows * tokenCount) * 1500 / Double(columns) }
        if best.map({ time < $0.time }) ?? true { best = (tiling, time) }
      }
    }
    var tiling =
      best?.tiling
      ?? MatrixTiling(rowSubgroups: 1, tokenSubgroups: 1, rowFragments: 1, tokenFragments: 1, step: 32)
    let tokenTiles = (tokenCount + tiling.tileTokens(units) - 1) / tiling.tileTokens(units)
    tiling.band = min(8, tokenTiles)
    return tiling
  }
}
