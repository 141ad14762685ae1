import CPCRE2

/// A compiled regular expression over UTF-8, in PCRE2's UTF and Unicode-property mode.
///
/// Compiled code is never changed after `init` and may be used from several threads at once; what a search writes to
/// is a `Scratch`, of which each caller has its own.
final class Pattern: @unchecked Sendable {
  private let code: OpaquePointer

  /// - Throws: `TokenizerError` with PCRE2's message when `source` is not a pattern, or memory is exhausted.
  init(_ source: String) throws(TokenizerError) {
    var source = source
    var errorCode: Int32 = 0
    var errorOffset = 0
    let compiled = source.withUTF8 { text in
      pcre2_compile_8(text.baseAddress, text.count, PCRE2_UTF | PCRE2_UCP, &errorCode, &errorOffset, nil)
    }
    guard let compiled else {
      throw TokenizerError(
        "PCRE2 rejects the pre-tokenizer pattern \(source) at byte \(errorOffset): \(Self.message(errorCode))"
      )
    }
    code = compiled
    // Where PCRE2 was built without its just-in-time compiler this fails and searches are interpreted.
    _ = pcre2_jit_compile_8(code, PCRE2_JIT_COMPLETE)
  }

  deinit {
    pcre2_code_free_8(code)
  }

  private static func message(_ errorCode: Int32) -> String {
    var buffer = [UInt8](repeating: 0, count: 256)
    guard pcre2_get_error_message_8(errorCode, &buffer, buffer.count) >= 0 else {
      return "error \(errorCode)"
    }
    return String(decoding: buffer.prefix { $0 != 0 }, as: UTF8.self)
  }

  /// Where a search leaves the bounds of its match. One caller at a time.
  struct Scratch: ~Copyable {
    fileprivate let matchData: OpaquePointer?

    init() {
      matchData = pcre2_match_data_create_8(1, nil)
    }

    deinit {
      pcre2_match_data_free_8(matchData)
    }
  }

  /// The first non-empty match in `text` that starts at `offset` or later, in bytes from the start of `text`.
  ///
  /// Look-behind and look-ahead see all of `text` and nothing outside it. `text` must be valid UTF-8 and `offset` on
  /// a character boundary. A search that PCRE2 gives up on, for a limit or for lack of memory, finds nothing.
  func firstMatch(in text: UnsafeBufferPointer<UInt8>, from offset: Int, scratch: borrowing Scratch) -> Range<
    Int
  >? {
    guard let matchData = scratch.matchData else { return nil }
    let status = pcre2_match_8(
      code, text.baseAddress, text.count, offset, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, matchData, nil)
    guard status > 0, let bounds = pcre2_get_ovector_pointer_8(matchData), bounds[0] >= offset,
      bounds[0] < bounds[1]
    else { return nil }
    return bounds[0]..<bounds[1]
  }
}
