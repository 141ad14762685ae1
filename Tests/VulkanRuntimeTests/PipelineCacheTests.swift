import Dispatch
import Foundation
import Synchronization
import Testing
import VulkanRuntime

@Suite(.onDevice)
struct PipelineCacheTests {
  private func withDirectory(_ body: (String) throws -> Void) throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
      "vkinfer-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: directory) }
    // It does not exist yet, nor does its parent.
    try body(directory.appendingPathComponent("cache").path)
  }

  /// Opens a device on the cache, uses a kernel, and returns the cache's path.
  @discardableResult
  private func compile(in directory: String) throws -> String {
    let device = try TestDevice.open(pipelineCacheDirectory: directory)
    let buffer = try device.makeBuffer(byteCount: 256, memory: .download, label: "values")
    buffer.write([UInt32](repeating: 2, count: 64))
    let pipeline = try device.scalePipeline(factor: 5)
    try device.run { commands in
      commands.keepAlive([buffer])
      commands.dispatch(
        pipeline,
        pushConstants: ScaleConstants(
          source: buffer.address, destination: buffer.address, count: 64, addend: 0),
        groups: (1, 1, 1))
    }
    #expect(buffer.words(64) == [UInt32](repeating: 10, count: 64))
    try device.savePipelineCache()
    return try #require(device.pipelineCachePath)
  }

  @Test func isWrittenAndReadAgain() throws {
    try withDirectory { directory in
      let path = try compile(in: directory)
      let first = try Data(contentsOf: URL(fileURLWithPath: path))
      #expect(first.count > 24)
      try compile(in: directory)
      #expect(try Data(contentsOf: URL(fileURLWithPath: path)).count >= first.count)
      // No temporary file stays behind.
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory).count == 1)
    }
  }

  @Test func damagedAndForeignFilesAreIgnored() throws {
    try withDirectory { directory in
      let path = try compile(in: directory)
      let url = URL(fileURLWithPath: path)
      let good = try Data(contentsOf: url)
      var flipped = good
      flipped[good.count - 1] ^= 0x10
      var longer = good
      longer.append(0)
      let damaged = [
        Data(), good.prefix(5), good.prefix(24), good.prefix(good.count - 1), flipped, longer,
        Data(repeating: 0xff, count: 4096), Data("not a pipeline cache at all, but text".utf8),
      ]
      for file in damaged {
        try Data(file).write(to: url)
        try compile(in: directory)
        // Saving put a whole file in its place.
        #expect(try Data(contentsOf: url).count > 24)
      }
    }
  }

  /// As several processes do: whoever reads, at whatever moment, finds a whole file of one of them.
  @Test func writersAtTheSameTimeLeaveWholeFiles() throws {
    try withDirectory { directory in
      let path = try compile(in: directory)
      let failures = Mutex<[String]>([])
      DispatchQueue.concurrentPerform(iterations: 4) { index in
        do {
          let device = try TestDevice.open(pipelineCacheDirectory: directory)
          for turn in 0..<4 {
            _ = try device.scalePipeline(factor: UInt32(10 * index + turn))
            try device.savePipelineCache()
            // Nil where it is not whole.
            try device.keep([UInt8](repeating: UInt8(index), count: 1000 + 100 * index), as: "notes")
            let notes = device.keptBytes("notes")
            if notes?.count != 1000 + 100 * Int(notes?.first ?? 0) || Set(notes ?? []).count != 1 {
              failures.withLock { $0.append("notes of \(notes?.count ?? -1) bytes") }
            }
          }
        } catch {
          failures.withLock { $0.append("\(error)") }
        }
      }
      #expect(failures.withLock { $0 } == [])
      #expect(try Data(contentsOf: URL(fileURLWithPath: path)).prefix(8) == Data("VKINFPC1".utf8))
      // No temporary file stays behind.
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory).count == 2)
      try compile(in: directory)
    }
  }

  @Test func aFolderThatCannotBeMadeIsAnError() throws {
    try withDirectory { directory in
      let parent = URL(fileURLWithPath: directory).deletingLastPathComponent()
      try FileManager.default.createDirectory(at: parent, withIntermediateDirectories: true)
      // A file stands where the folder should be.
      try Data().write(to: URL(fileURLWithPath: directory))
      let device = try TestDevice.open(pipelineCacheDirectory: directory + "/deeper")
      do throws(VulkanError) {
        try device.savePipelineCache()
        Issue.record("it was saved")
      } catch {
        #expect(error.kind == .cacheFile)
      }
    }
  }
}
