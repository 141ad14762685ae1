/// The patterns behind a pre-tokenizer name, as the `pre_tokenizer` of the models' published tokenizer.json states
/// them.
///
/// White space is spelled out (`space`): there `\s` is Unicode's White_Space, and PCRE2's is not quite. Unicode
/// normalisation, which some of those files ask for (Qwen, MPT, Command R: NFC), is not applied, so that decoding
/// gives back the very text that was encoded.
struct PreTokenizerDefinition: Sendable {
  /// The names that GGUF files use.
  let names: [String]
  /// Patterns applied one after another.
  let stages: [String]
  var ignoresMerges = false
  var addsBOSByDefault = false

  static let all: [PreTokenizerDefinition] = [
    PreTokenizerDefinition(
      names: [
        "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
        "jina-v5-nano",
      ],
      stages: [words(digits: "{1,3}")], ignoresMerges: true, addsBOSByDefault: true),
    PreTokenizerDefinition(names: ["dbrx", "smaug-bpe"], stages: [words(digits: "{1,3}")]),
    PreTokenizerDefinition(
      names: [
        "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "hunyuan", "megrez", "solar-open",
      ],
      stages: [words(digits: "")]),
    PreTokenizerDefinition(
      names: [
        "gpt-2", "phi-2", "phi", "mpt", "olmo", "jais", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de",
        "gigachat",
        "a.x-4.0", "mellum", "modern-bert", "trillion", "granite-docling", "exaone4",
      ],
      stages: [gpt2]),
    PreTokenizerDefinition(
      names: ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
      stages: [#"\p{N}"#, gpt2]),
    // Published, the third stage is "digits" of the text in the byte-level alphabet: the ASCII ones, and the six bytes
    // that the alphabet writes ² ³ ¹ ¼ ½ ¾. No merge of a vocabulary trained so can hold those, cut out or not.
    PreTokenizerDefinition(
      names: ["falcon"],
      stages: [#"[\p{P}$+<=>^~|`]+"#, gpt2, "[0-9]+", "[0-9][0-9][0-9]"]),
    // What files from before pre-tokenizers had names were read with: falcon's, except for the backquote.
    PreTokenizerDefinition(
      names: ["default"],
      stages: [#"[\p{P}$+<=>^~|]+"#, gpt2, #"\p{N}+"#, "[0-9][0-9][0-9]"]),
    PreTokenizerDefinition(
      names: ["deepseek-coder"],
      stages: [
        #"[\r\n]"#, "\(anySpace)?\\p{L}+", "\(anySpace)?\\p{P}+",
        #"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"#, #"\p{N}"#,
      ]),
    PreTokenizerDefinition(
      names: ["deepseek-llm"],
      stages: [
        #"[\r\n]"#, "\(anySpace)?[\(casedLetters)]+",
        "\(anySpace)?" + #"[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+"#,
        // Published as `\s+$`. The look-behind keeps PCRE2's interpreter from trying a long run of spaces inside a line
        // from each of its characters; line breaks are gone by now, so the end is the end of the piece.
        "(?<!\(anySpace))\(anySpace)++\\z",
        #"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"#, #"\p{N}"#,
      ]),
    PreTokenizerDefinition(
      names: ["deepseek-v3", "hunyuan-dense", "joyai-llm"],
      stages: [
        #"\p{N}{1,3}"#, #"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"#,
        ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##
          + #"| ?[\p{P}\p{S}]+[\r\n]*|"# + lineBreaksAndSpaces,
      ]),
    PreTokenizerDefinition(
      names: ["tekken"],
      stages: [
        #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"#
          + #"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"#
          + "|\\p{N}| ?[^\(space)\\p{L}\\p{N}]+[\\r\\n/]*|\(lineBreaksAndSpaces)"
      ], ignoresMerges: true, addsBOSByDefault: true),
  ]

  /// Unicode's White_Space characters, for use inside brackets.
  private static let space =
    #"\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"#
  /// One white-space character: `\s`.
  private static let anySpace = "[\(space)]"

  /// `\s+(?!\S)|\s+`: spaces up to, and without, the one before a word; then whatever is left.
  private static let spaces = "\(anySpace)+(?![^\(space)])|\(anySpace)+"
  private static let lineBreaksAndSpaces = "\(anySpace)*[\\r\\n]+|\(spaces)"

  private static let gpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\(space)\\p{L}\\p{N}]+|\(spaces)"

  /// The pattern of Llama 3 and Qwen 2, which differ in how many digits stay together.
  private static func words(digits: String) -> String {
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"# + digits
      + "| ?[^\(space)\\p{L}\\p{N}]+[\\r\\n]*|\(lineBreaksAndSpaces)"
  }

  /// The letters of scripts that have case, for use inside brackets.
  private static let casedLetters =
    #"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}"#
    + #"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}"#
    + #"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}"#
    + #"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}"#
    + #"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}"#
    + #"\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}"#
    + #"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}"#
    + #"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}"#
    + #"\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}"#
    + #"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}"#
    + #"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}"#
    + #"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}"#
    + #"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}"#
}
