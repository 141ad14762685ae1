import Kernels

/// What there is to say of weights that stream.
enum StreamText {
  /// How fast link and disk are, and what that allows, in a line for each device.
  static func predictions(_ figures: [StreamFigures]) -> [String] {
    figures.enumerated().map { index, figures in
      var parts = ["the link copies \(rate(figures.linkRate))"]
      if figures.diskRate > 0, let method = figures.readMethod {
        parts.append("the disk gives \(rate(figures.diskRate)) (\(method))")
      } else if let method = figures.readMethod {
        parts.append("the file is read by \(method)")
      }
      if figures.stepSeconds > 0 {
        parts.append("at most \(Format.decimal(1 / figures.stepSeconds, 2)) tokens/s for one sequence")
      }
      return parts.joined(separator: ", ")
    }
  }

  /// How busy link and disk were between two looks, and what the device waited for meanwhile.
  static func activity(from before: StreamFigures, to after: StreamFigures, _ times: StreamTimes) -> String {
    let seconds = max(times.total - times.idle, 1e-9)
    func share(_ bytes: Int, of limit: Double) -> String {
      let speed = Double(bytes) / seconds
      return rate(speed) + (limit > 0 ? " (\(percent(speed / limit)) of what it gives alone)" : "")
    }
    var parts = ["link \(share(after.copiedBytes - before.copiedBytes, of: after.linkRate))"]
    if after.readBytes > before.readBytes {
      parts.append("disk \(share(after.readBytes - before.readBytes, of: after.diskRate))")
    }
    var text = parts.joined(separator: ", ") + "; of \(Format.decimal(seconds, 2)) s the device computed "
    text +=
      "\(percent(times.computing / seconds)), waited \(percent(times.waitingForLink / seconds)) for the link"
    if after.fileBytes > 0 { text += " and \(percent(times.waitingForDisk / seconds)) for the disk" }
    return text
  }

  private static func rate(_ bytesPerSecond: Double) -> String {
    "\(Format.decimal(bytesPerSecond / 1e9, bytesPerSecond < 1e9 ? 2 : 1)) GB/s"
  }

  private static func percent(_ fraction: Double) -> String { "\(Format.decimal(fraction * 100, 0)) %" }
}
