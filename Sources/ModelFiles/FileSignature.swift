/// Why the first bytes of a file are not those of a GGUF file that can be read, or nil when they are.
///
/// Most failures to open a model are the wrong kind of file: say which kind it looks like.
func reasonNotGGUF(_ bytes: UnsafeRawBufferPointer) -> String? {
  func starts(with text: String, at offset: Int = 0) -> Bool {
    bytes.dropFirst(offset).starts(with: text.utf8)
  }
  guard !bytes.isEmpty else { return "the file is empty; download it again" }

  if starts(with: "GGUF") {
    guard bytes.count >= 24 else {
      return "cut short: has \(bytes.count) bytes, not even a whole GGUF header; download it again"
    }
    let version = bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
    switch version {
    case 2, 3: return nil
    case 1: return "a GGUF file of version 1, from 2023; convert the model again with a current tool"
    case _ where (1...0xffff).contains(version.byteSwapped):
      return
        "a big-endian GGUF file; convert it to little-endian with gguf-convert-endian (PyPI package gguf)"
    default:
      return "a GGUF file of version \(version), and versions 2 and 3 are known; a newer vkinfer may read it"
    }
  }
  let convert = "convert the model to GGUF"
  if starts(with: "FUGG") {
    return "a big-endian GGUF file; convert it to little-endian with gguf-convert-endian (PyPI package gguf)"
  }
  if bytes.count > 9, starts(with: "{", at: 8), starts(with: "\0\0", at: 6) {
    return "not a GGUF file but a safetensors file, it seems; \(convert)"
  }
  if starts(with: "PK\u{3}\u{4}") {
    return "not a GGUF file but a PyTorch file or another zip archive; \(convert)"
  }
  if bytes.starts(with: [0x80, 0x02]) {
    return "not a GGUF file but an old PyTorch (pickle) file; \(convert)"
  }
  // Written as 32-bit numbers, so their letters stand in reverse.
  if ["lmgg", "fmgg", "tjgg", "algg"].contains(where: { starts(with: $0) }) {
    return "a GGML file from before GGUF (2023); convert the original model again"
  }
  if starts(with: "version https://git-lfs") {
    return "not a GGUF file but a Git LFS pointer to one; fetch the file itself with git lfs pull"
  }
  if starts(with: "<") { return "not a GGUF file but a web page, it seems; check the address it came from" }
  if bytes.starts(with: [0x1f, 0x8b]) || bytes.starts(with: [0x28, 0xb5, 0x2f, 0xfd]) {
    return "not a GGUF file but a compressed one; unpack it first"
  }
  return "not a GGUF file: it starts with the bytes \(hexadecimal(bytes.prefix(4))), not \"GGUF\""
}

private func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
  bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
}
