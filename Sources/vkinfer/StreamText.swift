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

  /// What keys and values in host memory allow, beside weights that stream.
  static func prediction(_ cache: CacheStreamFigures, weights: StreamFigures?, positions: Int) -> String {
    let bytes = cache.byteCount(positions: positions)
    let rate = weights.map { max($0.linkRate, cache.linkRate) } ?? cache.linkRate
    let linkSeconds = Double(bytes + (weights.map { $0.hostBytes + $0.fileBytes } ?? 0)) / max(rate, 1)
    let seconds = max(linkSeconds, weights?.stepSeconds ?? 0)
    return
      "the link copies \(self.rate(cache.linkRate)), "
      + "a step for one sequence after \(Format.count(positions, "token")) brings "
      + "\(Format.bytes(bytes)) of keys and values: at most \(Format.decimal(1 / seconds, 2)) tokens/s"
  }

  /// How much of keys and values moved, in `seconds`.
  static func activity(
    from before: CacheStreamFigures, to after: CacheStreamFigures, seconds: Double
  ) -> String {
    let (arrived, returned) = (after.inBytes - before.inBytes, after.outBytes - before.outBytes)
    return "keys and values \(rate(Double(arrived) / max(seconds, 1e-9))) to the device, "
      + "\(rate(Double(returned) / max(seconds, 1e-9))) back"
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
    let depth = after.prefetch
    text += "; copies ran up to \(Format.count(depth.depth, "unit")) ahead"
    text += depth.isFixed ? ", as asked for" : " of \(depth.most) that there is room for"
    return text
  }

  /// How what was measured compares with what was predicted; nil where nothing was, or devices wait for each other, too.
  static func comparison(_ figures: [StreamFigures], measured: Double) -> String? {
    guard figures.count == 1, figures[0].stepSeconds > 0, measured > 0 else { return nil }
    let predicted = 1 / figures[0].stepSeconds
    return "\(Format.decimal(measured, 2)) tokens/s, \(percent(measured / predicted)) of the "
      + "\(Format.decimal(predicted, 2)) that link and disk allow"
  }

  private static func rate(_ bytesPerSecond: Double) -> String {
    "\(Format.decimal(bytesPerSecond / 1e9, bytesPerSecond < 1e9 ? 2 : 1)) GB/s"
  }

  private static func percent(_ fraction: Double) -> String { "\(Format.decimal(fraction * 100, 0)) %" }
}
