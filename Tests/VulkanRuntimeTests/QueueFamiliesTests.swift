import CVulkan
import Testing

@testable import VulkanRuntime

/// Which queues logical devices of one physical device get, for families as drivers have them.
struct QueueFamiliesTests {
  static let graphics = VK_QUEUE_GRAPHICS_BIT.rawValue
  static let compute = VK_QUEUE_COMPUTE_BIT.rawValue
  static let transfer = VK_QUEUE_TRANSFER_BIT.rawValue
  static let sparse = VK_QUEUE_SPARSE_BINDING_BIT.rawValue
  static let decode = VK_QUEUE_VIDEO_DECODE_BIT_KHR.rawValue

  static func families(_ families: (flags: UInt32, count: Int)...) -> QueueFamilies {
    QueueFamilies(families.map { QueueFamily(flags: $0.flags, queueCount: $0.count, timestampBits: 64) })
  }

  static let nvidia = families(
    (graphics | compute | transfer | sparse, 16), (transfer | sparse, 2), (compute | transfer | sparse, 8),
    (transfer | sparse | decode, 7), (transfer | sparse, 1))
  static let amd = families(
    (graphics | compute | transfer, 1), (compute | transfer, 4), (transfer, 2))
  static let one = families((graphics | compute | transfer, 1))

  static func place(_ family: UInt32, _ index: UInt32) -> QueuePlace {
    QueuePlace(family: family, index: index)
  }

  @Test(arguments: [nvidia, amd])
  func oneDeviceComputesOnTheFirstFamily(_ families: QueueFamilies) throws {
    let devices = try #require(families.queues(forDevices: 1))
    #expect(devices.count == 1 && devices[0].compute == Self.place(0, 0))
    let copies: UInt32 = families == Self.nvidia ? 1 : 2
    #expect(devices[0].transfer == Self.place(copies, 0) && devices[0].returning == Self.place(copies, 1))
  }

  @Test func withOneQueueItDoesAll() throws {
    let devices = try #require(Self.one.queues(forDevices: 1))
    #expect(devices == [DeviceQueues(compute: Self.place(0, 0), transfer: nil, returning: nil)])
    #expect(Self.one.queues(forDevices: 2) == nil)
    #expect(Self.families((Self.transfer, 2)).queues(forDevices: 1) == nil)
  }

  @Test func twoDevicesAreOfTwoFamilies() throws {
    for (families, second) in [(Self.nvidia, Self.place(2, 0)), (Self.amd, Self.place(1, 0))] {
      let devices = try #require(families.queues(forDevices: 2))
      #expect(devices[0] == families.queues(forDevices: 1)?[0])
      #expect(devices[1] == DeviceQueues(compute: second, transfer: nil, returning: nil))
    }
    // Whichever of them comes first.
    let turned = Self.families((Self.compute | Self.transfer, 2), (Self.graphics | Self.compute, 4))
    #expect(
      turned.queues(forDevices: 3)?.map(\.compute) == [
        Self.place(0, 0), Self.place(1, 0), Self.place(0, 1),
      ])
    #expect(turned.queues(forDevices: 4) == nil)
  }

  /// Queues of a family that draws take turns: it gives one.
  @Test func thereAreAsManyAsRunAtTheSameTime() throws {
    #expect(Self.nvidia.queues(forDevices: 10) == nil && Self.amd.queues(forDevices: 6) == nil)
    #expect(Self.families((Self.graphics | Self.compute, 16)).queues(forDevices: 2) == nil)
    let nine = try #require(Self.nvidia.queues(forDevices: 9))
    #expect(nine.map(\.compute) == [Self.place(0, 0)] + (0..<8).map { Self.place(2, $0) })
    let five = try #require(Self.amd.queues(forDevices: 5))
    #expect(five.map(\.compute) == [Self.place(0, 0)] + (0..<4).map { Self.place(1, $0) })
  }

  /// Two threads must not submit to the same queue.
  @Test func noQueueIsTwoDevices() throws {
    let copying = Self.families((Self.compute, 4), (Self.transfer, 5))
    for (families, count) in [(Self.nvidia, 9), (Self.amd, 5), (copying, 4)] {
      let devices = try #require(families.queues(forDevices: count))
      let all = devices.flatMap { [$0.compute, $0.transfer, $0.returning].compactMap(\.self) }
      #expect(Set(all).count == all.count)
      for place in all { #expect(place.index < families.families[Int(place.family)].queueCount) }
    }
    let devices = try #require(copying.queues(forDevices: 4))
    #expect(devices[2].transfer == Self.place(1, 4) && devices[2].returning == nil)
    #expect(devices[3].transfer == nil)
  }

  /// Times of all devices are read in the same way.
  @Test func otherClocksAreLeftOut() {
    var families = Self.nvidia.families
    families[2].timestampBits = 0
    #expect(QueueFamilies(families).queues(forDevices: 2) == nil)
  }
}
