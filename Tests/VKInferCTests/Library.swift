import CVKInfer
import Foundation
import Testing
import VulkanRuntime

@testable import Engine
@testable import VKInferC

/// An engine, opened as a C program does, of a small model without a tokenizer.
final class Library {
  private(set) var model: OpaquePointer?
  private(set) var engine: OpaquePointer?
  private let log: LogLines?
  var generation: vkinfer_generation_options

  /// The number of a CPU driver, whose results do not depend on how many columns a product has; nil if there is none.
  static let cpuDriver: String? = {
    guard let instance = try? VulkanInstance() else { return nil }
    return instance.physicalDevices.first { $0.kind == .cpu && $0.unsupportedReason == nil }.map {
      String($0.index)
    }
  }()

  private static let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("ReferenceTests/Fixtures/llama.gguf").path

  init(
    log: LogLines? = nil, _ change: (inout vkinfer_engine_options) -> Void = { _ in }
  ) throws {
    self.log = log
    generation = vkinfer_generation_options()
    #expect(
      vkinfer_generation_options_default(&generation, MemoryLayout<vkinfer_generation_options>.size)
        == VKINFER_OK)
    generation.max_tokens = 8
    generation.ignore_end = 1
    let object = ModelObject(try LanguageModel(weightsOf: Self.path))
    model = try HandleTable.shared.withLock { try $0.insert(object) }
    var options = vkinfer_engine_options()
    #expect(vkinfer_engine_options_default(&options, MemoryLayout<vkinfer_engine_options>.size) == VKINFER_OK)
    options.context_length = 64
    options.prompt_chunk = 16
    if let log {
      options.log_user = Unmanaged.passUnretained(log).toOpaque()
      options.log = { user, _, text in
        guard let user, let text else { return }
        Unmanaged<LogLines>.fromOpaque(user).takeUnretainedValue().add(String(cString: text))
      }
    }
    change(&options)
    let status = try #require(Self.cpuDriver).withCString { device in
      options.device = device
      return vkinfer_engine_open(model, &options, &engine)
    }
    try #require(status == VKINFER_OK, "\(String(cString: vkinfer_last_error()))")
  }

  deinit {
    #expect(vkinfer_engine_close(engine) == VKINFER_OK)
    #expect(vkinfer_model_close(model) == VKINFER_OK)
  }

  static func prompt(_ index: Int) -> [Int32] { [1, 2, Int32(3 + index)] }

  func session(_ index: Int) throws -> OpaquePointer {
    var session: OpaquePointer?
    #expect(vkinfer_session_open(engine, &session) == VKINFER_OK)
    #expect(vkinfer_session_feed(session, Self.prompt(index), 3) == VKINFER_OK)
    return try #require(session)
  }

  func run(_ session: OpaquePointer) throws -> vkinfer_status {
    vkinfer_session_run(session, &generation, nil, nil)
  }

  /// Reads to the end.
  func read(_ session: OpaquePointer) throws -> (count: Int, errors: [(status: vkinfer_status, text: String)])
  {
    var token = vkinfer_token()
    token.size = UInt32(MemoryLayout<vkinfer_token>.size)
    var (count, errors) = (0, [(status: vkinfer_status, text: String)]())
    while errors.count < 10 {
      let status = vkinfer_session_next(session, 120_000, &token)
      if status == VKINFER_DONE { break }
      if status == VKINFER_OK {
        count += 1
      } else {
        errors.append((status, String(cString: vkinfer_last_error())))
      }
    }
    return (count, errors)
  }

  func tokens(_ session: OpaquePointer) throws -> [Int32] {
    var tokens = [Int32](repeating: 0, count: 64)
    var count = 0
    #expect(vkinfer_session_tokens(session, &tokens, tokens.count, &count) == VKINFER_OK)
    return Array(tokens.prefix(count))
  }

  func result(_ session: OpaquePointer) throws -> vkinfer_result {
    var result = vkinfer_result()
    result.size = UInt32(MemoryLayout<vkinfer_result>.size)
    #expect(vkinfer_session_result(session, &result) == VKINFER_OK)
    return result
  }

  func info() throws -> vkinfer_engine_info {
    var info = vkinfer_engine_info()
    info.size = UInt32(MemoryLayout<vkinfer_engine_info>.size)
    #expect(vkinfer_engine_inspect(engine, &info) == VKINFER_OK)
    return info
  }
}
