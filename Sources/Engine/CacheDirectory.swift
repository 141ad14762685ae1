import Glibc

extension EngineOptions {
  /// Where the XDG base directory specification puts compiled pipelines, which can be made again; nil without a home.
  public static var usualCacheDirectory: String? {
    func directory(_ variable: String) -> String? {
      guard let value = getenv(variable).map({ String(cString: $0) }), value.hasPrefix("/") else {
        return nil
      }
      return value
    }
    return (directory("XDG_CACHE_HOME") ?? directory("HOME").map { $0 + "/.cache" }).map {
      $0 + "/vkinfer/pipelines"
    }
  }
}
