import Foundation

/// A Swift file that holds one module's SPIR-V as base64: a literal that costs the Swift compiler nothing.
/// The constant is called as the variant is, dot and all.
func swiftFile(embedding spirv: Data, name: String) -> String {
  "let `\(name)`: StaticString = \"\(spirv.base64EncodedString())\"\n"
}

/// The Swift file by which `ShaderLibrary` finds the modules by name.
func indexFile(of names: [String]) -> String {
  let entries = names.sorted().map { "  \"\($0)\": `\($0)`,\n" }.joined()
  return "let embeddedShaders: [String: StaticString] = [\n\(entries.isEmpty ? "  :\n" : entries)]\n"
}
