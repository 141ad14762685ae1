/// Figures as they come: a table for people, comma-separated values, or one JSON object at the end.
final class Report {
  enum Style {
    case table, json, csv
  }

  /// What stands in one place of a row.
  enum Cell {
    case text(String)
    case count(Int)
    /// With so many decimals in a table; in full elsewhere.
    case number(Double, decimals: Int)
    /// Does not apply.
    case none

    fileprivate var shown: String {
      switch self {
      case .text(let text): text
      case .count(let count): String(count)
      case .number(let number, let decimals): Format.decimal(number, decimals)
      case .none: ""
      }
    }

    fileprivate var json: JSON {
      switch self {
      case .text(let text): .string(text)
      case .count(let count): .int(count)
      case .number(let number, _): .double(number)
      case .none: .null
      }
    }

    /// RFC 4180.
    fileprivate var csv: String {
      switch self {
      case .number(let number, _): "\(number)"
      case .text(let text) where text.contains(where: { ",\"\n\r".contains($0) }):
        "\"" + text.replacing("\"", with: "\"\"") + "\""
      default: shown
      }
    }

    fileprivate var isText: Bool { if case .text = self { true } else { false } }
  }

  struct Column {
    /// In JSON and comma-separated values.
    var key: String
    var title: String
    /// Characters in a table.
    var width: Int
    /// Only for machines: a table says it elsewhere.
    var isHidden = false
  }

  let style: Style
  private let columns: [Column]
  private var rows: [JSON] = []
  private var headingWritten = false

  init(style: Style, columns: [Column]) {
    self.style = style
    self.columns = columns
  }

  /// A line above the rows that follow, in a table.
  func note(_ line: String) throws {
    if style == .table { try Output.write(line + "\n") }
  }

  /// Starts a table anew: its titles come with the next row.
  func startTable() { if style == .table { headingWritten = false } }

  /// - Parameter cells: one for each column.
  func add(_ cells: [Cell]) throws {
    precondition(cells.count == columns.count, "a row of another table")
    switch style {
    case .table:
      let shown = zip(columns, cells).filter { !$0.0.isHidden }
      if !headingWritten {
        let titles = shown.map { column, cell in
          cell.isText ? Format.pad(column.title, column.width) : Format.padLeft(column.title, column.width)
        }
        try Output.write(Self.line(titles))
      }
      try Output.write(
        Self.line(
          shown.map { column, cell in
            cell.isText ? Format.pad(cell.shown, column.width) : Format.padLeft(cell.shown, column.width)
          }))
    case .csv:
      if !headingWritten { try Output.write(columns.map(\.key).joined(separator: ",") + "\n") }
      try Output.write(cells.map(\.csv).joined(separator: ",") + "\n")
    case .json:
      rows.append(.object(zip(columns, cells).map { ($0.key, $1.json) }))
    }
    headingWritten = true
  }

  /// The rows so far, for an object that holds more than them.
  var json: JSON { .array(rows) }

  private static func line(_ cells: [String]) -> String {
    var line = cells.joined(separator: "  ")
    while line.last == " " { line.removeLast() }
    return line + "\n"
  }
}
