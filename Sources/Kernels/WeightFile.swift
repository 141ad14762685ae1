import CReadRing
import Glibc

/// Why weights could not be read while a model ran, in one line.
package struct WeightReadError: Error, CustomStringConvertible, Sendable {
  package let description: String
}

/// An open file of weights, and what it was when it was opened.
struct WeightFile: Sendable {
  let path: String
  /// Reads through the page cache.
  let descriptor: Int32
  /// Reads whole pages past it; negative where the file system cannot.
  let direct: Int32
  /// Whether whole pages are read past the page cache.
  private(set) var isDirect: Bool
  let size: Int
  private let modified: timespec

  init(path: String, usesDirect: Bool) throws {
    self.path = path
    descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Self.error(path, "cannot be opened", errno) }
    direct = usesDirect ? read_open_direct(path) : -1
    isDirect = direct >= 0
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let number = errno
      Glibc.close(descriptor)
      if direct >= 0 { Glibc.close(direct) }
      throw Self.error(path, "cannot be examined", number)
    }
    (size, modified) = (Int(status.st_size), status.st_mtim)
  }

  func close() {
    Glibc.close(descriptor)
    if direct >= 0 { Glibc.close(direct) }
  }

  /// Reads through the page cache from now on.
  mutating func giveUpDirect() { isDirect = false }

  /// Throws if the file is no longer what it was. One that another has taken the name of is: it stays open.
  func check() throws {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw Self.error(path, "cannot be examined", errno) }
    guard Int(status.st_size) == size, status.st_mtim.tv_sec == modified.tv_sec,
      status.st_mtim.tv_nsec == modified.tv_nsec
    else {
      throw WeightReadError(
        description: "\(path): the file was changed while its weights are read from it; load the model again")
    }
  }

  /// What a read at `offset` that gave `result`, an error number below zero or no bytes, means.
  func failure(at offset: UInt64, result: Int) -> WeightReadError {
    result == 0
      ? WeightReadError(
        description:
          "\(path): ends at byte \(offset): the file was cut short while in use; load the model again")
      : Self.error(path, "cannot be read at byte \(offset)", Int32(-result), advice: "; check the disk")
  }

  private static func error(
    _ path: String, _ what: String, _ number: Int32, advice: String = ""
  ) -> WeightReadError {
    WeightReadError(description: "\(path): \(what): \(String(cString: strerror(number)))\(advice)")
  }
}
