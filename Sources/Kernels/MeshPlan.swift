import CShaderInterface
import Transformer
import VulkanRuntime

/// Collectives: what passes between devices lies in memory that all of them see, in the home of those that read it.
extension PlanRecorder {
  /// - Parameters:
  ///   - reduceCount: all-reduces of the step so far.
  ///   - next: how the product that follows wants its inputs.
  /// - Returns: parts in which the sum of squares of each row is left.
  @discardableResult func recordCollective(
    _ stage: CollectiveStage, postNorm: UInt64, index: Int, _ step: StepRecording, shape: PlanShape,
    slot: StepSlot,
    reduceCount: inout Int, next: ProductForm
  ) throws -> Int {
    guard let port else { throw KernelError.unsupported("a collective was recorded for one device alone") }
    let layout = port.layout
    let share = model.program.share
    switch stage {
    case .allReduce(let norm, let addsResidual):
      let region = layout.region(ofReduce: reduceCount, rows: shape.rows)
      reduceCount += 1
      var push = combinePush(index: index, slot: slot)
      push.parts = port.address(
        layout.parts(home: port.home, stage: share.stage, region, rank: 0), home: port.home)
      push.rank_stride = UInt32(region.rankBytes / 4)
      push.own = workspace.address(.scratch)
      push.own_stride = UInt32(workspace.scratchStride)
      if let norm {
        push.post_norm = postNorm
        push.epsilon = norm.epsilon
      }
      var kernel = CombineKernel(
        addsResidual: addsResidual, hasPostNorm: norm != nil, next: next, rankCount: layout.mesh.tensor)
      let slices = kernel.slices(width: model.program.width)
      let ranks = share.mesh.ranks(ofStage: share.stage)
      let isInPlace =
        Self.partInPlace(at: index - 1, of: model, port: port, limits: workspace.limits) != nil
      func combine() throws {
        try kernel.record(
          step.commands, push: push, rank: isInPlace ? nil : share.rank, rowCount: shape.rows, cache: cache)
      }
      try step.during(.exchange) {
        for home in layout.homes.homes(of: ranks) where !isInPlace {
          let place = layout.parts(home: home, stage: share.stage, region, rank: share.rank)
          try copyRows(
            from: workspace.address(.scratch), stride: workspace.scratchStride,
            to: port.address(place, home: home), stride: layout.rowStride, count: layout.rowStride, step,
            shape: shape, slot: slot)
        }
        let count = try beginMeeting(step, port: port, usesAgain: region.isUsedAgain)
        guard let signals = port.signals else { return try step.exchange() }
        if CombineKernel.mayMeet(shape.rows * slices, traits: traits), signals.canMeet(ranks) {
          kernel.meeting = signals.kernel
          push.meeting = signals.meeting(step.commands, slot: slot.index)
          push.reached = count
          if !isInPlace { signals.recordEndOfWrites(step.commands) }
          try combine()
        } else {
          try signals.record(
            step.commands, slot: slot.index, reached: count, told: ranks, devices: ranks, wanted: count,
            cache: cache)
        }
      }
      if kernel.meeting == nil { try combine() }
      return slices

    case .send:
      guard share.rank == 0 else { return 0 }
      try step.during(.exchange) {
        for home in layout.homes.homes(of: share.mesh.ranks(ofStage: share.stage + 1)) {
          let place = layout.link(home: home, into: share.stage + 1, slot: slot.index)
          try copyRows(
            from: workspace.address(.residual), stride: workspace.residualStride,
            to: port.address(place, home: home), stride: layout.rowStride, count: layout.rowStride, step,
            shape: shape, slot: slot)
        }
        step.commands.barrierToHost()
      }
      return 0

    case .receive:
      if let signals = port.signals {
        let source = (share.stage - 1) * share.mesh.tensor
        try step.during(.idle) {
          try signals.record(
            step.commands, slot: slot.index, reached: nil, devices: source..<source + 1,
            wanted: MeshSignals.end, cache: cache)
        }
      } else {
        step.wait(for: .previousStage)
      }
      var push = combinePush(index: index, slot: slot)
      push.parts = port.address(
        layout.link(home: port.home, into: share.stage, slot: slot.index), home: port.home)
      let kernel = CombineKernel(addsResidual: false, hasPostNorm: false, next: next, rankCount: 1)
      try kernel.record(step.commands, push: push, rowCount: shape.rows, cache: cache)
      return kernel.slices(width: model.program.width)

    case .gatherLogits:
      try step.during(.exchange) { try gatherLogits(step, port: port, shape: shape, slot: slot) }
      return 0
    }
  }

  private func gatherLogits(_ step: StepRecording, port: MeshPort, shape: PlanShape, slot: StepSlot) throws {
    let (layout, share) = (port.layout, model.program.share)
    guard share.rank == 0 else {
      try copyLogits(
        from: workspace.address(.logits), stride: workspace.logitsStride,
        to: port.address(layout.logits(rank: share.rank), home: layout.homes.of[share.mesh.sampler]),
        stride: layout.logitsStride, rank: share.rank,
        step,
        shape: shape, slot: slot)
      return step.commands.barrierToHost()
    }
    if let signals = port.signals {
      // The others have nothing left to do in this step.
      try signals.record(
        step.commands, slot: slot.index, reached: nil, devices: share.mesh.ranks(ofStage: share.stage),
        wanted: MeshSignals.end,
        cache: cache)
    } else {
      try step.exchange()
    }
    for rank in 1..<layout.mesh.tensor {
      try copyLogits(
        from: port.address(layout.logits(rank: rank), home: port.home), stride: layout.logitsStride,
        to: workspace.address(.logits) + UInt64(4 * layout.vocabularies[rank].lowerBound),
        stride: workspace.logitsStride, rank: rank, step, shape: shape, slot: slot)
    }
  }

  /// The count of the next meeting with the other ranks of the stage.
  ///
  /// - Parameter usesAgain: whether they leave their parts where the step has read before.
  private func beginMeeting(_ step: StepRecording, port: MeshPort, usesAgain: Bool) throws -> UInt32 {
    guard port.signals != nil else { return 0 }
    let meeting = step.nextMeeting()
    if port.layout.homes.readsLast, usesAgain || meeting % MeshSignals.meetingsPerSubmission == 0 {
      try step.split()
    }
    return UInt32(meeting)
  }

  /// Where the stage at `index` leaves its part of a sum for the other ranks to find: address, and floats from row to
  /// row; nil where that is the scratch, from where it is copied. Memory that ranks share is no farther away where it
  /// and they are of one GPU.
  static func partInPlace(
    at index: Int, of model: DeviceModel, port: MeshPort?, limits: StepLimits
  ) -> (address: UInt64, stride: Int)? {
    guard let port, port.layout.homes.areOneDevice, index + 1 < model.stages.count,
      case .residualProjection = model.stages[index],
      case .collective(.allReduce, _) = model.stages[index + 1]
    else { return nil }
    let share = model.program.share
    let reduce = model.stages[...index].count {
      if case .collective(.allReduce, _) = $0 { true } else { false }
    }
    let region = port.layout.region(ofReduce: reduce, rows: limits.rows)
    let place = port.layout.parts(home: port.home, stage: share.stage, region, rank: share.rank)
    return (port.address(place, home: port.home), port.layout.rowStride)
  }

  /// After tokens are drawn: in homes of the first stage beside the own one they are left, too.
  func recordTokens(_ commands: CommandBuffer) throws {
    guard let port else { return }
    let layout = port.layout
    let homes = layout.homes.homes(of: layout.mesh.ranks(ofStage: 0)).filter { $0 != port.home }
    for home in homes {
      // This device alone draws tokens: of all sequences its memory has the newest.
      var push = SumPush()
      push.own = port.tokens(home: port.home)
      push.parts = push.own
      push.sum = port.tokens(home: home)
      push.copy = push.sum
      push.quads = UInt32(layout.tokenQuads)
      push.count = 1
      try SumKernel().record(commands, push: push, cache: cache)
    }
    if !homes.isEmpty { commands.dispatchBarrier() }
  }

  /// Before the embedding look-up: tokens that the step takes from the device must have been drawn.
  func recordWaitForTokens(_ step: StepRecording, slot: StepSlot) throws {
    guard let port, let signals = port.signals else { return }
    let share = model.program.share
    guard share.isFirstStage, !share.samples else { return }
    let sampler = share.mesh.sampler
    try step.during(.idle) {
      try signals.record(
        step.commands, slot: slot.index, reached: nil, devices: sampler..<sampler + 1, wanted: nil,
        cache: cache)
    }
  }

  /// At the end of a step: whoever waits for all of it may go on.
  func recordEndOfStep(_ step: StepRecording, slot: StepSlot) throws {
    // Whether a stage gave up is for the host to see on all devices, not only where results are.
    if port != nil, chainsStages { step.commands.barrierToHost() }
    guard let signals = port?.signals else { return }
    try signals.record(
      step.commands, slot: slot.index, reached: MeshSignals.end,
      told: 0..<model.program.share.mesh.deviceCount, devices: 0..<0, wanted: MeshSignals.end, cache: cache)
  }

  func combinePush(index: Int, slot: StepSlot) -> CombinePush {
    var push = CombinePush()
    push.next = Self.nextInputs(model.stages, after: index, workspace: workspace)
    push.residual = workspace.address(.residual)
    push.step = slot.stepAddress
    push.width = UInt32(model.program.width)
    push.residual_stride = UInt32(workspace.residualStride)
    push.part_stride = UInt32(port?.layout.rowStride ?? 0)
    return push
  }

  /// Strides and count in floats, multiples of 4.
  private func copyRows(
    from source: UInt64, stride sourceStride: Int, to destination: UInt64, stride destinationStride: Int,
    count: Int,
    takesOutputs: Bool = false, _ step: StepRecording, shape: PlanShape, slot: StepSlot
  ) throws {
    var push = RowsPush()
    push.source = source
    push.destination = destination
    push.step = slot.stepAddress
    push.quads = UInt32(count / 4)
    push.source_stride = UInt32(sourceStride / 4)
    push.destination_stride = UInt32(destinationStride / 4)
    try RowsKernel(takesOutputs: takesOutputs).record(
      step.commands, push: push, rowCount: takesOutputs ? shape.outputs : shape.rows, cache: cache)
  }

  private func copyLogits(
    from source: UInt64, stride sourceStride: Int, to destination: UInt64, stride destinationStride: Int,
    rank: Int,
    _ step: StepRecording, shape: PlanShape, slot: StepSlot
  ) throws {
    try copyRows(
      from: source, stride: sourceStride, to: destination, stride: destinationStride,
      count: ((port?.layout.vocabularies[rank].count ?? 0) + 3) / 4 * 4, takesOutputs: true, step,
      shape: shape,
      slot: slot)
  }
}
