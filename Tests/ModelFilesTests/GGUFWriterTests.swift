import Foundation
import ModelFiles
import Testing

@Suite struct GGUFWriterTests {
  @Test func whatIsWrittenIsReadBack() throws {
    let original = try GGUFFile(path: fixture("metadata.gguf"))
    try withTemporaryFolder { folder in
      var writer = GGUFWriter()
      for key in original.metadataKeys { writer.set(key, try #require(original.metadata[key])) }
      writer.set("general.architecture", .string("replaced"))
      writer.set("general.alignment", .uint32(256))
      // Sizes that leave padding between the tensors.
      let tensors = [
        try #require(TensorInfo(name: "a", shape: [3], type: .f32)),
        try #require(TensorInfo(name: "b", shape: [32, 3], type: .q4_0)),
        try #require(TensorInfo(name: "c", shape: [256, 2, 2], type: .q6_k)),
      ]
      for tensor in tensors { writer.add(tensor) }
      let path = "\(folder)/written.gguf"
      try writer.write(to: path) { tensor, emit in
        // In pieces of odd sizes.
        for start in stride(from: 0, to: tensor.byteCount, by: 7) {
          try (start..<min(start + 7, tensor.byteCount)).map { UInt8(truncatingIfNeeded: $0) }
            .withUnsafeBytes { try emit($0) }
        }
      }
      let file = try GGUFFile(path: path)
      #expect(file.metadataKeys == original.metadataKeys + ["general.alignment"])
      for key in original.metadataKeys.dropFirst() { #expect(file.metadata[key] == original.metadata[key]) }
      #expect(file.metadata["general.architecture"] == .string("replaced"))
      #expect(file.tensors.map(\.name) == ["a", "b", "c"])
      for (tensor, written) in zip(tensors, file.tensors) {
        #expect((tensor.shape, tensor.type) == (written.shape, written.type))
        #expect(written.offset % 256 == 0)
        #expect(
          Array(file.bytes(of: written)) == (0..<tensor.byteCount).map { UInt8(truncatingIfNeeded: $0) })
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["written.gguf"])
    }
  }

  /// The reference package's files, taken apart and written again, are the same to the byte.
  @Test(arguments: [
    "metadata", "weights-floats", "weights-blocks32", "weights-blocks256", "weights-nonlinear",
  ])
  func writesWhatTheReferenceWrites(name: String) throws {
    let path = fixture("\(name).gguf")
    let original = try GGUFFile(path: path)
    try withTemporaryFolder { folder in
      var writer = GGUFWriter()
      for key in original.metadataKeys { writer.set(key, try #require(original.metadata[key])) }
      for tensor in original.tensors { writer.add(tensor) }
      try writer.write(to: "\(folder)/copy.gguf", from: original)
      #expect(FileManager.default.contentsEqual(atPath: path, andPath: "\(folder)/copy.gguf"))
    }
  }

  @Test func aFullDiskIsOneLineAndLeavesNothing() throws {
    try withTemporaryFolder { folder in
      let path = "\(folder)/model.gguf"
      try FileManager.default.createSymbolicLink(
        atPath: "\(path).partial\(getpid())", withDestinationPath: "/dev/full")
      let error = #expect(throws: ModelFileError.self) { try GGUFWriter().write(to: path) { _, _ in } }
      #expect(error?.description == "\(path): cannot be written: no space left on the disk")
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
    }
  }

  @Test func whatIsNoFileStaysWhatItIs() throws {
    try withTemporaryFolder { folder in
      let (pipe, link, behind) = ("\(folder)/pipe", "\(folder)/link", "\(folder)/behind")
      #expect(mkfifo(pipe, 0o600) == 0)
      for path in [pipe, folder] {
        let error = #expect(throws: ModelFileError.self) { try GGUFWriter().write(to: path) { _, _ in } }
        #expect(error?.description.hasPrefix("\(path): is a folder, a device or a pipe") == true)
      }
      try Data().write(to: URL(filePath: behind))
      try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: behind)
      try GGUFWriter().write(to: link) { _, _ in }
      #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == behind)
      #expect(try !Data(contentsOf: URL(filePath: behind)).isEmpty)
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).count == 3)
    }
  }

  @Test func aFailureKeepsTheOldFile() throws {
    struct Interruption: Error {}
    try withTemporaryFolder { folder in
      let path = "\(folder)/model.gguf"
      try GGUFWriter().write(to: path) { _, _ in }
      let old = try Data(contentsOf: URL(filePath: path))
      var writer = GGUFWriter()
      writer.add(try #require(TensorInfo(name: "a", shape: [8], type: .f32)))
      #expect(throws: Interruption.self) { try writer.write(to: path) { _, _ in throw Interruption() } }
      let error = #expect(throws: ModelFileError.self) { try writer.write(to: path) { _, _ in } }
      #expect(error?.reason == "tensor 'a' has 32 bytes, and 0 were given")
      #expect(try Data(contentsOf: URL(filePath: path)) == old)
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["model.gguf"])
    }
  }

  @Test func aSourceWithoutTheTensorIsRefused() throws {
    let source = RandomTensorSource(
      tensors: [try #require(TensorInfo(name: "a", shape: [8], type: .f32))], seed: 1)
    try withTemporaryFolder { folder in
      for wanted in [("a", [16]), ("b", [8])] {
        var writer = GGUFWriter()
        writer.add(try #require(TensorInfo(name: wanted.0, shape: wanted.1, type: .f32)))
        let error = #expect(throws: ModelFileError.self) {
          try writer.write(to: "\(folder)/a.gguf", from: source)
        }
        #expect(error?.reason == "there are no weights for tensor '\(wanted.0)'")
      }
    }
  }

  @Test func aFolderThatIsNotThere() {
    let error = #expect(throws: ModelFileError.self) {
      try GGUFWriter().write(to: "/nowhere/a.gguf") { _, _ in }
    }
    #expect(error?.description == "/nowhere/a.gguf: cannot be written: no such file; check the path")
  }
}
