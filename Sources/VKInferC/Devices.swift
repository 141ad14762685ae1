import CVKInfer
import Engine
import VulkanRuntime

@c @implementation
public func vkinfer_devices(
  _ devices: UnsafeMutablePointer<vkinfer_device_info>?, _ capacity: Int, _ count: UnsafeMutablePointer<Int>?
) -> vkinfer_status {
  reporting {
    let count = try Arguments.out(count, "count")
    // Drivers need more stack than the caller may have.
    let survey = try Thread.run { try DeviceSurvey() }
    count.pointee = survey.devices.count
    guard devices != nil || capacity != 0 else { return }
    let first = UnsafeMutableRawPointer(try Arguments.out(devices, "devices"))
    guard UInt(bitPattern: capacity) >= UInt(survey.devices.count) else {
      throw Failure(
        VKINFER_ERROR_BUFFER,
        "there are \(survey.devices.count) devices, and room for \(UInt(bitPattern: capacity))")
    }
    let size = first.loadUnaligned(as: UInt32.self)
    for (index, device) in survey.devices.enumerated() {
      let place = first + index * Int(size)
      // The others are the caller's too, so they may hold anything.
      if index > 0 { place.storeBytes(of: size, as: UInt32.self) }
      try Arguments.fill(
        place.assumingMemoryBound(to: vkinfer_device_info.self),
        with: vkinfer_device_info(device, isDefault: device.index == survey.chosen), "vkinfer_device_info")
    }
  }
}

extension vkinfer_device_info {
  init(_ device: DeviceReport, isDefault: Bool) {
    self.init()
    index = UInt32(clamping: device.index)
    let kind =
      switch device.kind {
      case .discrete: VKINFER_DEVICE_DISCRETE
      case .integrated: VKINFER_DEVICE_INTEGRATED
      case .virtual: VKINFER_DEVICE_VIRTUAL
      case .cpu: VKINFER_DEVICE_CPU
      case .other: VKINFER_DEVICE_OTHER
      }
    self.kind = UInt32(kind)
    vendor_id = UInt32(clamping: device.vendorID)
    device_id = UInt32(clamping: device.deviceID)
    usable = device.unusableReason == nil ? 1 : 0
    is_default = isDefault ? 1 : 0
    memory_bytes = UInt64(clamping: device.memoryBytes)
    free_bytes = UInt64(clamping: device.freeBytes ?? 0)
    Arguments.set(&uuid, device.uuid)
    Arguments.set(&name, device.name)
    Arguments.set(&driver, device.driver)
    Arguments.set(&reason, device.unusableReason ?? "")
  }
}
