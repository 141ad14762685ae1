import CZlib
import Foundation

/// A Swift file that holds one module's SPIR-V, compressed, as base64: a literal that costs the Swift compiler nothing.
/// The constant is called as the variant is, dot and all; `ShaderLibrary` reads it.
func swiftFile(embedding spirv: Data, name: String) throws -> String {
  let text = spirv.isEmpty ? "" : try compressed(spirv).base64EncodedString()
  return "let `\(name)`: StaticString = \"\(text)\"\n"
}

/// The number of bytes, 32 bits, little-endian, then those bytes as zlib compresses them best.
private func compressed(_ bytes: Data) throws -> Data {
  var count = compressBound(uLong(bytes.count))
  var result = [UInt8](repeating: 0, count: Int(count))
  let status = bytes.withUnsafeBytes { source in
    compress2(
      &result, &count, source.bindMemory(to: UInt8.self).baseAddress, uLong(bytes.count), Z_BEST_COMPRESSION)
  }
  guard status == Z_OK else {
    throw ShaderError(message: "error: zlib cannot compress a shader: status \(status)")
  }
  return withUnsafeBytes(of: UInt32(bytes.count).littleEndian) { Data($0) } + result.prefix(Int(count))
}

/// The Swift file by which `ShaderLibrary` finds the modules by name.
func indexFile(of names: [String]) -> String {
  let entries = names.sorted().map { "  \"\($0)\": `\($0)`,\n" }.joined()
  return "let embeddedShaders: [String: StaticString] = [\n\(entries.isEmpty ? "  :\n" : entries)]\n"
}
