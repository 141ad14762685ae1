import ModelFiles

/// What libFuzzer calls with each input it thinks of. Built and run by Tools/fuzz-gguf, not by `swift build`: it
/// needs every line it covers compiled with `-sanitize=fuzzer,address`.
///
/// Parsing must end in a header or an error; a header that was accepted must keep its promises, so all that a
/// loader would read through it is read here.
@c(LLVMFuzzerTestOneInput)
public func fuzzGGUF(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
  let bytes = UnsafeRawBufferPointer(start: data, count: size)
  do throws(ModelFileError) {
    let header = try GGUFHeader(parsing: bytes, path: "input.gguf")
    check(header, bytes)
  } catch {
    precondition(!error.description.contains { $0.isNewline }, "an error of more than one line")
  }
  return 0
}

private func check(_ header: GGUFHeader, _ bytes: UnsafeRawBufferPointer) {
  precondition(header.metadata.count == header.metadataKeys.count)
  for value in header.metadata.values { convert(value) }
  for tensor in header.tensors {
    precondition(header.tensor(tensor.name) == tensor)
    precondition(tensor.rows * tensor.rowBytes == tensor.byteCount)
    let start = Int(tensor.offset)
    let contents = bytes[start..<start + tensor.byteCount]
    // Every block is decoded alike; some thousands of weights are enough.
    let part = contents.prefix(max(1, 4096 / tensor.type.blockSize) * tensor.type.blockBytes)
    let weights: [Float] = dequantize(UnsafeRawBufferPointer(rebasing: part), type: tensor.type)
    precondition(weights.count <= tensor.rows * tensor.columns)
  }
}

/// Asks for `value` as everything that it is not, too.
private func convert(_ value: MetadataValue) {
  let counts = [
    value.ints?.count, value.int32s?.count, value.doubles?.count, value.floats?.count, value.bools?.count,
    value.strings?.count,
  ]
  for case let count? in counts { precondition(count == value.count) }
  precondition(value.int == nil || value.double != nil)
  precondition(value.string == nil || value.bool == nil)
}
