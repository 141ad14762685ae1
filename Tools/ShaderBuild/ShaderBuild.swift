import Foundation
import PackagePlugin

/// Compiles every compute shader under `Shaders/` with glslc and embeds the SPIR-V in the target.
///
/// One command per variant, so that the build system compiles several at a time and repeats only those whose
/// sources changed. What a variant is, and the lines of a shader that decide it, is told in `ShaderVariant`.
@main
struct ShaderBuild: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: Target) throws -> [Command] {
    let package = context.package.directoryURL
    let shaders = package.appending(path: "Shaders")
    let interface = package.appending(path: "Sources/CShaderInterface/include")
    let output = context.pluginWorkDirectoryURL
    let embed = try context.tool(named: "EmbedShader").url
    guard let glslc = findCompiler(package: package) else {
      Diagnostics.error(
        "no GLSL compiler: run Tools/quickstart, which puts one in .sdk/bin, or install glslc, "
          + "or name one in the environment variable GLSLC")
      return []
    }

    let sources = files(in: shaders, extensions: ["comp", "glsl"])
    let pieces = sources.filter { $0.pathExtension == "glsl" } + files(in: interface, extensions: ["h"])
    let formats = sources.filter {
      $0.pathExtension == "glsl" && $0.deletingLastPathComponent().lastPathComponent == "formats"
    }
    .map { $0.deletingPathExtension().lastPathComponent }
    let variants = try sources.filter { $0.pathExtension == "comp" }
      .flatMap { try ShaderVariant.variants(of: $0, formats: formats) }
    for (name, twins) in Dictionary(grouping: variants, by: \.name) where twins.count > 1 {
      Diagnostics.error("two shaders are called \(name): \(twins.map(\.source.path).joined(separator: ", "))")
    }

    let compile = variants.map { variant in
      let file = output.appending(path: variant.name + ".swift")
      return Command.buildCommand(
        displayName: "Compiling shader \(variant.name)",
        executable: embed,
        arguments: [
          "compile", glslc.path, variant.name, variant.source.path, shaders.path, interface.path, file.path,
          variant.format ?? "", variant.formatsLine,
        ],
        inputFiles: [glslc, variant.source] + pieces,
        outputFiles: [file])
    }
    let index = output.appending(path: "Index.swift")
    let list = Command.buildCommand(
      displayName: "Listing \(variants.count) shaders",
      executable: embed,
      arguments: ["index", index.path] + variants.map(\.name),
      outputFiles: [index])
    return compile + [list]
  }

  /// The compiler named by the environment, the one that Tools/quickstart unpacked, or the system's.
  private func findCompiler(package: URL) -> URL? {
    let environment = ProcessInfo.processInfo.environment
    var places = [package.appending(path: ".sdk/bin/glslc")]
    if let named = environment["GLSLC"], !named.isEmpty { places.insert(URL(filePath: named), at: 0) }
    for folder in environment["PATH", default: ""].split(separator: ":") {
      places.append(URL(filePath: String(folder)).appending(path: "glslc"))
    }
    return places.first { FileManager.default.isExecutableFile(atPath: $0.path) }
  }

  /// The files below a folder that have one of the extensions, in a stable order.
  private func files(in folder: URL, extensions: Set<String>) -> [URL] {
    let found =
      FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)?
      .compactMap { $0 as? URL } ?? []
    return found.filter { extensions.contains($0.pathExtension) }.sorted { $0.path < $1.path }
  }
}
