import Glibc

/// A file's bytes in memory, read-only, paged in by the system as they are touched.
///
/// Its size is what it was when it was opened. If another program cuts the file short afterwards, touching the
/// lost pages ends the process with SIGBUS: no reader of mapped files can avoid that. Replacing a model file by
/// renaming a new one over it, as package managers and downloaders do, is safe.
final class MappedFile: Sendable {
  nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

  init(path: String) throws(ModelFileError) {
    // Not blocking: opening a named pipe would wait for its writer.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw systemError(path, "cannot be opened") }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw systemError(path, "cannot be examined") }
    switch status.st_mode & S_IFMT {
    case S_IFREG: break
    case S_IFDIR:
      throw ModelFileError(path: path, reason: "is a directory; name the .gguf file inside it")
    default: throw ModelFileError(path: path, reason: "is a device or pipe; copy the model to a file first")
    }
    guard status.st_size > 0 else {
      throw ModelFileError(path: path, reason: "the file is empty; download it again")
    }
    guard let address = mmap(nil, status.st_size, PROT_READ, MAP_SHARED, descriptor, 0), address != MAP_FAILED
    else {
      throw systemError(path, "cannot be mapped into memory")
    }
    bytes = UnsafeRawBufferPointer(start: address, count: status.st_size)
  }

  /// Gives up the process's hold on what was read of the file, which would otherwise count as the process's memory to its
  /// end. The system's cache keeps the pages, and they come back when touched. What is small is not worth the call.
  func release(_ read: UnsafeRawBufferPointer) {
    let page = sysconf(Int32(_SC_PAGESIZE))
    guard read.count >= 1 << 20, let base = read.baseAddress else { return }
    let start = (Int(bitPattern: base) + page - 1) / page * page
    let end = (Int(bitPattern: base) + read.count) / page * page
    madvise(UnsafeMutableRawPointer(bitPattern: start), end - start, MADV_DONTNEED)
  }

  deinit {
    munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
  }
}

/// The error for a system call on `path` that just failed, from `errno`.
func systemError(_ path: String, _ what: String) -> ModelFileError {
  let hint =
    switch errno {
    case ENOENT: "no such file; check the path"
    case EACCES: "permission denied; check the file's mode and owner"
    case ENOSPC: "no space left on the disk"
    case let code: String(cString: strerror(code))
    }
  return ModelFileError(path: path, reason: "\(what): \(hint)")
}
