import Engine

/// A timeline of a mesh as a picture: a lane for each device, in which steps are boxes, bubbles stay hatched, and lines
/// show what passes from one pipeline stage to the next.
package struct TimelinePicture {
  private let timeline: MeshTimeline
  private static let left = 110.0
  private static let width = 1400.0
  private static let lane = 40.0
  private static let top = 58.0

  package init(_ timeline: MeshTimeline) {
    self.timeline = timeline
  }

  private var origin: Double { timeline.spans.map(\.start).min() ?? 0 }
  private var scale: Double { Self.width / max(timeline.seconds, 1e-9) }
  private func x(_ seconds: Double) -> Double { Self.left + (seconds - origin) * scale }
  private func y(_ device: Int) -> Double { Self.top + Double(device) * Self.lane }

  /// The picture as a document.
  package var svg: String {
    let mesh = timeline.mesh
    let height = Self.top + Double(mesh.deviceCount) * Self.lane + 40
    var lines = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(Int(Self.left + Self.width + 20))\" height=\"\(Int(height))\" "
        + "font-family=\"sans-serif\" font-size=\"11\">",
      "<defs><pattern id=\"idle\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
        + "<rect width=\"6\" height=\"6\" fill=\"#f4f4f4\"/><rect width=\"1.5\" height=\"6\" fill=\"#d0d0d0\"/></pattern></defs>",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      "<text x=\"10\" y=\"20\" font-size=\"14\">tensor-parallel \(mesh.tensor), pipeline-parallel \(mesh.pipeline): "
        + "\(timeline.stepCount) steps in \(decimal(timeline.seconds * 1000)) ms, devices idle for "
        + "\(decimal(timeline.bubble * 100)) % of it</text>",
      "<text x=\"10\" y=\"38\" fill=\"#555\">boxes: steps, by number (full colour: prompts, pale: texts); hatched: "
        + "bubbles; lines: transfers to the next stage</text>",
    ]
    for device in 0..<mesh.deviceCount {
      let name =
        mesh.tensor > 1 ? "stage \(device / mesh.tensor), rank \(device % mesh.tensor)" : "stage \(device)"
      lines.append("<text x=\"10\" y=\"\(decimal(y(device) + 20))\">\(name)</text>")
      lines.append(
        "<rect x=\"\(decimal(Self.left))\" y=\"\(decimal(y(device)))\" width=\"\(decimal(Self.width))\" "
          + "height=\"\(decimal(Self.lane - 10))\" fill=\"url(#idle)\"/>")
    }
    for span in timeline.spans { lines.append(box(span)) }
    lines += transfers + axis
    return lines.joined(separator: "\n") + "\n</svg>\n"
  }

  private func box(_ span: MeshTimeline.Span) -> String {
    let width = max(0.4, (span.end - span.start) * scale)
    let isText = span.tokens == span.outputs
    let fill = "hsl(\(span.step * 137 % 360), \(isText ? 45 : 70)%, \(isText ? 75 : 58)%)"
    let label =
      width > 16 && span.part == 0
      ? "<text x=\"\(decimal(x(span.start) + 3))\" y=\"\(decimal(y(span.device) + 19))\">\(span.step)</text>"
      : ""
    return
      "<rect x=\"\(decimal(x(span.start)))\" y=\"\(decimal(y(span.device)))\" width=\"\(decimal(width))\" "
      + "height=\"\(decimal(Self.lane - 10))\" fill=\"\(fill)\" stroke=\"#333\" stroke-width=\"0.3\"><title>step "
      + "\(span.step), part \(span.part): \(span.tokens) tokens, \(decimal((span.end - span.start) * 1000)) ms</title></rect>"
      + label
  }

  /// From the end of a step on rank 0 of a stage to its beginning on that of the next.
  private var transfers: [String] {
    let mesh = timeline.mesh
    var ends: [Int: [Int: MeshTimeline.Span]] = [:]
    var starts: [Int: [Int: MeshTimeline.Span]] = [:]
    for span in timeline.spans where span.device % mesh.tensor == 0 {
      ends[span.device, default: [:]][span.step] = span
      if span.part == 0 { starts[span.device, default: [:]][span.step] = span }
    }
    var lines: [String] = []
    for stage in 0..<mesh.pipeline - 1 {
      let (from, to) = (stage * mesh.tensor, (stage + 1) * mesh.tensor)
      for (step, span) in (ends[from] ?? [:]).sorted(by: { $0.key < $1.key }) {
        guard let next = starts[to]?[step] else { continue }
        lines.append(
          "<line x1=\"\(decimal(x(span.end)))\" y1=\"\(decimal(y(from) + Self.lane - 10))\" "
            + "x2=\"\(decimal(x(next.start)))\" y2=\"\(decimal(y(to)))\" stroke=\"#222\" stroke-width=\"0.8\"/>"
        )
      }
    }
    return lines
  }

  private var axis: [String] {
    let bottom = y(timeline.mesh.deviceCount)
    return (0...10).map { tick in
      let seconds = origin + timeline.seconds * Double(tick) / 10
      return
        "<text x=\"\(decimal(x(seconds) - 8))\" y=\"\(decimal(bottom + 18))\">\(decimal((seconds - origin) * 1000)) ms</text>"
    }
  }

  private func decimal(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths < 0 ? "-" : "")\(abs(tenths) / 10).\(abs(tenths) % 10)"
  }
}
