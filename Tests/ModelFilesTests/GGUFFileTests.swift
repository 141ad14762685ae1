import Foundation
import ModelFiles
import Testing

@Suite struct GGUFFileTests {
  @Test func readsEveryMetadataType() throws {
    let file = try GGUFFile(path: fixture("metadata.gguf"))
    #expect(file.version == 3)
    #expect(file.tensors.isEmpty)
    #expect(file.metadataKeys.count == 25)
    #expect(file.metadataKeys.first == "general.architecture")
    #expect(Set(file.metadataKeys) == Set(file.metadata.keys))
    let expected: [String: MetadataValue] = [
      "general.architecture": .string("fixture"),
      "scalar.uint8": .uint8(.max), "array.uint8": .uint8Array([0, 1, .max]),
      "scalar.int8": .int8(.max), "array.int8": .int8Array([.min, 1, .max]),
      "scalar.uint16": .uint16(.max), "array.uint16": .uint16Array([0, 1, .max]),
      "scalar.int16": .int16(.max), "array.int16": .int16Array([.min, 1, .max]),
      "scalar.uint32": .uint32(.max), "array.uint32": .uint32Array([0, 1, .max]),
      "scalar.int32": .int32(.max), "array.int32": .int32Array([.min, 1, .max]),
      "scalar.uint64": .uint64(.max), "array.uint64": .uint64Array([0, 1, .max]),
      "scalar.int64": .int64(.max), "array.int64": .int64Array([.min, 1, .max]),
      "scalar.float32": .float32(0.1), "array.float32": .float32Array([0.1, -2.5, 1e-30]),
      "scalar.float64": .float64(0.1), "array.float64": .float64Array([0.1, -2.5, 1e-30]),
      "scalar.bool": .bool(true), "array.bool": .boolArray([true, false, true]),
      "scalar.string": .string("žluťoučký kůň 🐎"),
      "array.string": .stringArray(["", "a", "日本語", "line\nfeed"]),
    ]
    for (key, value) in expected { #expect(file.metadata[key] == value, "\(key)") }
  }

  @Test func accessorsConvertWhatFits() {
    #expect(MetadataValue.uint8(7).int == 7)
    #expect(MetadataValue.int64(-7).int == -7)
    #expect(MetadataValue.uint64(.max).int == nil)
    #expect(MetadataValue.uint64(1 << 60).double == 0x1p60)
    #expect(MetadataValue.int32(-3).double == -3)
    #expect(MetadataValue.float32(0.5).double == 0.5)
    #expect(MetadataValue.float32(1).int == nil)
    #expect(MetadataValue.string("1").int == nil)
    #expect(MetadataValue.bool(true).bool == true)
    #expect(MetadataValue.uint32(1).bool == nil)
    #expect(MetadataValue.uint32Array([1, .max]).ints == [1, Int(UInt32.max)])
    #expect(MetadataValue.uint32Array([1, .max]).int32s == nil)
    #expect(MetadataValue.uint16Array([1, 2]).int32s == [1, 2])
    #expect(MetadataValue.float64Array([0.5]).floats == [0.5])
    #expect(MetadataValue.int8Array([-1]).doubles == [-1])
    #expect(MetadataValue.stringArray(["a", "b"]).count == 2)
    #expect(MetadataValue.string("ab").count == nil)
  }

  @Test func readsVersion2() throws {
    var bytes = [UInt8](try Data(contentsOf: URL(filePath: fixture("metadata.gguf"))))
    bytes[4] = 2
    let header = try bytes.withUnsafeBytes { try GGUFHeader(parsing: $0, path: "v2.gguf") }
    #expect(header.version == 2)
    #expect(header.metadata["scalar.int16"] == .int16(.max))
  }

  @Test(arguments: 1...3)
  func opensASplitModelFromAnyPart(part: Int) throws {
    let file = try GGUFFile(path: fixture("split-0000\(part)-of-00003.gguf"))
    #expect(file.paths == (1...3).map { fixture("split-0000\($0)-of-00003.gguf") })
    #expect(file.metadata["general.name"]?.string == "three parts")
    #expect(file.tensors.map(\.name) == ["part0", "part1", "part2"])
    for number in 0..<3 {
      let tensor = try #require(file.tensor("part\(number)"))
      #expect(tensor.shape == [3 + number, 2])
      #expect(tensor.file == number)
      let weights: [Float] = dequantize(file.bytes(of: tensor), type: .f32)
      #expect(weights == [Float](repeating: Float(number), count: 2 * (3 + number)))
    }
  }

  @Test func aMissingPartIsNamed() throws {
    try withTemporaryFolder { folder in
      try FileManager.default.copyItem(
        atPath: fixture("split-00002-of-00003.gguf"), toPath: "\(folder)/split-00002-of-00003.gguf")
      let error = #expect(throws: ModelFileError.self) {
        try GGUFFile(path: "\(folder)/split-00002-of-00003.gguf")
      }
      #expect(error?.path == "\(folder)/split-00001-of-00003.gguf")
      #expect(error?.reason.contains("no such file") == true)
    }
  }

  @Test func aRenamedPartIsRefused() throws {
    try withTemporaryFolder { folder in
      try FileManager.default.copyItem(
        atPath: fixture("split-00002-of-00003.gguf"), toPath: "\(folder)/model.gguf")
      let error = #expect(throws: ModelFileError.self) { try GGUFFile(path: "\(folder)/model.gguf") }
      #expect(error?.reason.contains("is part 2 of a model of 3 files") == true)
    }
  }

  @Test func thePartsOfAnotherModelAreRefused() throws {
    try withTemporaryFolder { folder in
      for part in 1...3 {
        let name = "split-0000\(part)-of-00003.gguf"
        try FileManager.default.copyItem(
          atPath: fixture(part == 2 ? "metadata.gguf" : name), toPath: "\(folder)/\(name)")
      }
      let error = #expect(throws: ModelFileError.self) {
        try GGUFFile(path: "\(folder)/split-00001-of-00003.gguf")
      }
      #expect(error?.reason.contains("is not part 2 of the 3") == true)
    }
  }

  @Test func rowsAreAPartOfTheTensor() throws {
    let file = try GGUFFile(path: fixture("split-00001-of-00003.gguf"))
    let tensor = try #require(file.tensor("part1"))
    #expect((tensor.columns, tensor.rows, tensor.rowBytes) == (4, 2, 16))
    let second = try file.withBytes(of: tensor, rows: 1..<2) { ($0.baseAddress, $0.count) }
    #expect(second.0 == file.bytes(of: tensor).baseAddress.map { $0 + 16 })
    #expect(second.1 == 16)
  }

  @Test func aVocabularyWithoutWeightsOpens() throws {
    try withTemporaryFolder { folder in
      var file = GGUFBytes(keys: 1)
      file.addArrayKey("tokenizer.ggml.tokens", elementType: 8, count: 2)
      file.add("a")
      file.add("b")
      try Data(file.bytes).write(to: URL(filePath: "\(folder)/vocab.gguf"))
      let opened = try GGUFFile(path: "\(folder)/vocab.gguf")
      #expect(opened.metadata["tokenizer.ggml.tokens"]?.strings == ["a", "b"])
      #expect(opened.tensor("a") == nil)
    }
  }

  @Test func theAlignmentKeyPlacesTheWeights() throws {
    var file = GGUFBytes(tensors: 1, keys: 1)
    file.addKey("general.alignment", type: 4)
    file.add(UInt32(1024))
    file.addTensor("t", shape: [4], type: 0)
    file.addWeights(16, alignment: 1024)
    #expect(try file.header().tensor("t")?.offset == 1024)
  }

  @Test func overlappingTensorsAreFine() throws {
    var file = GGUFBytes(tensors: 2)
    file.addTensor("embedding", shape: [8, 2], type: 0)
    file.addTensor("output", shape: [8, 2], type: 0)
    file.addWeights(64)
    #expect(try file.header().tensors.map(\.byteCount) == [64, 64])
  }
}
