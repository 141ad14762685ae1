import CVulkan
import Glibc

/// The driver's compiled pipelines, kept in a file from one process to the next.
///
/// The file is named after device and driver; it holds a header of our own and the driver's bytes. One that is
/// truncated, damaged or another's is ignored, since a driver may trust what it is given.
final class PipelineCache: Sendable {
  /// The file; nil if nothing is kept.
  let path: String?
  let context: DeviceContext
  nonisolated(unsafe) let handle: VkPipelineCache

  init(context: DeviceContext, directory: String?) throws(VulkanError) {
    let physical = context.physical
    path = directory.map { directory in
      func hex(_ value: UInt32) -> String { String(value, radix: 16) }
      return directory + "/pipelines-\(hex(physical.vendorID))-\(hex(physical.deviceID))-"
        + "\(hex(physical.driverVersion))-\(physical.pipelineCacheUUID).cache"
    }
    let kept = path.flatMap { readFile($0) }.flatMap { PipelineCacheFile.payload(of: $0) } ?? []
    var created: VkPipelineCache?
    func create(_ initial: [UInt8]) -> VkResult {
      initial.withUnsafeBytes { bytes in
        var info = VkPipelineCacheCreateInfo()
        info.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO
        info.initialDataSize = bytes.count
        info.pInitialData = bytes.baseAddress
        return context.functions.pointee.vkCreatePipelineCache(context.handle, &info, nil, &created)
      }
    }
    var result = create(kept)
    if result != VK_SUCCESS, !kept.isEmpty { result = create([]) }
    try context.check(result, "vkCreatePipelineCache")
    guard let created else {
      throw VulkanError(VK_ERROR_UNKNOWN, "vkCreatePipelineCache", device: context.name)
    }
    self.context = context
    handle = created
  }

  deinit {
    context.functions.pointee.vkDestroyPipelineCache(context.handle, handle, nil)
  }

  /// The driver's bytes as they are now.
  func data() throws(VulkanError) -> [UInt8] {
    // Between the two calls another thread may add a pipeline: then the answer is incomplete and asked for again.
    while true {
      var size = 0
      try context.check(
        context.functions.pointee.vkGetPipelineCacheData(context.handle, handle, &size, nil),
        "vkGetPipelineCacheData")
      var bytes = [UInt8](repeating: 0, count: size)
      let result = bytes.withUnsafeMutableBytes { buffer in
        context.functions.pointee.vkGetPipelineCacheData(context.handle, handle, &size, buffer.baseAddress)
      }
      if result == VK_INCOMPLETE { continue }
      try context.check(result, "vkGetPipelineCacheData")
      return Array(bytes.prefix(size))
    }
  }
}

extension Device {
  /// The file that keeps compiled pipelines; nil without a `pipelineCacheDirectory`.
  package var pipelineCachePath: String? { pipelineCache.path }

  /// Writes the pipelines compiled so far to the cache file, whole or not at all; makes the directory if need be.
  /// Does nothing without a `pipelineCacheDirectory`. Throws `.cacheFile` when it cannot be written.
  package func savePipelineCache() throws(VulkanError) {
    guard let path = pipelineCache.path else { return }
    let file = PipelineCacheFile.file(payload: try pipelineCache.data())
    if let reason = replaceFile(path, with: file) {
      throw VulkanError(
        kind: .cacheFile,
        description: "cannot write the pipeline cache \(path): \(reason); check the folder's permissions")
    }
  }
}

extension Device {
  /// What was kept beside the pipelines under the name `kind`, for this device and driver; nil if nothing whole is there.
  package func keptBytes(_ kind: String) -> [UInt8]? {
    pipelineCache.path.flatMap { readFile($0 + "." + kind) }.flatMap { PipelineCacheFile.payload(of: $0) }
  }

  /// Keeps `payload` beside the pipelines, whole or not at all. Does nothing without a `pipelineCacheDirectory`.
  package func keep(_ payload: [UInt8], as kind: String) throws(VulkanError) {
    guard let path = pipelineCache.path.map({ $0 + "." + kind }) else { return }
    if let reason = replaceFile(path, with: PipelineCacheFile.file(payload: payload)) {
      throw VulkanError(
        kind: .cacheFile, description: "cannot write \(path): \(reason); check the folder's permissions")
    }
  }
}

/// The format of the cache file: magic, length and checksum of the payload (64-bit little-endian each), payload.
enum PipelineCacheFile {
  private static let magic = Array("VKINFPC1".utf8)
  private static let headerBytes = 24

  static func file(payload: [UInt8]) -> [UInt8] {
    magic + bytes(UInt64(payload.count)) + bytes(checksum(payload[...])) + payload
  }

  /// What the file holds; nil unless the file is one of ours, and whole.
  static func payload(of file: [UInt8]) -> [UInt8]? {
    guard file.count >= headerBytes, Array(file.prefix(8)) == magic else { return nil }
    let payload = file[headerBytes...]
    guard Array(file[8..<16]) == bytes(UInt64(payload.count)),
      Array(file[16..<24]) == bytes(checksum(payload))
    else {
      return nil
    }
    return Array(payload)
  }

  private static func bytes(_ value: UInt64) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }

  /// FNV-1a.
  private static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    bytes.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}

/// A file's contents; nil if there is none that can be read.
private func readFile(_ path: String) -> [UInt8]? {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { return nil }
  defer { close(descriptor) }
  var status = stat()
  guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
  // No driver's cache comes near; more is not ours and would only cost memory.
  guard status.st_size <= 1 << 30 else { return nil }
  var contents = [UInt8](repeating: 0, count: Int(status.st_size))
  var length = 0
  while length < contents.count {
    let count = contents.withUnsafeMutableBytes {
      read(descriptor, $0.baseAddress! + length, $0.count - length)
    }
    guard count > 0 else { return nil }
    length += count
  }
  return contents
}

/// Puts a whole new file at `path`, or leaves what was there. Returns why it could not, or nil.
private func replaceFile(_ path: String, with contents: [UInt8]) -> String? {
  func reason() -> String { String(cString: strerror(errno)) }
  let directory = path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
  for depth in directory.indices {
    let parent = directory[...depth].joined(separator: "/")
    if !parent.isEmpty, mkdir(parent, 0o700) != 0, errno != EEXIST, access(parent, F_OK) != 0 {
      return reason()
    }
  }
  var temporary = Array((path + ".XXXXXX").utf8CString)
  let descriptor = mkstemp(&temporary)
  guard descriptor >= 0 else { return reason() }
  var written = 0
  while written < contents.count {
    let count = contents.withUnsafeBytes { write(descriptor, $0.baseAddress! + written, $0.count - written) }
    if count <= 0 { break }
    written += count
  }
  guard written == contents.count, close(descriptor) == 0, rename(temporary, path) == 0 else {
    let why = reason()
    unlink(temporary)
    return why
  }
  return nil
}
