import Transformer
import VulkanRuntime

/// Which shared memory each device of a mesh reads: whatever others leave for it, they write there, and what several
/// homes need is written to each. So writes cross a link, which nobody waits for, and reads and looks at counts do not.
package struct MeshHomes: Sendable, Hashable {
  package let memory: MeshMemory
  /// The home of each device.
  package let of: [Int]
  /// Whether all devices are one physical device, and the memory its own.
  package let areOneDevice: Bool
  /// Whether a device may find in its caches what it read of a home before, in the same submission, whatever others
  /// have written there since. GPUs do so with host memory, as an H200 shows; logical devices of one have its caches in
  /// common.
  package let readsLast: Bool

  /// Host memory is one home for all; of device memory each physical device has one, which its logical devices share.
  ///
  /// - Parameter areApart: whether logical devices of one physical device do as if they were of several: for tests.
  package init(memory: MeshMemory, devices: [PhysicalDevice], areApart: Bool = false) {
    var known: [PhysicalDevice] = []
    let of = devices.map { device in
      if memory == .host { return 0 }
      if !areApart, let home = known.firstIndex(where: { $0.isSame(as: device) }) { return home }
      known.append(device)
      return known.count - 1
    }
    let areSame = !areApart && devices.allSatisfy { $0.isSame(as: devices[0]) }
    self.init(memory: memory, of: of, readsLast: memory == .host && !areSame)
  }

  /// - Parameter of: the home of each device, numbered from 0 on.
  package init(memory: MeshMemory, of: [Int], readsLast: Bool = false) {
    self.memory = memory
    self.of = of
    self.readsLast = readsLast
    areOneDevice = memory == .device && of.allSatisfy { $0 == 0 }
  }

  package var count: Int { (of.max() ?? 0) + 1 }

  /// The homes of some devices, each once.
  package func homes(of devices: Range<Int>) -> [Int] { Set(of[devices]).sorted() }

  /// The device whose memory a home is.
  package func owner(_ home: Int) -> Int { of.firstIndex(of: home) ?? 0 }

  /// The memory of all homes.
  ///
  /// - Parameter byteCount: what each home takes.
  package func allocate(devices: [Device], byteCount: (_ home: Int) -> Int) throws -> [SharedMemory] {
    try (0..<count).map { home in
      let label = "memory that devices share"
      return switch memory {
      case .host: try SharedMemory(ofHost: byteCount(home), devices: devices, label: label)
      case .device:
        try SharedMemory(of: owner(home), byteCount: byteCount(home), devices: devices, label: label)
      }
    }
  }
}
