import Kernels
import Transformer
import VulkanRuntime

/// Pages of the KV cache between the devices and the host, for saved states.

extension ModelRunner {
  package var pageByteCount: Int { kvCache.pageByteCount }

  package func readPages(_ pages: [PagePlace], into bytes: UnsafeMutableRawBufferPointer) throws {
    let size = pageByteCount
    let buffer = try device.makeBuffer(
      byteCount: pages.count * size, memory: .download, label: "pages of the KV cache")
    try runAlone { commands in
      commands.barrier()
      for (index, place) in pages.enumerated() {
        guard case .device(let page) = place else { continue }
        kvCache.recordRead(commands, page: page, to: buffer, at: index * size)
      }
      // What was moved to host memory before is made visible, too.
      commands.barrierToHost()
    }
    for (index, place) in pages.enumerated() {
      var source = (buffer: buffer, offset: index * size)
      if case .host(let page) = place { source = try hostPages.place(of: page) }
      guard let contents = source.buffer.contents else { continue }
      UnsafeMutableRawBufferPointer(rebasing: bytes[index * size..<(index + 1) * size])
        .copyMemory(from: UnsafeRawBufferPointer(start: contents + source.offset, count: size))
    }
  }

  package func writePages(_ pages: [UInt32], from bytes: UnsafeRawBufferPointer) throws {
    let size = pageByteCount
    let buffer = try device.makeBuffer(
      byteCount: pages.count * size, memory: .upload, label: "pages of the KV cache")
    buffer.contents?.copyMemory(from: bytes.baseAddress!, byteCount: pages.count * size)
    try runAlone { commands in
      commands.barrier()
      for (index, page) in pages.enumerated() {
        kvCache.recordWrite(commands, page: page, from: buffer, at: index * size)
      }
      commands.barrier()
    }
  }

  /// Runs commands when all steps are done, and waits for them.
  private func runAlone(_ record: (CommandBuffer) throws -> Void) throws {
    try drain()
    let finished = try device.makeSemaphore()
    try submitPages(signal: [(finished, 1)], record)
    try wait(until: finished, reaches: 1)
  }
}

extension MeshRunner {
  /// Which part of a page of the model a device has.
  private struct PageShare {
    /// Bytes of a page on the device, and of its keys, or its values, of each layer.
    var byteCount: Int
    var pieceBytes: Int
    /// Where each of these pieces lies in the model's page.
    var places: [Int]
  }

  private var shares: [ModelShare] { runners.map(\.model.program.share) }

  private var kvHeadCount: Int { shares.map(\.kvHeads.upperBound).max() ?? 0 }

  /// Bytes of the keys, or the values, of one kv head of a layer in a page.
  private var headBytes: Int {
    runners[0].pageByteCount / (2 * shares[0].layers.count * shares[0].kvHeads.count)
  }

  package var pageByteCount: Int {
    2 * (shares.map(\.layers.upperBound).max() ?? 0) * kvHeadCount * headBytes
  }

  private func pageShare(_ device: Int) -> PageShare {
    let (share, headBytes, kvHeadCount) = (shares[device], headBytes, kvHeadCount)
    return PageShare(
      byteCount: runners[device].pageByteCount, pieceBytes: headBytes * share.kvHeads.count,
      places: (2 * share.layers.lowerBound..<2 * share.layers.upperBound).map {
        headBytes * ($0 * kvHeadCount + share.kvHeads.lowerBound)
      })
  }

  package func readPages(_ pages: [PagePlace], into bytes: UnsafeMutableRawBufferPointer) throws {
    try checkWorks()
    let (shares, size) = (shares, pageByteCount)
    for (device, share) in shares.enumerated() {
      // Ranks that share a kv head have the same of it: it is read once.
      let isKnown = shares[..<device].contains { $0.layers == share.layers && $0.kvHeads == share.kvHeads }
      guard !isKnown else { continue }
      let part = pageShare(device)
      try withBytes(pages.count * part.byteCount) { own in
        try attempt(device) { try $0.readPages(pages, into: own) }
        for page in pages.indices {
          for (piece, place) in part.places.enumerated() {
            let source = own.baseAddress! + page * part.byteCount + piece * part.pieceBytes
            (bytes.baseAddress! + page * size + place).copyMemory(from: source, byteCount: part.pieceBytes)
          }
        }
      }
    }
  }

  package func writePages(_ pages: [UInt32], from bytes: UnsafeRawBufferPointer) throws {
    try checkWorks()
    let size = pageByteCount
    for device in runners.indices {
      let part = pageShare(device)
      try withBytes(pages.count * part.byteCount) { own in
        for page in pages.indices {
          for (piece, place) in part.places.enumerated() {
            let target = own.baseAddress! + page * part.byteCount + piece * part.pieceBytes
            target.copyMemory(from: bytes.baseAddress! + page * size + place, byteCount: part.pieceBytes)
          }
        }
        try attempt(device) { try $0.writePages(pages, from: UnsafeRawBufferPointer(own)) }
      }
    }
  }

  private func withBytes(_ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws -> Void) throws {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
    defer { bytes.deallocate() }
    try body(bytes)
  }
}
