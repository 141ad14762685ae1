import CShaderInterface
import VulkanRuntime

/// Tries whether a device runs chained stages as `StageChain` needs: workgroups of a dispatch all start before any of
/// the next one does, so that those that wait never keep out those that they wait for; and what a stage wrote is seen
/// by the next. Vulkan promises the second and not the first.
package struct ChainProbe {
  /// Stages of the trial.
  private static let stageCount = 48
  /// Invocations of a workgroup.
  private static let wantedInvocations = 256

  /// Runs a trial: many stages with several times the workgroups that a device holds at a time, some slow.
  ///
  /// - Returns: whether every stage saw the whole stage before it, and none gave up waiting.
  package static func succeeds(cache: KernelCache) throws -> Bool {
    let device = cache.device
    guard let chain = try StageChain(device: device, stageCount: stageCount) else {
      return false
    }
    let invocations = cache.traits.invocations(wantedInvocations)
    let groups = cache.traits.isCPU ? 256 : 8192
    let byteCount = 4 * groups * invocations
    let memory = try device.makeBuffer(byteCount: 2 * byteCount, memory: .device, label: "trial of a chain")
    let outcome = try device.makeBuffer(byteCount: byteCount, memory: .download, label: "trial of a chain")
    let state = try device.makeBuffer(byteCount: 16, memory: .mappedDevice, label: "state of a trial")
    guard let words = outcome.contents?.assumingMemoryBound(to: UInt32.self), let flags = state.contents
    else { return false }
    flags.storeBytes(of: SIMD4<UInt32>(repeating: 0), as: SIMD4<UInt32>.self)
    let pipeline = try cache.pipeline(
      "chain", specialization: [UInt32(invocations)], pushConstantBytes: MemoryLayout<ChainProbePush>.size,
      subgroupSize: cache.traits.subgroupSize)
    try device.run { commands in
      commands.keepAlive([state])
      chain.keepAlive(commands)
      commands.fill(memory, offset: 0, byteCount: memory.byteCount, value: 0)
      commands.barrier()
      for stage in 0..<stageCount {
        var push = ChainProbePush()
        push.chain = chain.address
        push.step = state.address
        push.inputs = memory.address + UInt64(stage % 2 * byteCount)
        push.outputs = memory.address + UInt64((stage + 1) % 2 * byteCount)
        push.shift = UInt32(groups * invocations / 2 + 7 * stage * invocations)
        chain.add((groups, 1, 1))
        commands.dispatch(pipeline, pushConstants: push, groups: (groups, 1, 1))
        chain.endStage()
      }
      commands.barrier()
      commands.copy(
        from: memory, offset: stageCount % 2 * byteCount, to: outcome, offset: 0, byteCount: byteCount)
      commands.barrierToHost()
    }
    guard flags.load(fromByteOffset: 12, as: UInt32.self) == 0 else { return false }
    return (0..<groups * invocations).allSatisfy { words[$0] == UInt32(stageCount) }
  }
}
