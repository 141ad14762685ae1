import Benchmark
import Testing

@Suite struct CountListTests {
  @Test(arguments: [("1", [1]), ("0,8192", [0, 8192]), ("8,4,8", [8, 4, 8])])
  func countsWithCommasAreAList(text: String, counts: [Int]) {
    #expect(CountList(text)?.counts == counts)
    #expect(CountList(text)?.description == text)
  }

  @Test(arguments: [
    "", ",", "1,", ",1", "1,,2", " 1", "1, 2", "-1", "+1", "1.5", "a", "4294967297", "99999999999999999999",
  ])
  func anythingElseIsNone(text: String) {
    #expect(CountList(text) == nil)
  }
}
