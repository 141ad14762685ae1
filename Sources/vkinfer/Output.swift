import Glibc

/// What a program writes: results to standard output, everything about them to standard error.
enum Output {
  /// Nobody reads what is written any more (`| head -1`): no error, but reason to stop.
  struct ReaderIsGone: Error {}

  static var errorIsTerminal: Bool { isatty(STDERR_FILENO) == 1 }

  /// Call first in the process.
  static func prepare() {
    // A closed pipe is an error of the write, not the end of the process.
    signal(SIGPIPE, SIG_IGN)
    // Where a standard descriptor is closed, the next file opened would take its number, and get what is written to
    // it. Read-only: such writes fail.
    for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 {
      _ = open("/dev/null", O_RDONLY)
    }
  }

  /// Writes text to standard output, at once and whole.
  ///
  /// - Throws: `ReaderIsGone`, or a line that says why it cannot be written.
  static func write(_ text: String) throws {
    let code = writeAll(text, to: STDOUT_FILENO)
    switch code {
    case 0: return
    case EPIPE: throw ReaderIsGone()
    default:
      let hint = code == ENOSPC ? "; free some space, or send the output elsewhere" : ""
      throw CommandError("standard output cannot be written: \(String(cString: strerror(code)))\(hint)")
    }
  }

  /// Writes one line to standard error. Failing to is no reason to end.
  static func note(_ line: String) {
    _ = writeAll(line + "\n", to: STDERR_FILENO)
  }

  /// Writes text as it is to standard error.
  static func show(_ text: String) {
    _ = writeAll(text, to: STDERR_FILENO)
  }

  /// 0, or the errno of the call that failed.
  private static func writeAll(_ text: String, to descriptor: Int32) -> Int32 {
    var text = text
    return text.withUTF8 { bytes in
      var rest = UnsafeRawBufferPointer(bytes)
      while !rest.isEmpty {
        let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
        if count >= 0 {
          rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
        } else if errno == EAGAIN {
          // Somebody made the descriptor non-blocking: wait until it takes more.
          var waiting = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
          _ = poll(&waiting, 1, -1)
        } else if errno != EINTR {
          return errno
        }
      }
      return 0
    }
  }
}
