import Glibc

/// A file that appears under its name only when it is complete: until then `.partial` and the process's number follow its
/// name, and it is removed when it is given up. Where the name is a link, it is the file behind it that appears.
package final class OutputFile {
  private let path: String
  private let target: String
  private let partial: String
  private var descriptor: Int32

  package init(path: String) throws(ModelFileError) {
    self.path = path
    var status = stat()
    if stat(path, &status) == 0 {
      guard status.st_mode & S_IFMT == S_IFREG else {
        throw ModelFileError(
          path: path, reason: "is a folder, a device or a pipe, which no file can replace: name a file")
      }
      let real = realpath(path, nil)
      defer { free(real) }
      target = real.map { String(cString: $0) } ?? path
    } else {
      target = path
    }
    partial = "\(target).partial\(getpid())"
    descriptor = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw systemError(path, "cannot be written") }
  }

  /// Writes all of `bytes`.
  package func write(_ bytes: UnsafeRawBufferPointer) throws(ModelFileError) {
    var left = bytes
    while !left.isEmpty {
      let written = Glibc.write(descriptor, left.baseAddress, left.count)
      if written < 0, errno == EINTR { continue }
      guard written > 0 else { throw systemError(path, "cannot be written") }
      left = UnsafeRawBufferPointer(rebasing: left.dropFirst(written))
    }
  }

  /// Gives the complete file its name.
  package func finish() throws(ModelFileError) {
    let closed = close(descriptor)
    descriptor = -1
    guard closed == 0, rename(partial, target) == 0 else {
      let error = systemError(path, "cannot be written")
      unlink(partial)
      throw error
    }
  }

  deinit {
    guard descriptor >= 0 else { return }
    close(descriptor)
    unlink(partial)
  }
}
