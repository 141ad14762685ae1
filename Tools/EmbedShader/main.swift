import Foundation

// The build plugin's helper: compiles one shader into a Swift file, or lists the shaders compiled.
//
//   EmbedShader compile GLSLC NAME SOURCE SHADERS INTERFACE OUTPUT FORMAT FORMATS-LINE
//     (FORMAT and FORMATS-LINE, the line that lists the shader's formats, are empty for a shader without)
//   EmbedShader index OUTPUT NAME...

/// Ends the build with one line.
func fail(_ message: String) -> Never {
  FileHandle.standardError.write(Data((message + "\n").utf8))
  exit(1)
}

let arguments = Array(CommandLine.arguments.dropFirst())
do {
  switch (arguments.first, arguments.count) {
  case ("compile", 9):
    let job = ShaderCompilation(
      compiler: arguments[1], name: arguments[2], source: arguments[3], shaders: arguments[4],
      interface: arguments[5], output: arguments[6], format: arguments[7].isEmpty ? nil : arguments[7],
      formatsLine: arguments[8])
    let spirv = try job.run()
    try swiftFile(embedding: spirv, name: job.name)
      .write(toFile: job.output, atomically: true, encoding: .utf8)
  case ("index", 2...):
    try indexFile(of: Array(arguments.dropFirst(2)))
      .write(toFile: arguments[1], atomically: true, encoding: .utf8)
  default:
    fail(
      "usage: EmbedShader compile GLSLC NAME SOURCE SHADERS INTERFACE OUTPUT FORMAT FORMATS-LINE | index OUTPUT NAME..."
    )
  }
} catch let error as ShaderError {
  fail(error.message)
} catch {
  fail("error: EmbedShader \(arguments.joined(separator: " ")): \(error)")
}
