import CVKInfer
import Foundation
import Testing
import VulkanRuntime

@testable import Engine
@testable import VKInferC

/// Devices that are lost under a C program: faults come from inside, all else goes through the functions of vkinfer.h.
@Suite(.enabled(if: Library.cpuDriver != nil, "needs a CPU Vulkan driver"), .serialized)
struct LostDeviceTests {
  /// Lets a device of a mesh be lost before a step to come, of one of the engines behind a handle.
  static func lose(_ device: Int, of handle: OpaquePointer?, engine: Int = 0, step: Int) throws {
    try find(handle, EngineObject.self).inspect { $0.engines[engine] }.loseDevice(device, atStep: step)
  }

  /// Two texts run and two wait when a device is lost: the first two fail with one error each, the others go on with the
  /// device that is left, and so do all from then on.
  @Test func sessionsGoOnWithTheDevicesThatAreLeft() throws {
    let log = LogLines()
    let alone = try Library()
    let expected = try (0..<4).map { index in
      let session = try alone.session(index)
      #expect(try alone.run(session) == VKINFER_OK)
      return try alone.tokens(session)
    }
    let library = try Library(log: log) { options in
      options.tensor_parallel = 2
      options.parallel = 2
    }
    #expect(try library.info().device_count == 2)
    let sessions = try (0..<4).map { try library.session($0) }
    try Self.lose(1, of: library.engine, step: 3)
    for session in sessions { #expect(vkinfer_session_start(session, &library.generation) == VKINFER_OK) }
    for (index, session) in sessions.enumerated() {
      let ends = try library.read(session)
      let result = try library.result(session)
      guard index < 2 else {
        #expect(ends.errors.isEmpty && result.finish == VKINFER_FINISH_LENGTH, "session \(index)")
        #expect(try library.tokens(session) == expected[index])
        continue
      }
      #expect(ends.errors.map(\.status) == [VKINFER_ERROR_DEVICE], "session \(index)")
      #expect(ends.errors[0].text.contains("device 1") && !ends.errors[0].text.contains("\n"))
      #expect(result.finish == VKINFER_FINISH_FAILED)
      // Its text is what it was, and can be continued.
      #expect(try library.tokens(session) == Library.prompt(index))
      #expect(try library.run(session) == VKINFER_OK)
      #expect(try library.tokens(session) == expected[index])
    }
    let info = try library.info()
    #expect(info.lost_count == 1 && info.device_count == 1 && info.memory_bytes > 0)
    #expect(
      log.lines.contains { $0.contains("device 1") && $0.contains("the model runs on") }, "\(log.lines)")
  }

  /// The engine says that it is done with; sessions keep their texts, and all can be closed.
  @Test func anEngineThatMayNotRebuildFails() throws {
    let library = try Library { options in
      options.pipeline_parallel = 2
      options.no_rebuild = 1
    }
    let session = try library.session(0)
    #expect(try library.run(session) == VKINFER_OK)
    let text = try library.tokens(session)
    try Self.lose(0, of: library.engine, step: 2)
    #expect(try library.run(session) == VKINFER_ERROR_DEVICE)
    #expect(try library.run(session) == VKINFER_ERROR_DEVICE)
    #expect(String(cString: vkinfer_last_error()).contains("lost"))
    var count = 0
    var logits = [Float](repeating: 0, count: 4096)
    #expect(vkinfer_session_logits(session, &logits, logits.count, &count) == VKINFER_ERROR_DEVICE)
    #expect(vkinfer_session_save(session, "/tmp/never-written") == VKINFER_ERROR_DEVICE)
    #expect(try library.info().lost_count == 1)
    #expect(try library.tokens(session) == text)
    #expect(vkinfer_session_close(session) == VKINFER_OK)
  }

  /// Of two copies of the model one loses a device: what waits goes to the other, and both take part again.
  @Test func aCopyComesBack() throws {
    let alone = try Library()
    let library = try Library { options in
      options.tensor_parallel = 2
      options.data_parallel = 2
      options.parallel = 2
    }
    let before = try library.info()
    #expect(before.engine_count == 2 && before.device_count == 4 && before.parallel == 2)
    let sessions = try (0..<6).map { try library.session($0) }
    try Self.lose(1, of: library.engine, engine: 1, step: 3)
    for session in sessions { #expect(vkinfer_session_start(session, &library.generation) == VKINFER_OK) }
    let failed = try sessions.indices.filter { try !library.read(sessions[$0]).errors.isEmpty }
    #expect(failed.count == 1)
    for (index, session) in sessions.enumerated() {
      let again = try alone.session(index)
      #expect(try alone.run(again) == VKINFER_OK)
      if failed.contains(index) { #expect(try library.run(session) == VKINFER_OK) }
      #expect(try library.tokens(session) == alone.tokens(again), "session \(index)")
    }
    let start = ContinuousClock.now
    while try library.info().device_count != 3, ContinuousClock.now - start < .seconds(60) { usleep(10_000) }
    let info = try library.info()
    #expect(info.lost_count == 1 && info.device_count == 3)
  }
}

/// Lines of a log, from any thread.
final class LogLines: Sendable {
  private let kept = Guarded<[String]>([])

  func add(_ line: String) { kept.withLock { $0.append(line) } }
  var lines: [String] { kept.withLock { $0 } }
}
