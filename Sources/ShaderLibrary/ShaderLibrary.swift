/// The SPIR-V that the build compiled from `Shaders/` and put into the binary.
///
/// A module is called as its file is (`norm`), with the weight format behind a dot where the shader is
/// compiled for several (`gemv.q4_k`).
package enum ShaderLibrary {
  /// The names of all modules that the build made, sorted.
  package static var names: [String] {
    embeddedShaders.filter { $0.value.utf8CodeUnitCount > 0 }.keys.sorted()
  }

  /// The words of a module, or nil when there is none of that name: also when the GLSL compiler of the build
  /// was too old for it.
  package static func spirv(_ name: String) -> [UInt32]? {
    guard let module = embeddedShaders[name], module.utf8CodeUnitCount > 0 else { return nil }
    return bytes(base64: UnsafeBufferPointer(start: module.utf8Start, count: module.utf8CodeUnitCount))
      .flatMap(words(compressed:))
  }
}
