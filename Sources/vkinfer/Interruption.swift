import Glibc
import Synchronization

/// Ctrl-C: the first asks the work to end with what there is, a second one ends the process.
enum Interruption {
  private static let flag = Atomic<Bool>(false)

  /// The exit code of a program that was interrupted: 128 and the signal's number.
  static let exitCode: Int32 = 128 + SIGINT

  /// Whether Ctrl-C was pressed since `watch`.
  static var isRequested: Bool { flag.load(ordering: .relaxed) }

  /// From now on Ctrl-C only sets `isRequested`, once.
  static func watch() {
    // Made here, since a signal handler must not be the first to touch it.
    flag.store(false, ordering: .relaxed)
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in Interruption.flag.store(true, ordering: .relaxed) }
    action.sa_flags = Int32(bitPattern: UInt32(SA_RESETHAND)) | Int32(SA_RESTART)
    sigaction(SIGINT, &action, nil)
  }
}
