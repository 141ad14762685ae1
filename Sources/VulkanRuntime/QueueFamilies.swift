import CVulkan

/// Queues of a physical device that can do the same.
struct QueueFamily: Sendable, Hashable {
  /// VkQueueFlags.
  var flags: UInt32
  var queueCount: Int
  /// Valid bits of their timestamps; 0 where they have none.
  var timestampBits: Int

  var computes: Bool { queueCount > 0 && flags & VK_QUEUE_COMPUTE_BIT.rawValue != 0 }
  var draws: Bool { flags & VK_QUEUE_GRAPHICS_BIT.rawValue != 0 }

  /// Families for video and optical flow can copy too, but are not meant for it.
  var onlyCopies: Bool {
    let copies = VK_QUEUE_TRANSFER_BIT.rawValue | VK_QUEUE_SPARSE_BINDING_BIT.rawValue
    return queueCount > 0 && flags & VK_QUEUE_TRANSFER_BIT.rawValue != 0 && flags & ~copies == 0
  }
}

/// One queue of a physical device.
struct QueuePlace: Sendable, Hashable {
  var family: UInt32
  /// Which of its family's.
  var index: UInt32
}

/// The queues of one logical device.
struct DeviceQueues: Sendable, Hashable {
  var compute: QueuePlace
  /// One that only copies: its copies run beside the compute queue's work. Nil where none is left.
  var transfer: QueuePlace?
  /// A second one, for copies to the host.
  var returning: QueuePlace?
}

/// The families of a physical device's queues, in the driver's order.
struct QueueFamilies: Sendable, Hashable {
  let families: [QueueFamily]

  init(_ families: [QueueFamily]) { self.families = families }

  /// The first that computes.
  var compute: Int? { families.firstIndex(where: \.computes) }

  /// The queues of so many logical devices, whose kernels can run at the same time; nil where there are not enough.
  ///
  /// The first has what it would have alone. Queues of a family that draws take turns, as an H200 shows, and those of
  /// different families do not, nor do those of a family that only computes: so each family that computes gives one,
  /// and those that do not draw give all they have after that.
  func queues(forDevices count: Int) -> [DeviceQueues]? {
    guard let compute else { return nil }
    let computing =
      [compute]
      + families.indices.filter {
        // Times of all logical devices are read in the same way.
        $0 != compute && families[$0].computes
          && families[$0].timestampBits == families[compute].timestampBits
      }
    var places = computing.map { QueuePlace(family: UInt32($0), index: 0) }
    for family in computing where !families[family].draws {
      places += (1..<families[family].queueCount).map {
        QueuePlace(family: UInt32(family), index: UInt32($0))
      }
    }
    guard places.count >= count else { return nil }
    let copying = families.firstIndex(where: \.onlyCopies)
    var copies = copying.map { family in
      (0..<families[family].queueCount).map { QueuePlace(family: UInt32(family), index: UInt32($0)) }
    }?.makeIterator()
    return places.prefix(count).map {
      DeviceQueues(compute: $0, transfer: copies?.next(), returning: copies?.next())
    }
  }
}
