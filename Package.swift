// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "vkinfer",
  products: [
    .executable(name: "vkinfer", targets: ["vkinfer"]),
    // libvkinfer.so: the engine for C, see vkinfer.h.
    .library(name: "vkinfer-c", type: .dynamic, targets: ["LibVKInfer"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0")
  ],
  targets: [
    // Vulkan: headers, a function table filled at run time (no link-time dependency on a loader).
    .target(name: "CVulkan"),
    // Push-constant structs, written once for GLSL and Swift.
    .target(name: "CShaderInterface"),
    // Reads of files by io_uring, by its system calls.
    .target(name: "CReadRing"),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),

    .target(name: "ModelFiles"),
    .target(name: "Tokenization", dependencies: ["ModelFiles", "CPCRE2"]),
    .target(name: "Transformer", dependencies: ["ModelFiles"]),
    .target(name: "Reference", dependencies: ["ModelFiles", "Transformer"]),

    .target(name: "VulkanRuntime", dependencies: ["CVulkan"]),
    .target(name: "ShaderLibrary", dependencies: ["CZlib"], plugins: ["ShaderBuild"]),
    .target(
      name: "Kernels",
      dependencies: [
        "VulkanRuntime", "ShaderLibrary", "CShaderInterface", "CReadRing", "Transformer", "ModelFiles",
      ]),
    .target(name: "Placement", dependencies: ["Kernels", "Transformer", "ModelFiles"]),
    .target(
      name: "Engine",
      dependencies: [
        "Kernels", "Placement", "Transformer", "ModelFiles", "Tokenization", "VulkanRuntime", "Reference",
      ]),
    // Every kernel on a device against Reference: a user's tool as much as a test.
    .target(
      name: "SelfTest",
      dependencies: [
        "Kernels", "Reference", "VulkanRuntime", "CShaderInterface", "ModelFiles", "Transformer",
      ]),
    // How fast models and single kernels are on a device.
    .target(
      name: "Benchmark",
      dependencies: [
        "Engine", "Kernels", "Placement", "VulkanRuntime", "CShaderInterface", "ModelFiles", "Transformer",
      ]),
    .executableTarget(
      name: "vkinfer",
      dependencies: [
        "Engine", "Kernels", "SelfTest", "Benchmark", "ModelFiles", "Placement", "Tokenization",
        "Transformer",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),

    // The C library: the header with its constants and the few functions in C, and the functions in Swift.
    .target(name: "CVKInfer"),
    .target(
      name: "VKInferC",
      dependencies: [
        "CVKInfer", "Engine", "Kernels", "Placement", "ModelFiles", "Tokenization", "Transformer",
        "VulkanRuntime",
      ]),
    // How these are linked to libvkinfer.so; tests link them as they are.
    .target(
      name: "LibVKInfer", dependencies: ["VKInferC"], exclude: ["libvkinfer.map"],
      linkerSettings: [
        .unsafeFlags([
          "-static-stdlib", "-no-toolchain-stdlib-rpath",
          "-Xlinker", "-soname=libvkinfer.so.0",
          "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/LibVKInfer/libvkinfer.map",
        ])
      ]),

    // The shader build: compiles Shaders/ with glslc and embeds the SPIR-V.
    .executableTarget(name: "EmbedShader", dependencies: ["CZlib"], path: "Tools/EmbedShader"),
    .plugin(
      name: "ShaderBuild", capability: .buildTool(), dependencies: ["EmbedShader"], path: "Tools/ShaderBuild"),

    .testTarget(name: "ModelFilesTests", dependencies: ["ModelFiles"], exclude: ["Fixtures"]),
    .testTarget(
      name: "TokenizationTests", dependencies: ["Tokenization", "ModelFiles"], exclude: ["Fixtures"]),
    .testTarget(name: "TransformerTests", dependencies: ["Transformer", "ModelFiles"]),
    .testTarget(
      name: "ReferenceTests", dependencies: ["Reference", "Transformer", "ModelFiles"], exclude: ["Fixtures"]),
    .testTarget(
      name: "BenchmarkTests", dependencies: ["Benchmark", "Engine", "Kernels", "ModelFiles", "Transformer"]),
    .testTarget(name: "CommandLineTests", dependencies: ["vkinfer", "ModelFiles"]),
    .testTarget(name: "VulkanRuntimeTests", dependencies: ["VulkanRuntime", "CVulkan"]),
    .testTarget(
      name: "EngineTests",
      dependencies: ["Engine", "Kernels", "Reference", "Transformer", "VulkanRuntime", "ModelFiles"],
      exclude: ["Fixtures"]),
    .testTarget(
      name: "VKInferCTests", dependencies: ["VKInferC", "CVKInfer", "Engine", "VulkanRuntime"]),
    .testTarget(
      name: "KernelsTests",
      dependencies: ["Kernels", "Transformer", "VulkanRuntime", "CShaderInterface", "ModelFiles"]),
  ],
  swiftLanguageModes: [.v6]
)
