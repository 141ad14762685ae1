import ArgumentParser
import Engine

/// `vkinfer devices`: what there is to run on.
struct Devices: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the Vulkan devices, best first, and say which one would be used.")

  @Flag(help: "Write one JSON object.")
  var json = false

  func run() throws {
    let survey = try DeviceSurvey()
    try Output.write(json ? Self.object(survey).text + "\n" : Self.table(survey))
    if survey.chosen == nil { throw CommandError(survey.reason) }
    try LoadedEngine.checkValidation(messages: survey.validationMessageCount)
  }

  private static func table(_ survey: DeviceSurvey) -> String {
    var text = ""
    for device in survey.devices {
      text += "\(device.index == survey.chosen ? "*" : " ") \(device.index)  \(device.name)\n"
      var rows = [
        ("kind", kindText(device.kind)), ("driver", device.driver.isEmpty ? "unknown" : device.driver),
        ("Vulkan", device.vulkanVersion),
        (
          "memory",
          Format.bytes(device.memoryBytes) + (device.freeBytes.map { ", \(Format.bytes($0)) free" } ?? "")
        ),
      ]
      if let reason = device.unusableReason {
        rows.append(("cannot be used", reason))
      } else {
        rows += abilities(device)
      }
      for (label, value) in rows { text += "     \(Format.pad(label, 18))\(value)\n" }
      text += "\n"
    }
    if let chosen = survey.chosen {
      text += "device \(chosen) is used unless --device says otherwise: \(survey.reason)\n"
    }
    if let warning = survey.warning { text += "warning: \(warning)\n" }
    return text
  }

  private static func abilities(_ device: DeviceReport) -> [(String, String)] {
    let sizes = device.subgroupSizes
    let subgroups =
      sizes.count == 1
      ? "of \(sizes[0])"
      : "of \(device.subgroupSize), or as asked for: \(sizes.map(String.init).joined(separator: ", "))"
    var rows = [
      ("subgroups", subgroups),
      (
        "workgroups",
        "up to \(device.maxWorkgroupInvocations) invocations, \(device.sharedMemoryBytes / 1024) KiB shared"
      ),
      ("largest buffer", Format.bytes(device.maxBufferBytes)),
      ("arithmetic", device.arithmetic.isEmpty ? "32 bits only" : device.arithmetic.joined(separator: ", ")),
      ("small storage", device.storage.isEmpty ? "none" : device.storage.joined(separator: ", ")),
      ("int8 dot product", device.integerDotProduct.rawValue),
    ]
    rows.append(("matrix units", device.matrixShapes.first ?? "none"))
    rows += device.matrixShapes.dropFirst().map { ("", $0) }
    rows.append(
      ("shared memory", device.sharedMemory.isEmpty ? "none" : device.sharedMemory.joined(separator: ", ")))
    return rows
  }

  private static func kindText(_ kind: DeviceReport.Kind) -> String {
    switch kind {
    case .discrete: "discrete GPU"
    case .integrated: "integrated GPU"
    case .virtual: "virtual GPU"
    case .cpu: "CPU driver"
    case .other: "other"
    }
  }

  private static func object(_ survey: DeviceSurvey) -> JSON {
    .object([
      ("chosen", .optional(survey.chosen)),
      ("reason", .string(survey.reason)),
      ("warning", .optional(survey.warning)),
      ("devices", .array(survey.devices.map(object))),
    ])
  }

  private static func object(_ device: DeviceReport) -> JSON {
    .object([
      ("index", .int(device.index)),
      ("name", .string(device.name)),
      ("kind", .string(device.kind.rawValue)),
      ("driver", .string(device.driver)),
      ("vulkan", .string(device.vulkanVersion)),
      ("uuid", .string(device.uuid)),
      ("vendor_id", .int(device.vendorID)),
      ("device_id", .int(device.deviceID)),
      ("memory_bytes", .int(device.memoryBytes)),
      ("free_bytes", .optional(device.freeBytes)),
      ("subgroup_size", .int(device.subgroupSize)),
      ("subgroup_sizes", .array(device.subgroupSizes.map(JSON.int))),
      ("shared_memory_bytes", .int(device.sharedMemoryBytes)),
      ("max_workgroup_invocations", .int(device.maxWorkgroupInvocations)),
      ("max_buffer_bytes", .int(device.maxBufferBytes)),
      ("arithmetic", .array(device.arithmetic.map(JSON.string))),
      ("storage", .array(device.storage.map(JSON.string))),
      ("int8_dot_product", .string(device.integerDotProduct.rawValue)),
      ("matrix_shapes", .array(device.matrixShapes.map(JSON.string))),
      ("shared_memory", .array(device.sharedMemory.map(JSON.string))),
      ("usable", .bool(device.unusableReason == nil)),
      ("unusable_reason", .optional(device.unusableReason)),
    ])
  }
}
