import ModelFiles
import Testing
import Transformer

@Suite struct ShapeTextTests {
  @Test func numbersMakeAShape() throws {
    let shape = try SyntheticShape(
      text: "layers=2,width=64,heads=4,kv-heads=2,head-size=32,ff=96,vocabulary=100,tied")
    #expect(shape.layerCount == 2 && shape.width == 64 && shape.feedForwardWidth == 96)
    #expect(shape.heads == HeadLayout(headCount: 4, kvHeadCount: 2, headSize: 32))
    #expect(shape.vocabularySize == 100 && shape.tiesEmbeddings)
  }

  @Test func someNumbersFollowFromOthers() throws {
    let shape = try SyntheticShape(text: "layers=2,width=64,heads=4,ff=96,vocabulary=100")
    #expect(shape.heads == HeadLayout(headCount: 4, kvHeadCount: 4, headSize: 16))
    #expect(!shape.tiesEmbeddings)
  }

  @Test func namesAreShapesToo() throws {
    #expect(try SyntheticShape(text: "llama-3.2-1b") == SyntheticShape.named("llama-3.2-1b"))
  }

  @Test(arguments: [
    ("gpt-2", "llama-3.1-8b"), ("", "known are"), ("layers=2,width=64,heads=4,ff=96", "vocabulary"),
    ("layers=x,width=64", "layers=x"), ("layers=0,width=64", "layers=0"), ("layers=2,layers=3", "twice"),
    ("width=99999999,layers=1", "width=99999999"), ("experts=8,width=64", "experts=8"),
    ("layers=2,,width=64", "no part of a shape"), ("layers=100000", "65536"),
    ("layers=1,width=96,heads=4,ff=96,vocabulary=100", "heads of 24"),
    ("layers=1,width=96,heads=4,kv-heads=3,head-size=32,ff=96,vocabulary=100", "kv-heads=3"),
    ("layers=1,width=96,heads=4,head-size=32,ff=100,vocabulary=100", "ff=100"),
  ])
  func whatIsWrongIsNamed(text: String, part: String) throws {
    let error = #expect(throws: ModelDescriptionError.self) { try SyntheticShape(text: text) }
    #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
  }

  /// Models whose architecture is not there yet say so, with numbers that are a shape.
  @Test(arguments: ["qwen3-30b-a3b", "gpt-2 1.5b", "gpt-j 6b", "gpt-neox 20b"])
  func unsupportedArchitecturesAreNamed(name: String) throws {
    let error = #expect(throws: ModelDescriptionError.self) { try SyntheticShape(text: name) }
    #expect(error?.description.contains("not supported yet") == true)
    let numbers = try #require(SyntheticShape.unsupported[name.replacing(" ", with: "-")]?.numbers)
    _ = try ModelDescription.synthetic(shape: SyntheticShape(text: numbers), weights: .q8_0)
  }

  /// Rows of 576 are no multiple of 256.
  @Test func formatsWhoseBlocksDoNotDivideRowsAreNamed() throws {
    let shape = try SyntheticShape(text: "smollm2-135m")
    let error = #expect(throws: ModelDescriptionError.self) {
      try ModelDescription.synthetic(shape: shape, weights: .q4_k)
    }
    #expect(error?.description.contains("of a q6_k block, which q4_k models have") == true)
    #expect(try ModelDescription.synthetic(shape: shape, weights: .q4_1).tensors.count == 272)
  }
}
