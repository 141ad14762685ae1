/// Turns whole blocks of `type` into single-precision weights.
///
/// Equal to the bit to the dequantisation of the `gguf` PyPI package: the same operations in the same order, in
/// single precision.
///
/// - Parameters:
///   - bytes: whole blocks; no alignment is needed.
///   - output: one element for each weight in `bytes`.
/// - Precondition: `bytes` is what `output.count` weights take in `type`.
package func dequantize(
  _ bytes: UnsafeRawBufferPointer, type: TensorType, into output: UnsafeMutableBufferPointer<Float>
) {
  precondition(
    type.byteCount(weights: output.count) == bytes.count,
    "\(output.count) weights of \(type.name) do not take \(bytes.count) bytes")
  switch type {
  case .f32: UnsafeMutableRawBufferPointer(output).copyMemory(from: bytes)
  case .f16: expand(bytes, type, output) { $1[0] = Float(half: $0.half(0)) }
  case .bf16: expand(bytes, type, output) { $1[0] = Float(bfloat16: $0.half(0)) }
  case .q4_0: expand(bytes, type, output, expandQ4_0)
  case .q4_1: expand(bytes, type, output, expandQ4_1)
  case .q5_0: expand(bytes, type, output, expandQ5_0)
  case .q5_1: expand(bytes, type, output, expandQ5_1)
  case .q8_0: expand(bytes, type, output, expandQ8_0)
  case .iq4_nl: expand(bytes, type, output, expandIQ4_NL)
  case .mxfp4: expand(bytes, type, output, expandMXFP4)
  case .q2_k: expand(bytes, type, output, expandQ2_K)
  case .q3_k: expand(bytes, type, output, expandQ3_K)
  case .q4_k: expand(bytes, type, output, expandQ4_K)
  case .q5_k: expand(bytes, type, output, expandQ5_K)
  case .q6_k: expand(bytes, type, output, expandQ6_K)
  case .iq4_xs: expand(bytes, type, output, expandIQ4_XS)
  }
}

/// Whole blocks of `type` as single-precision weights, in a new array.
///
/// - Precondition: `bytes` are whole blocks.
package func dequantize(_ bytes: UnsafeRawBufferPointer, type: TensorType) -> [Float] {
  let count = bytes.count / type.blockBytes * type.blockSize
  return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
    dequantize(bytes, type: type, into: UnsafeMutableBufferPointer(rebasing: buffer[..<count]))
    initialized = count
  }
}

/// Runs `block` on each block of `bytes` and its weights' place in `output`.
@inline(__always)
private func expand(
  _ bytes: UnsafeRawBufferPointer, _ type: TensorType, _ output: UnsafeMutableBufferPointer<Float>,
  _ block: (UnsafeRawPointer, UnsafeMutablePointer<Float>) -> Void
) {
  guard var source = bytes.baseAddress, var target = output.baseAddress else { return }
  let (blockBytes, blockSize) = (type.blockBytes, type.blockSize)
  for _ in 0..<output.count / blockSize {
    block(source, target)
    source += blockBytes
    target += blockSize
  }
}

/// How block formats read their fields.
extension UnsafeRawPointer {
  /// The byte at `offset`.
  func byte(_ offset: Int) -> UInt8 { load(fromByteOffset: offset, as: UInt8.self) }

  /// The 16 bits at `offset`.
  func half(_ offset: Int) -> UInt16 { loadUnaligned(fromByteOffset: offset, as: UInt16.self) }

  /// The half-precision scale at `offset`.
  func scale(_ offset: Int) -> Float { Float(half: half(offset)) }
}
