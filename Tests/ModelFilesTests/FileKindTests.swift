import Foundation
import ModelFiles
import Testing

/// What cannot be opened at all: one line says why.
@Suite struct FileKindTests {
  private func refusal(_ bytes: [UInt8]) throws -> String {
    try withTemporaryFolder { folder in
      try Data(bytes).write(to: URL(filePath: "\(folder)/model.gguf"))
      let error = try #require(throws: ModelFileError.self) { try GGUFFile(path: "\(folder)/model.gguf") }
      #expect(error.description == "\(folder)/model.gguf: \(error.reason)")
      #expect(!error.reason.contains { $0.isNewline })
      return error.reason
    }
  }

  @Test func otherFormatsAreNamed() throws {
    let safetensors: [UInt8] = [0x40, 1, 0, 0, 0, 0, 0, 0] + Array(#"{"__metadata__":{}}"#.utf8)
    #expect(try refusal(safetensors).contains("safetensors"))
    #expect(
      try refusal(Array("PK\u{3}\u{4}........................".utf8)).contains("PyTorch file or another zip"))
    #expect(try refusal([0x80, 2, 0x8a, 0x0a]).contains("old PyTorch (pickle)"))
    #expect(try refusal(Array("tjgg\u{3}\0\0\0".utf8)).contains("GGML file from before GGUF"))
    #expect(try refusal(Array("lmgg\0\0\0\0".utf8)).contains("GGML file from before GGUF"))
    #expect(try refusal(Array("version https://git-lfs.github.com/spec/v1\n".utf8)).contains("git lfs pull"))
    #expect(try refusal(Array("<!DOCTYPE html>".utf8)).contains("web page"))
    #expect(try refusal([0x1f, 0x8b, 8, 0]).contains("compressed"))
    #expect(try refusal([1, 2, 0xab, 4]).contains("starts with the bytes 01 02 ab 04"))
    #expect(try refusal([7]).contains("starts with the bytes 07"))
  }

  @Test func otherVersionsAreNamed() throws {
    #expect(try refusal(GGUFBytes(version: 1).bytes).contains("version 1"))
    #expect(try refusal(GGUFBytes(version: 4).bytes).contains("version 4, and versions 2 and 3 are known"))
    #expect(try refusal(GGUFBytes(version: UInt32(3).byteSwapped).bytes).contains("big-endian"))
    #expect(try refusal(Array("FUGG".utf8) + [UInt8](repeating: 0, count: 20)).contains("big-endian"))
    #expect(try refusal(Array("GGUF\u{3}".utf8)).contains("not even a whole GGUF header"))
  }

  @Test func emptyFile() throws {
    #expect(try refusal([]).contains("the file is empty"))
  }

  @Test func directory() throws {
    try withTemporaryFolder { folder in
      let error = #expect(throws: ModelFileError.self) { try GGUFFile(path: folder) }
      #expect(error?.reason == "is a directory; name the .gguf file inside it")
    }
  }

  @Test func missingFile() {
    let error = #expect(throws: ModelFileError.self) { try GGUFFile(path: "/nowhere/model.gguf") }
    #expect(error?.description == "/nowhere/model.gguf: cannot be opened: no such file; check the path")
  }

  @Test(.enabled(if: geteuid() != 0, "the superuser may read everything"))
  func unreadableFile() throws {
    try withTemporaryFolder { folder in
      let path = "\(folder)/model.gguf"
      try Data(GGUFBytes().bytes).write(to: URL(filePath: path))
      try #require(chmod(path, 0) == 0)
      let error = #expect(throws: ModelFileError.self) { try GGUFFile(path: path) }
      #expect(error?.reason == "cannot be opened: permission denied; check the file's mode and owner")
    }
  }

  @Test(.timeLimit(.minutes(1)))
  func namedPipe() throws {
    try withTemporaryFolder { folder in
      let path = "\(folder)/model.gguf"
      try #require(mkfifo(path, 0o600) == 0)
      let error = #expect(throws: ModelFileError.self) { try GGUFFile(path: path) }
      #expect(error?.reason == "is a device or pipe; copy the model to a file first")
    }
  }
}
