import Kernels
import Testing

/// Layouts of fragments are taken as devices have them, and only where the kernel can follow.
@Suite struct FragmentLayoutTests {
  private typealias Element = FragmentLayout.Element

  /// Each of four invocations holds two inputs of a row of eight, then the two eight further on.
  @Test func findsSharersAndSlots() throws {
    // Units of 16 by 8 by 16, as they are known to be on some GPUs.
    let a = (0..<32).map { lane in
      [0, 8].flatMap { input in
        [0, 8].flatMap { row in
          (0..<2).map { Element(row: lane / 4 + row, input: lane % 4 * 2 + input + $0) }
        }
      }
    }
    let b = (0..<32).map { lane in
      [0, 8].flatMap { input in (0..<2).map { Element(row: lane / 4, input: lane % 4 * 2 + input + $0) } }
    }
    let layout = try #require(FragmentLayout(m: 16, n: 8, k: 16, a: a, b: b))
    #expect(layout.sharers == 4 && layout.slots == 4)
    #expect(layout.weightPlaces == [0, 1, 4, 5, 2, 3, 6, 7])
    #expect(layout.inputPlaces == [0, 1, 2, 3])
  }

  /// All invocations share each row, an input each: as CPU drivers have it.
  @Test func takesRowsThatAllShare() throws {
    let held = (0..<8).map { lane in (0..<8).map { Element(row: $0, input: lane) } }
    let layout = try #require(FragmentLayout(m: 8, n: 8, k: 8, a: held, b: held))
    #expect(layout.sharers == 8 && layout.slots == 1)
    #expect(layout.weightPlaces == Array(0..<8) && layout.inputPlaces == Array(0..<8))
  }

  /// Invocations that hold the same inputs of A and of B in another order get other places, not another product.
  @Test func followsTheOrderOfEach() throws {
    let a = (0..<8).map { lane in (0..<8).map { Element(row: lane, input: $0) } }
    let b = (0..<8).map { lane in (0..<8).map { Element(row: lane, input: 7 - $0) } }
    let layout = try #require(FragmentLayout(m: 8, n: 8, k: 8, a: a, b: b))
    #expect(layout.weightPlaces == Array(0..<8) && layout.inputPlaces == Array((0..<8).reversed()))
  }

  @Test func refusesWhatTheKernelCannotFollow() {
    let rows = (0..<8).map { lane in (0..<8).map { Element(row: lane, input: $0) } }
    let columns = (0..<8).map { lane in (0..<8).map { Element(row: $0, input: lane) } }
    // Inputs of A that B has elsewhere.
    #expect(FragmentLayout(m: 8, n: 8, k: 8, a: rows, b: columns) == nil)
    #expect(FragmentLayout(m: 8, n: 8, k: 8, a: columns, b: rows) == nil)
    // One invocation holds what another should.
    var twice = rows
    twice[3] = rows[2]
    #expect(FragmentLayout(m: 8, n: 8, k: 8, a: twice, b: rows) == nil)
    #expect(FragmentLayout(m: 8, n: 8, k: 8, a: rows, b: twice) == nil)
    // What a device that runs nothing leaves.
    let nothing = (0..<8).map { _ in (0..<8).map { _ in Element(row: 0, input: 0) } }
    #expect(FragmentLayout(m: 8, n: 8, k: 8, a: nothing, b: nothing) == nil)
    #expect(FragmentLayout(m: 8, n: 8, k: 8, a: [], b: []) == nil)
  }
}
