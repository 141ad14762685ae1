import CShaderInterface
import Kernels

/// A step that was submitted.
package struct StepTicket: Sendable {
  /// The count of parts when it is done.
  var end: UInt64
  var slot: Int
  var outputs: Int
  /// Reads of weights that stream, up to its own, on each device.
  var reads: [UInt64] = []
}

/// Runs steps of a model, on one device or on many; does not decide what is in them. Steps run in the order in which
/// they are submitted.
package protocol StepRunner: AnyObject {
  var limits: StepLimits { get }
  /// Steps that may be in flight.
  var depth: Int { get }

  /// Queues a step; waits only if `depth` steps are in flight already.
  ///
  /// - Parameters:
  ///   - logitsOf: outputs whose logits are read back, penalties applied.
  ///   - statesOf: rows whose states after the last layer are read back.
  func submit(
    rows: [StepRow], outputs: [Int], samples: [SampleParameters], output: OutputKernel, logitsOf: [Int],
    statesOf: [Int]
  ) throws -> StepTicket

  /// The results of a step, once it is done: must be read before `depth` further steps are submitted.
  func results(_ ticket: StepTicket) throws -> [UInt32]

  /// The logits of the output that was entry `entry` of `logitsOf`, once the step is done and as long as its results.
  func logits(_ ticket: StepTicket, _ entry: Int) -> [Float]

  /// The state, `width` numbers of the residual stream, of the row that was entry `entry` of `statesOf`; as `logits`.
  func state(_ ticket: StepTicket, _ entry: Int) -> [Float]

  /// The logits of output `index` of the step that last ran.
  func readLogits(output index: Int) throws -> [Float]

  /// Queues copies of pages, after the steps submitted so far and before those to come.
  func copyPages(_ copies: [(from: UInt32, to: UInt32)]) throws

  /// Queues moves of pages to host memory and back, in their order, after the steps submitted so far and before those to
  /// come.
  func movePages(_ moves: [PageMove]) throws

  /// Bytes of a page of the KV cache: of each of the model's layers keys, then values, kv head by kv head. They mean the
  /// same on one device and on any mesh.
  var pageByteCount: Int { get }

  /// Reads pages, one behind the other, when all that is queued is done. Moves of pages to host memory must be queued.
  func readPages(_ pages: [PagePlace], into bytes: UnsafeMutableRawBufferPointer) throws

  /// Fills pages with bytes that `readPages` gave, when all that is queued is done.
  func writePages(_ pages: [UInt32], from bytes: UnsafeRawBufferPointer) throws

  /// Writes which pages a sequence holds; pages already in use by steps in flight must not change.
  func setPages(_ pages: [UInt32], sequence: Int, from first: Int) throws

  /// Sets how often a sequence holds each token (penalties): those of the prompt are marked, generated ones counted.
  func setTokenCounts(prompt: [Int32], generated: [Int32], sequence: Int) throws

  /// Measures the tilings of products in steps of single tokens of up to `sequences` sequences, where they are not
  /// known for the device. Nothing may be in flight; page 0 of the cache is overwritten.
  func tune(sequences: Int) throws

  /// Waits until nothing is in flight.
  func drain() throws

  /// Whether nothing runs before `recover`.
  var hasFailed: Bool { get }

  /// Makes ready to go on after an error.
  ///
  /// - Returns: devices that never will, and without which the others cannot.
  func recover() throws -> Set<Int>
}

extension StepRunner {
  func submit(
    rows: [StepRow], outputs: [Int], samples: [SampleParameters], output: OutputKernel
  ) throws -> StepTicket {
    try submit(rows: rows, outputs: outputs, samples: samples, output: output, logitsOf: [], statesOf: [])
  }
}

extension ModelRunner {
  /// Two steps queued, and one whose results are read.
  package static let usualDepth = 3
}
