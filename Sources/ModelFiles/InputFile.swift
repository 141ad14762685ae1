import Glibc

/// A file that is read from front to back, without being mapped: whoever cuts it short meanwhile does no harm.
package final class InputFile {
  private let path: String
  private let descriptor: Int32
  /// Bytes that it had when it was opened.
  package let byteCount: Int

  package init(path: String) throws(ModelFileError) {
    self.path = path
    // Not blocking: opening a named pipe would wait for its writer.
    descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw systemError(path, "cannot be opened") }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      throw ModelFileError(path: path, reason: "is not a file")
    }
    byteCount = Int(status.st_size)
  }

  deinit { close(descriptor) }

  /// Fills all of `bytes`.
  package func read(_ bytes: UnsafeMutableRawBufferPointer) throws(ModelFileError) {
    var left = bytes
    while !left.isEmpty {
      let count = Glibc.read(descriptor, left.baseAddress, left.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw systemError(path, "cannot be read") }
      guard count > 0 else { throw ModelFileError(path: path, reason: "was cut short while it was read") }
      left = UnsafeMutableRawBufferPointer(rebasing: left.dropFirst(count))
    }
  }
}
