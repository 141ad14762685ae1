import Synchronization
import Transformer
import VulkanRuntime

/// When a device was lost; nil until it is.
package final class LossMoment: Sendable {
  let time = Mutex<ContinuousClock.Instant?>(nil)
  package var instant: ContinuousClock.Instant? { time.withLock(\.self) }
}

/// What an engine does about devices that fail.
extension Engine {
  /// Devices that were lost or hang, by their places in the mesh that the engine was made with. Waits for the step under
  /// way, and finds out whether devices that failed still work.
  public var lostDevices: [Int] {
    withBatch { batch in
      if let lost = try? batch.recover() { note(lost, of: batch) }
      return current.withLock { $0.lost.sorted() }
    }
  }

  /// The same as far as it is known, without waiting.
  package var knownLostDevices: [Int] { current.withLock { $0.lost.sorted() } }

  /// Which devices were lost and what the model runs on since, in a line; nil where none was.
  public var lossText: String? { current.withLock(\.lossText) }

  /// Makes devices that failed work again; where some never will, loads the model onto those that are left.
  ///
  /// - Throws: one line when no device can go on.
  func repair(_ batch: Batch) throws {
    let lost = try batch.recover()
    guard !lost.isEmpty else { return }
    note(lost, of: batch)
    guard options.rebuilds else {
      throw EngineError(
        .device,
        "\(lossText ?? ""): make a new engine on the devices that are left (Engine.lostDevices says which are not)"
      )
    }
    try rebuild(batch)
  }

  /// Lets a device of a mesh be lost in the middle of a step to come, for tests and measurements: its part is refused as
  /// by a driver whose device is gone, when those before it have theirs, and wait for it.
  ///
  /// - Parameter step: which of the steps to come, from 1 on.
  /// - Returns: when that was, once it has been.
  @discardableResult
  package func loseDevice(_ device: Int, atStep step: Int) throws -> LossMoment {
    try withWorkingBatch { batch in
      guard let runner = try batch.runner as? MeshRunner, runner.runners.indices.contains(device) else {
        throw EngineError(.option, "device \(device) is not one of a mesh's")
      }
      let moment = LossMoment()
      let name = runner.runners[device].device.physical.name
      var count = 0
      runner.beforeSubmission = { submitted in
        guard submitted == device else { return [] }
        count += 1
        guard count == step else { return [] }
        moment.time.withLock { $0 = .now }
        throw VulkanError(kind: .deviceLost, description: "device \(device) (\(name)) is gone")
      }
      return moment
    }
  }

  private func note(_ lost: Set<Int>, of batch: Batch) {
    guard !lost.isEmpty, let deployment = batch.deployment else { return }
    let (seats, devices) = (deployment.seats, deployment.placement.devices)
    let names = lost.sorted().map { "device \(seats[$0]) (\(devices[$0].name))" }
    current.withLock { current in
      current.lost.formUnion(lost.map { seats[$0] })
      current.lossText = "\(names.joined(separator: " and ")) \(lost.count == 1 ? "is" : "are") lost"
    }
  }

  /// What is known of a deployment that is gone.
  private struct Remains {
    var placement: MeshPlacement
    var seats: [Int]
    /// Devices of it that still work.
    var left: [Int]
    /// Those whose memory is not free again, since they may still use it.
    var hung: Set<Int>
    var streamed: Bool
  }

  /// Loads the model onto the devices that are left: as the mesh that is most like what it was, of those that have room
  /// for all weights, if it had that before; else of any that work.
  private func rebuild(_ batch: Batch) throws {
    let text = lossText ?? ""
    // Its memory is free before the next one asks for it.
    current.withLock { current in
      current.devices = []
      current.weightStreams = []
    }
    guard let remains = self.remains(of: batch) else { return }
    batch.release(EngineError(.device, "\(text), and nothing else runs the model"))
    let placement = remains.placement
    let left = remains.left.filter { opens(placement.devices[$0]) }
    let program = try model.program(cacheType: options.cacheType)
    var failure: (any Error)?
    for mayStream in remains.streamed ? [true] : [false, true] {
      for mesh in placement.mesh.successors(devices: left.count) {
        do {
          var options = options
          options.tensorParallel = mesh.tensor
          options.pipelineParallel = mesh.pipeline
          if mesh.pipeline != placement.mesh.pipeline { options.stageLayers = [] }
          // Those with most memory, in their order.
          let chosen = left.sorted {
            (placement.availableMemory($1), $0) < (placement.availableMemory($0), $1)
          }.prefix(mesh.deviceCount).sorted()
          let smaller = try placement.reduced(
            to: mesh, of: chosen, hung: remains.hung, options: options, program: program)
          let deployment = try Deployment(
            model: model, options: options, placement: smaller, seats: chosen.map { remains.seats[$0] },
            instance: instance, mayStream: mayStream, onProgress: { _ in })
          batch.install(deployment)
          current.withLock { current in
            let lost = current.lost
            current = Current(deployment)
            current.lost = lost
            current.lossText =
              "\(text): the model runs on \(deployment.facts.deviceName) now "
              + "(tensor-parallel \(mesh.tensor), pipeline-parallel \(mesh.pipeline)), with a context of "
              + "\(deployment.facts.contextLength) tokens"
          }
          return
        } catch {
          failure = failure ?? error
        }
      }
    }
    let error = EngineError(
      .device,
      failure.map { "\(text), and the model does not run on the \(left.count) that are left: \($0)" }
        ?? "\(text), and none is left")
    batch.release(error)
    current.withLock { $0.lossText = error.description }
    throw error
  }

  private func remains(of batch: Batch) -> Remains? {
    guard let deployment = batch.deployment else { return nil }
    let hung = (deployment.runner as? MeshRunner)?.hung ?? []
    return Remains(
      placement: deployment.placement, seats: deployment.seats,
      left: deployment.devices.indices.filter { !batch.lost.contains($0) }, hung: hung,
      streamed: deployment.facts.streamedBytes > 0)
  }

  /// Whether the driver still lets a device be opened.
  private func opens(_ device: PhysicalDevice) -> Bool {
    (try? Device(instance: instance, physical: device, pipelineCacheDirectory: nil)) != nil
  }
}

extension MeshShape {
  /// Meshes of at most so many devices, those first that are most like this one, then those that use most devices.
  func successors(devices: Int) -> [MeshShape] {
    guard devices > 0 else { return [] }
    func difference(_ mesh: MeshShape) -> Int {
      abs(mesh.tensor - tensor) + abs(mesh.pipeline - pipeline)
    }
    return (1...devices).flatMap { tensor in
      (1...devices / tensor).map { MeshShape(tensor: tensor, pipeline: $0) }
    }.sorted {
      (difference($0), $1.deviceCount, $1.tensor) < (difference($1), $0.deviceCount, $0.tensor)
    }
  }
}
