import Kernels
import Testing
import Transformer

/// What kernels leave for one another has room, in steps of every size that the limits allow.
@Suite(.enabled(if: TestDevice.absence == nil, "needs a Vulkan device"))
struct WorkspaceTests {
  /// Splits of attention leave partial results, of pieces of prompts more than of single tokens.
  @Test(arguments: [(32, 8), (32, 32), (9, 3), (28, 4), (64, 8), (8, 1), (33, 11)], [1, 2, 4, 6, 15, 40])
  func partialResultsOfAttentionHaveRoom(_ heads: (count: Int, kv: Int), _ rows: Int) throws {
    let device = try TestDevice.open()
    // As a large GPU is, whatever runs the test: CPU drivers do not split.
    var traits = KernelCache(device: device).traits
    (traits.isCPU, traits.canShuffle) = (false, true)
    (traits.subgroupSize, traits.wantedSubgroups) = (32, 4096)
    (traits.maxWorkgroupInvocations, traits.sharedMemory) = (1024, 48 << 10)
    traits.matrixUnits = nil
    let layout = HeadLayout(headCount: heads.count, kvHeadCount: heads.kv, headSize: 64)
    let program = Program(
      width: 64 * heads.count, layerCount: 1, heads: layout, feedForwardWidth: 512, vocabularySize: 64,
      stages: [])
    let workspace = try Workspace(
      device: device, program: program,
      limits: StepLimits(rows: rows, outputs: 1, sequences: 1, pagesPerSequence: 1), traits: traits)
    for rowCount in 1...rows {
      for tileRows in [1, 2, 4, 8] {
        let kernel = AttentionKernel(heads: layout, tileRows: tileRows, rowCount: rowCount, traits: traits)
        #expect(kernel.partialCount(rowCount: rowCount) <= workspace.partialCount)
        let tiles = (rowCount + kernel.tileRows - 1) / kernel.tileRows
        #expect(kernel.counterCount(tileCount: tiles) <= workspace.counterCount)
      }
      for isDeep in [false, true] {
        let kernel = AttentionDecodeKernel(
          heads: layout, tokenCount: rowCount, isDeep: isDeep, next: .floats, anyDevice: traits)
        #expect(kernel.partialCount(tokenCount: rowCount) <= workspace.partialCount)
        #expect(kernel.headGroups * rowCount <= workspace.counterCount)
      }
    }
  }
}
