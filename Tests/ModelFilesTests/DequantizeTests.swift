import ModelFiles
import Testing

@Suite struct DequantizeTests {
  static let family: [TensorType: String] = [
    .f32: "floats", .f16: "floats", .bf16: "floats",
    .q4_0: "blocks32", .q4_1: "blocks32", .q5_0: "blocks32", .q5_1: "blocks32", .q8_0: "blocks32",
    .q2_k: "blocks256", .q3_k: "blocks256", .q4_k: "blocks256", .q5_k: "blocks256", .q6_k: "blocks256",
    .iq4_nl: "nonlinear", .iq4_xs: "nonlinear", .mxfp4: "nonlinear",
  ]

  @Test(arguments: TensorType.allCases)
  func equalsTheReferenceToTheBit(type: TensorType) throws {
    let file = try GGUFFile(path: fixture("weights-\(try #require(Self.family[type])).gguf"))
    let tensor = try #require(file.tensor(type.name))
    let expected = file.bytes(of: try #require(file.tensor("\(type.name).expected"))).bindMemory(
      to: UInt32.self)
    let weights: [Float] = dequantize(file.bytes(of: tensor), type: type)
    #expect(tensor.type == type)
    #expect(weights.count == expected.count)
    let differences = zip(weights, expected).enumerated().filter { $0.element.0.bitPattern != $0.element.1 }
    #expect(differences.isEmpty, "first difference at weight \(differences.first?.offset ?? 0)")
  }

  /// Blocks of 17, 18, 22, 34, 110 and 210 bytes start anywhere.
  @Test(arguments: TensorType.allCases)
  func needsNoAlignment(type: TensorType) throws {
    let file = try GGUFFile(path: fixture("weights-\(try #require(Self.family[type])).gguf"))
    let bytes = file.bytes(of: try #require(file.tensor(type.name)))
    let expected: [Float] = dequantize(bytes, type: type)
    let shifted: [Float] = ([0] + Array(bytes)).withUnsafeBytes {
      dequantize(UnsafeRawBufferPointer(rebasing: $0.dropFirst()), type: type)
    }
    #expect(shifted.map(\.bitPattern) == expected.map(\.bitPattern))
  }

  @Test func everyHalfConvertsExactly() {
    for bits in UInt16.min...UInt16.max {
      let value = Float(half: bits)
      let expected = Float(Float16(bitPattern: bits))
      if expected.isNaN {
        #expect(value.isNaN)
        #expect(Float(half: value.halfBits).isNaN)
      } else if value.bitPattern != expected.bitPattern || value.halfBits != bits {
        Issue.record("half \(bits) became \(value) and \(value.halfBits)")
      }
    }
  }

  @Test func floatsRoundToTheNearestHalfTiesToEven() {
    var generator = SystemRandomNumberGenerator()
    let special: [Float] = [
      65504, 65519.996, 65520, 1e30, -.infinity, 0x1p-24, 0x1p-25, 0x1.8p-24, 0x1.002p0, 0x1.006p0,
    ]
    let random = (0..<20_000).map { _ in
      Float(bitPattern: UInt32.random(in: 0x3000_0000...0x4800_0000, using: &generator))
    }
    for value in special + random where value.halfBits != Float16(value).bitPattern {
      Issue.record("\(value) became half \(value.halfBits) and not \(Float16(value).bitPattern)")
    }
  }

  @Test func floatsRoundToTheNearestBfloat16TiesToEven() {
    #expect(Float(1).bfloat16Bits == 0x3f80)
    #expect(Float(bitPattern: 0x3f80_8000).bfloat16Bits == 0x3f80)
    #expect(Float(bitPattern: 0x3f81_8000).bfloat16Bits == 0x3f82)
    #expect(Float(bitPattern: 0x3f80_8001).bfloat16Bits == 0x3f81)
    #expect(Float.greatestFiniteMagnitude.bfloat16Bits == 0x7f80)
    #expect(Float(bfloat16: Float.nan.bfloat16Bits).isNaN)
  }

  @Test(arguments: TensorType.allCases)
  func byteCountsAreChecked(type: TensorType) {
    #expect(type.byteCount(weights: 3 * type.blockSize) == 3 * type.blockBytes)
    #expect(type.byteCount(weights: 0) == 0)
    #expect(type.byteCount(weights: -type.blockSize) == nil)
    #expect(type.blockSize == 1 || type.byteCount(weights: type.blockSize + 1) == nil)
    #expect(type.blockBytes < type.blockSize * 2 || type.byteCount(weights: Int.max / 256 * 256) == nil)
  }
}
