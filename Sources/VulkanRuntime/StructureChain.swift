import CVulkan

/// Vulkan structures linked through `pNext`, each at an address that is stable until the chain dies.
///
/// Every structure given must be an extensible Vulkan structure (`sType`, then `pNext`).
final class StructureChain {
  private var structures: [UnsafeMutableRawPointer] = []

  /// The first structure, to be given as `pNext` of the call's own; nil for an empty chain.
  var head: UnsafeMutableRawPointer? { structures.first }

  /// Copies `structure` to the end of the chain and returns where it now lives.
  @discardableResult
  func append<Structure: BitwiseCopyable>(_ structure: Structure) -> UnsafeMutablePointer<Structure> {
    let copy = UnsafeMutablePointer<Structure>.allocate(capacity: 1)
    copy.initialize(to: structure)
    if let last = structures.last {
      last.assumingMemoryBound(to: VkBaseOutStructure.self).pointee.pNext =
        UnsafeMutableRawPointer(copy).assumingMemoryBound(to: VkBaseOutStructure.self)
    }
    structures.append(UnsafeMutableRawPointer(copy))
    return copy
  }

  deinit {
    for structure in structures { structure.deallocate() }
  }
}

extension String {
  /// The text of one of Vulkan's fixed-size `char` arrays, up to its terminator.
  init<CharacterArray: BitwiseCopyable>(vulkanArray array: CharacterArray) {
    self = withUnsafeBytes(of: array) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
  }
}

/// Calls one of Vulkan's two-step enumerations until the whole list fits, and returns it.
func enumerate<Element>(
  _ initial: Element, _ body: (_ count: inout UInt32, _ elements: UnsafeMutablePointer<Element>?) -> VkResult
) -> (elements: [Element], result: VkResult) {
  while true {
    var count: UInt32 = 0
    let counted = body(&count, nil)
    guard counted == VK_SUCCESS, count > 0 else { return ([], counted) }
    var elements = [Element](repeating: initial, count: Int(count))
    let result = elements.withUnsafeMutableBufferPointer { body(&count, $0.baseAddress) }
    if result == VK_INCOMPLETE { continue }
    guard result == VK_SUCCESS else { return ([], result) }
    return (Array(elements.prefix(Int(count))), result)
  }
}
