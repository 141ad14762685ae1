import VulkanRuntime

/// One Vulkan device: what it is and what it can do, as far as this engine cares.
public struct DeviceReport: Sendable {
  public enum Kind: String, Sendable {
    case discrete, integrated, virtual, cpu, other
  }

  /// Dot products of four packed signed bytes.
  public enum IntegerDotProduct: String, Sendable {
    /// The device has an instruction for it.
    case instruction
    /// The driver makes it from other instructions.
    case emulated
    case none
  }

  /// What `--device` and `EngineOptions.device` take.
  public let index: Int
  public let name: String
  public let kind: Kind
  /// The driver's name and version, as it tells them.
  public let driver: String
  public let vulkanVersion: String
  /// 32 hexadecimal digits, the same in every process.
  public let uuid: String
  public let vendorID: Int
  public let deviceID: Int
  /// Bytes of device-local memory.
  public let memoryBytes: Int
  /// Bytes that this process could take now; nil if the driver does not tell.
  public let freeBytes: Int?

  public let subgroupSize: Int
  /// The sizes that a pipeline may ask for; only `subgroupSize` where it may not.
  public let subgroupSizes: [Int]
  public let sharedMemoryBytes: Int
  public let maxWorkgroupInvocations: Int
  public let maxBufferBytes: Int
  /// Number types beyond 32 bits wide ones in shaders, for example "float16".
  public let arithmetic: [String]
  /// Small types that shaders load and store directly, for example "8-bit".
  public let storage: [String]
  public let integerDotProduct: IntegerDotProduct
  /// Products of matrix units, for example "16x16x16 float16 x float16 + float32 (subgroup)".
  public let matrixShapes: [String]
  /// What it can share with other devices of a mesh, for example "host memory", "opaque fd".
  public let sharedMemory: [String]
  /// Why this engine cannot use the device; nil if it can.
  public let unusableReason: String?

  init(_ device: PhysicalDevice) {
    let capabilities = device.capabilities
    index = device.index
    name = device.name
    kind = Kind(device.kind)
    driver = [device.driverName, device.driverInfo].filter { !$0.isEmpty }.joined(separator: " ")
    vulkanVersion = device.apiVersion
    uuid = device.uuid
    vendorID = Int(device.vendorID)
    deviceID = Int(device.deviceID)
    memoryBytes = Int(clamping: device.deviceMemory)
    freeBytes = device.memoryBudget().map { Int(clamping: $0.budget > $0.used ? $0.budget - $0.used : 0) }
    subgroupSize = capabilities.subgroupSize
    subgroupSizes = Self.subgroupSizes(capabilities)
    sharedMemoryBytes = capabilities.maxSharedMemory
    maxWorkgroupInvocations = capabilities.maxWorkgroupInvocations
    maxBufferBytes = Int(clamping: min(capabilities.maxBufferBytes, capabilities.maxAllocationBytes))
    arithmetic = Self.names([
      ("float16", capabilities.float16), ("bfloat16", capabilities.bfloat16),
      ("float64", capabilities.float64),
      ("int8", capabilities.int8), ("int16", capabilities.int16), ("int64", capabilities.int64),
    ])
    storage = Self.names([("8-bit", capabilities.storage8), ("16-bit", capabilities.storage16)])
    integerDotProduct =
      capabilities.integerDotProduct
      ? .instruction : capabilities.integerDotProductSupported ? .emulated : .none
    matrixShapes = capabilities.cooperativeMatrix.map(Self.text)
    sharedMemory =
      Self.names([("host memory", capabilities.externalMemoryHostAlignment != nil)])
      + MemoryHandle.allCases.filter {
        capabilities.exportsMemory.contains($0) || capabilities.importsMemory.contains($0)
      }.map(\.rawValue)
    unusableReason = device.unsupportedReason
  }

  private static func names(_ features: [(name: String, isThere: Bool)]) -> [String] {
    features.filter(\.isThere).map(\.name)
  }

  private static func subgroupSizes(_ capabilities: DeviceCapabilities) -> [Int] {
    guard capabilities.canPinSubgroupSize, capabilities.minSubgroupSize > 0 else {
      return [capabilities.subgroupSize]
    }
    // Powers of two, at most 128 by the specification.
    return (0...7).map { 1 << $0 }.filter {
      (capabilities.minSubgroupSize...max(capabilities.minSubgroupSize, capabilities.maxSubgroupSize))
        .contains($0)
    }
  }

  private static func text(_ shape: CooperativeMatrixShape) -> String {
    "\(shape.m)x\(shape.n)x\(shape.k) \(shape.a) x \(shape.b) + \(shape.c) -> \(shape.result)"
      + (shape.saturates ? ", saturating" : "") + " (\(shape.scope))"
  }
}

extension DeviceReport.Kind {
  init(_ kind: PhysicalDevice.Kind) {
    self =
      switch kind {
      case .discrete: .discrete
      case .integrated: .integrated
      case .virtual: .virtual
      case .cpu: .cpu
      case .other: .other
      }
  }
}

/// Every Vulkan device of this machine, and which one is used when none is named.
public struct DeviceSurvey: Sendable {
  /// Best first: usable ones before others, then discrete, integrated, virtual, CPU.
  public let devices: [DeviceReport]
  /// The index of the device that is used by default; nil when none can be used.
  public let chosen: Int?
  /// Why that one, or why none.
  public let reason: String
  /// What a user should know before running on it.
  public let warning: String?
  /// Messages of a Vulkan validation layer; 0 without one.
  public let validationMessageCount: Int

  /// Asks every driver.
  ///
  /// - Throws: one line when there is no Vulkan loader or no device at all.
  public init() throws {
    let instance = try VulkanInstance()
    guard !instance.physicalDevices.isEmpty else {
      // The error that a run would give.
      _ = try DeviceSelection.select(spec: nil, from: [])
      throw EngineError(.device, "no Vulkan device")
    }
    devices = DeviceSelection.rank(instance.physicalDevices).map(DeviceReport.init)
    let usable = devices.filter { $0.unusableReason == nil }
    chosen = usable.first?.index
    reason = Self.reason(usable, all: devices)
    warning =
      usable.first?.kind == .cpu
      ? "this driver runs shaders on the CPU: right results, but slow; for speed, install the Vulkan driver of a GPU"
      : nil
    validationMessageCount = instance.validationMessageCount
  }

  private static func reason(_ usable: [DeviceReport], all: [DeviceReport]) -> String {
    guard let best = usable.first else {
      let reasons = all.map { "\($0.name): \($0.unusableReason ?? "")" }.joined(separator: "; ")
      return "no device can be used (\(reasons))"
    }
    guard usable.count > 1 else {
      return all.count > 1 ? "it is the only one that can be used" : "it is the only one"
    }
    let rivals = usable.filter { $0.kind == best.kind }
    let name = { (kind: DeviceReport.Kind) in kind == .cpu ? "CPU driver" : "\(kind.rawValue) GPU" }
    guard rivals.count > 1 else {
      return "it is the only \(name(best.kind)), and those come before others"
    }
    return rivals[1].memoryBytes < best.memoryBytes
      ? "of \(rivals.count) devices of the best kind (\(name(best.kind))) it has the most memory"
      : "of \(rivals.count) devices of the best kind (\(name(best.kind))) with equal memory it is the first"
  }
}
