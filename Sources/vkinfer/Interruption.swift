import Glibc
import Synchronization

/// Ctrl-C, or a signal to terminate: the first asks the work to end with what there is, a second one ends the process.
enum Interruption {
  /// The signal that came; 0 for none.
  private static let signal = Atomic<Int32>(0)

  /// The exit code of a program that was interrupted: 128 and the signal's number.
  static var exitCode: Int32 { 128 + signal.load(ordering: .relaxed) }

  /// Whether a signal came since `watch`.
  static var isRequested: Bool { signal.load(ordering: .relaxed) != 0 }

  /// From now on a signal only sets `isRequested`, once.
  static func watch() {
    // Made here, since a signal handler must not be the first to touch it.
    signal.store(0, ordering: .relaxed)
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { Interruption.signal.store($0, ordering: .relaxed) }
    action.sa_flags = Int32(bitPattern: UInt32(SA_RESETHAND)) | Int32(SA_RESTART)
    for number in [SIGINT, SIGTERM] { sigaction(number, &action, nil) }
  }

  /// A mapped file that another program cuts short while it is read ends the process, as nothing else can; but with a line.
  static func reportLostPages() {
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in
      let line: StaticString =
        "error: a file was cut short while it was read: start again once it is whole and nothing writes to it\n"
      _ = write(STDERR_FILENO, line.utf8Start, line.utf8CodeUnitCount)
      _exit(1)
    }
    sigaction(SIGBUS, &action, nil)
  }
}
