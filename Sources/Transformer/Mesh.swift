/// How devices share a model: `pipeline` stages of consecutive layers, in each of which `tensor` devices split every
/// layer. Device `(stage, rank)` is number `stage * tensor + rank`.
package struct MeshShape: Sendable, Hashable {
  package var tensor: Int
  package var pipeline: Int

  package init(tensor: Int = 1, pipeline: Int = 1) {
    self.tensor = tensor
    self.pipeline = pipeline
  }

  package var deviceCount: Int { tensor * pipeline }
}

/// How the devices of a mesh wait for one another.
package enum MeshPath: String, Sendable, Hashable, CaseIterable {
  /// By counts in shared memory, which kernels look at: no host is between, and a step is one submission.
  case flags
  /// By timeline semaphores that logical devices of one physical device share.
  case semaphores
  /// By timeline semaphores of the devices' own, which host threads move.
  case threads
}

/// Where the devices of a mesh leave things for one another.
package enum MeshMemory: String, Sendable, Hashable, CaseIterable {
  /// In memory of the device that reads them, which the others have imported; siblings have it as it is.
  case device
  /// In host memory that all have imported.
  case host
}

/// What passes between the devices of a mesh, and how.
package struct MeshTransport: Sendable, Hashable {
  package var memory: MeshMemory
  package var path: MeshPath

  package init(memory: MeshMemory, path: MeshPath) {
    self.memory = memory
    self.path = path
  }

  package var text: String { "\(path.rawValue) in \(memory.rawValue) memory" }
}

/// How layers are divided among the stages of a pipeline.
package enum LayerSplit: Sendable, Hashable {
  /// So that the stage that reads most reads least, within so many bytes of weights for each stage as far as that goes.
  case within([Int])
  /// So many for each stage.
  case counts([Int])
}

/// Which part of a model a Program is.
package struct ModelShare: Sendable, Hashable {
  package var mesh: MeshShape
  package var stage: Int
  package var rank: Int
  /// The model's layers that it has.
  package var layers: Range<Int>
  /// The model's tokens whose logits it computes, and, in the first stage, whose embeddings it looks up.
  package var vocabulary: Range<Int>
  /// The model's kv heads whose keys and values it keeps: ranks that share one each have it.
  package var kvHeads: Range<Int>

  package init(
    mesh: MeshShape, stage: Int, rank: Int, layers: Range<Int>, vocabulary: Range<Int>, kvHeads: Range<Int>
  ) {
    self.mesh = mesh
    self.stage = stage
    self.rank = rank
    self.layers = layers
    self.vocabulary = vocabulary
    self.kvHeads = kvHeads
  }

  package var device: Int { stage * mesh.tensor + rank }
  package var isFirstStage: Bool { stage == 0 }
  package var isLastStage: Bool { stage == mesh.pipeline - 1 }
  /// Whether it gathers the logits and draws tokens.
  package var samples: Bool { isLastStage && rank == 0 }
}

/// What passes between the devices of a mesh, as a stage of each one's Program.
package enum CollectiveStage: Sendable, Hashable {
  /// `x = [x +] postNorm(sum over ranks of what each one's last stage left)`, the same bits on every rank.
  case allReduce(postNorm: Norm?, addsResidual: Bool)
  /// Leaves `x` for the next pipeline stage; rank 0 does.
  case send
  /// Takes `x` from the pipeline stage before.
  case receive
  /// Brings the logits of all ranks to rank 0.
  case gatherLogits
}

/// Why a model cannot be shared out, in one line.
package struct MeshError: Error, CustomStringConvertible, Sendable {
  package let description: String
  package init(_ description: String) { self.description = description }
}

extension MeshShape {
  /// `count` things in `parts` runs as equal as can be, the longer ones first.
  package static func split(_ count: Int, into parts: Int) -> [Range<Int>] {
    var start = 0
    return (0..<parts).map { part in
      let size = count / parts + (part < count % parts ? 1 : 0)
      defer { start += size }
      return start..<start + size
    }
  }
}
