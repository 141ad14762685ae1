import CShaderInterface
import Kernels
import ModelFiles
import VulkanRuntime

/// How fast memory is, to kernels and to copies.
package struct Bandwidth {
  let benchmark: BenchmarkDevice
  let repetitions: Int

  package init(benchmark: BenchmarkDevice, repetitions: Int) {
    self.benchmark = benchmark
    self.repetitions = repetitions
  }

  /// One way to cut a transfer.
  struct Variant: Sendable, Hashable {
    var threads: Int
    /// 16-byte loads of an invocation.
    var loads: Int

    var bytesPerGroup: Int { threads * loads * 16 }
  }

  /// Ways to cut a transfer, of which the fastest counts.
  var variants: [Variant] {
    let sizes =
      benchmark.traits.isCPU ? [(8, 16), (8, 64), (32, 16)] : [(256, 4), (256, 8), (256, 16), (512, 8)]
    return sizes.map { Variant(threads: benchmark.traits.invocations($0), loads: $1) }
  }

  /// Bytes a second that a kernel reads, out of memory larger than any cache: what others are compared to.
  package func read() throws -> Samples {
    let buffer = try randomBuffer(parts: 1)
    return try variants.map { try read($0, from: buffer) }.max { $0.median < $1.median }!
  }

  /// A buffer of random bits: zeros would be no fair load to a memory that compresses.
  ///
  /// - Parameter parts: how many buffers of this size are wanted at a time.
  func randomBuffer(parts: Int) throws -> Buffer {
    let limits = benchmark.device.capabilities
    let wanted = benchmark.traits.isCPU ? 256 << 20 : 2 << 30
    let largest = Int(clamping: min(limits.maxAllocationBytes, limits.maxBufferBytes))
    let room = benchmark.availableMemory / (2 * parts)
    let byteCount = max(min(wanted, largest, room) >> 24, 1) << 24
    let buffer = try benchmark.device.makeBuffer(
      byteCount: byteCount, memory: .device, label: "memory to be measured")
    try benchmark.fill(buffer.address, byteCount: byteCount, keepAlive: [buffer])
    return buffer
  }

  /// Bytes a second.
  func read(_ variant: Variant, from buffer: Buffer) throws -> Samples {
    try transfer("read", variant, from: buffer, to: buffer).map { Double(buffer.byteCount) / $0 }
  }

  /// Bytes a second, read and written ones together.
  func copy(_ variant: Variant, from source: Buffer, to destination: Buffer) throws -> Samples {
    try transfer("copy", variant, from: source, to: destination).map { 2 * Double(source.byteCount) / $0 }
  }

  private func transfer(
    _ shader: String, _ variant: Variant, from source: Buffer, to destination: Buffer
  ) throws -> Samples {
    let pipeline = try benchmark.cache.pipeline(
      shader, specialization: [UInt32(variant.threads), UInt32(variant.loads)],
      pushConstantBytes: MemoryLayout<TransferPush>.size, subgroupSize: benchmark.traits.subgroupSize)
    // One dispatch takes so many workgroups, and sizes are powers of two of 16 MiB: nothing is left over.
    let groups = source.byteCount / variant.bytesPerGroup
    let most = min(groups, 32768)
    return try benchmark.time(repetitions: repetitions, keepAlive: [source, destination]) { commands in
      for first in stride(from: 0, to: groups, by: most) {
        let offset = UInt64(first * variant.bytesPerGroup)
        commands.dispatch(
          pipeline,
          pushConstants: TransferPush(
            source: source.address + offset, destination: destination.address + offset),
          groups: (min(most, groups - first), 1, 1))
      }
    }.seconds
  }
}

extension BenchmarkDevice {
  /// Fills memory with random halves of mean 0 and about 1 in size: sane as weights, activations and cache.
  package func fill(
    _ address: UInt64, byteCount: Int, type: TensorType = .f16, keepAlive buffers: [Buffer]
  ) throws {
    let kernel = RandomKernel(recipe: .uniform(type, center: 0, width: 1.7, seed: 1))
    try run(keepAlive: buffers) { commands in
      try kernel.record(
        commands, destination: address, byteCount: byteCount, firstBlock: 0, cache: cache)
    }
  }
}
