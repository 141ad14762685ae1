import Foundation
import PackagePlugin

/// One SPIR-V module to make: a shader, for one weight format where the shader has formats.
///
/// A `.comp` file is an entry point and `.glsl` files are pieces that it includes. Lines of the `.comp` that
/// start with `//!` tell the build about it:
///
/// - `//! formats: all`, or a list such as `//! formats: f16, q4_k`: compiled once for each weight format, a
///   format being a file `Shaders/formats/NAME.glsl` which the shader gets with `#include FORMAT_FILE`. The
///   variant is called `SHADER.NAME` and sees the macro `FORMAT_<NAME>` (upper case) defined as 1.
/// - `//! needs: GL_EXTENSION`: left out, with a warning, when the compiler is too old to know the extension.
struct ShaderVariant {
  /// The name by which `ShaderLibrary` finds it: `norm` or `gemv.q4_k`.
  let name: String
  let source: URL
  let format: String?
  /// The line of the source that lists its formats, or nothing: what the list of variants was made from.
  let formatsLine: String

  static func variants(of source: URL, formats: [String]) throws -> [ShaderVariant] {
    let shader = source.deletingPathExtension().lastPathComponent
    let text = try String(contentsOf: source, encoding: .utf8)
    let mark = "//! formats:"
    guard let line = text.split(whereSeparator: \.isNewline).first(where: { $0.hasPrefix(mark) }) else {
      return [ShaderVariant(name: shader, source: source, format: nil, formatsLine: "")]
    }
    let listed = line.dropFirst(mark.count).split(separator: ",").map {
      $0.trimmingCharacters(in: .whitespaces)
    }
    let chosen = listed == ["all"] ? formats : listed
    for format in chosen where !formats.contains(format) {
      Diagnostics.error(
        "\(source.path): there is no weight format \(format): no Shaders/formats/\(format).glsl")
    }
    return chosen.map {
      ShaderVariant(name: "\(shader).\($0)", source: source, format: $0, formatsLine: String(line))
    }
  }
}
