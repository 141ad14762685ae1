import CVKInfer
import Engine
import Kernels
import ModelFiles
import Placement
import Transformer
import VulkanRuntime

/// What a function of the library returns instead of its result, with the text for `vkinfer_last_error`.
struct Failure: Error, Sendable {
  var status: vkinfer_status
  var text: String

  init(_ status: vkinfer_status, _ text: String) {
    self.status = status
    self.text = text
  }

  /// The status of an error of the engine.
  init(_ error: any Error) {
    switch error {
    case let failure as Failure: self = failure
    case let error as EngineError: self.init(Self.status(error.kind), error.description)
    case let error as ModelFileError: self.init(VKINFER_ERROR_FILE, error.description)
    case let error as VulkanError: self.init(Self.status(error.kind), error.description)
    case let error as PlacementError: self.init(VKINFER_ERROR_MEMORY, "\(error)")
    case let error as KernelError: self.init(VKINFER_ERROR_DEVICE, "\(error)")
    // The model cannot be split as the options say.
    case let error as MeshError: self.init(VKINFER_ERROR_ARGUMENT, "\(error)")
    default: self.init(VKINFER_ERROR_INTERNAL, "\(error)")
    }
  }

  private static func status(_ kind: EngineError.Kind) -> vkinfer_status {
    switch kind {
    case .prompt: VKINFER_ERROR_PROMPT
    case .option: VKINFER_ERROR_ARGUMENT
    case .model: VKINFER_ERROR_MODEL
    case .device: VKINFER_ERROR_DEVICE
    }
  }

  private static func status(_ kind: VulkanError.Kind) -> vkinfer_status {
    switch kind {
    case .outOfDeviceMemory, .outOfHostMemory: VKINFER_ERROR_MEMORY
    case .cacheFile: VKINFER_ERROR_FILE
    case .noLoader, .noDevice, .deviceLost, .unsupported, .failed: VKINFER_ERROR_DEVICE
    }
  }

  /// Its status, after its text became that of the calling thread's last error.
  func report() -> vkinfer_status {
    var text = text
    text.withUTF8 { bytes in
      bytes.withMemoryRebound(to: CChar.self) { characters in
        if let start = characters.baseAddress { set_thread_error(start, characters.count) }
      }
    }
    return status
  }
}

/// Runs the body of a function of the library: what it throws becomes the result.
func answering(_ body: () throws -> vkinfer_status) -> vkinfer_status {
  do { return try body() } catch { return Failure(error).report() }
}

/// The same for one that has no other results than errors.
func reporting(_ body: () throws -> Void) -> vkinfer_status {
  answering {
    try body()
    return VKINFER_OK
  }
}
