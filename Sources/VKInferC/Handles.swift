import CVKInfer
import Engine
import Glibc
import VulkanRuntime

/// What a handle stands for.
protocol HandleObject: AnyObject, Sendable {
  static var kind: UInt { get }
  static var name: String { get }
  /// Whether it has threads, which a process that was forked lacks.
  static var hasThreads: Bool { get }
}

/// All open objects. A handle is no address but a place in this table, how often that place was used, and the kind of
/// object: whatever a caller hands over, it is found here or it is an error.
struct HandleTable: ~Copyable {
  private struct Place {
    var object: (any HandleObject)?
    var process: pid_t = 0
    var use: UInt = 0
  }

  private var places: [Place] = []
  private var free: [Int] = []

  private static let kindBits: UInt = 4
  private static let indexBits: UInt = 24

  static let shared = Guarded(HandleTable())

  private init() {}

  private static func handle(index: Int, use: UInt, kind: UInt) -> OpaquePointer? {
    OpaquePointer(bitPattern: (use << indexBits | UInt(index)) << kindBits | kind)
  }

  /// - Throws: when there are 16 million handles.
  mutating func insert<Object: HandleObject>(_ object: Object) throws -> OpaquePointer {
    let index = free.popLast() ?? places.count
    guard index < 1 << Self.indexBits else {
      throw Failure(VKINFER_ERROR_MEMORY, "too many handles are open: close some")
    }
    if index == places.count { places.append(Place()) }
    places[index].object = object
    places[index].process = getpid()
    places[index].use += 1
    guard let handle = Self.handle(index: index, use: places[index].use, kind: Object.kind) else {
      throw Failure(VKINFER_ERROR_INTERNAL, "a handle came out as NULL")
    }
    return handle
  }

  private func index<Object: HandleObject>(_ handle: OpaquePointer?, _: Object.Type) throws -> Int {
    let wrong = { (what: String) in Failure(VKINFER_ERROR_HANDLE, "\(Object.name): \(what)") }
    guard let handle else { throw wrong("the handle is NULL") }
    let bits = UInt(bitPattern: handle)
    guard bits & (1 << Self.kindBits - 1) == Object.kind else { throw wrong("this is no handle of one") }
    let index = Int(bits >> Self.kindBits & (1 << Self.indexBits - 1))
    guard places.indices.contains(index), places[index].object is Object,
      places[index].use == bits >> (Self.kindBits + Self.indexBits)
    else { throw wrong("the handle is closed, or was never open") }
    guard !Object.hasThreads || places[index].process == getpid() else {
      throw Failure(VKINFER_ERROR_STATE, "\(Object.name): it was opened before this process was forked")
    }
    return index
  }

  func find<Object: HandleObject>(_ handle: OpaquePointer?, _ type: Object.Type) throws -> Object {
    guard let object = places[try index(handle, type)].object as? Object else {
      throw Failure(VKINFER_ERROR_HANDLE, "\(Object.name): the handle is closed")
    }
    return object
  }

  /// Takes a handle out, if `isAllowed`.
  mutating func remove<Object: HandleObject>(
    _ handle: OpaquePointer?, _ type: Object.Type, isAllowed: (Object) throws -> Void = { _ in }
  ) throws -> Object {
    let object = try find(handle, type)
    try isAllowed(object)
    let index = try index(handle, type)
    places[index].object = nil
    free.append(index)
    return object
  }

  /// Takes out every open object of this process.
  mutating func removeAll<Object: HandleObject>(_: Object.Type) -> [Object] {
    var removed: [Object] = []
    for index in places.indices where places[index].process == getpid() {
      guard let object = places[index].object as? Object else { continue }
      removed.append(object)
      places[index].object = nil
      free.append(index)
    }
    return removed
  }
}

/// The object of a handle.
func find<Object: HandleObject>(_ handle: OpaquePointer?, _ type: Object.Type) throws -> Object {
  try HandleTable.shared.withLock { try $0.find(handle, type) }
}

/// A model that is open.
final class ModelObject: HandleObject {
  static let kind: UInt = 1
  static let name = "model"
  static let hasThreads = false
  let model: LanguageModel

  init(_ model: LanguageModel) { self.model = model }
}
