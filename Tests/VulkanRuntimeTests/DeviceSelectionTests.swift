import Testing
import VulkanRuntime

struct DeviceSelectionTests {
  @Test func withoutDevicesThereIsOneClearLine() {
    do throws(VulkanError) {
      _ = try DeviceSelection.select(spec: nil, from: [])
      Issue.record("a device was selected from none")
    } catch {
      #expect(error.kind == .noDevice)
      #expect(error.description.contains("install") && !error.description.contains("\n"))
    }
  }

  @Test(.onDevice) func devicesAreFoundByIndexAndName() throws {
    let devices = try TestDevice.instance.get().physicalDevices
    let best = try DeviceSelection.select(spec: nil, from: devices)
    #expect(try DeviceSelection.select(spec: "\(best.index)", from: devices).index == best.index)
    let part = best.name.prefix(5).uppercased()
    let found = try DeviceSelection.select(spec: part, from: devices)
    #expect(found.name.uppercased().contains(part))
    for unknown in ["no such device", "-1", "\(devices.count)", "99999999999999999999"] {
      #expect(throws: VulkanError.self) { try DeviceSelection.select(spec: unknown, from: devices) }
    }
    let ranked = DeviceSelection.rank(devices)
    #expect(ranked.map(\.index).sorted() == devices.map(\.index).sorted())
    #expect(ranked.first?.index == best.index)
  }
}
