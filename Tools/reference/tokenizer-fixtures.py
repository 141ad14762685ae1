#!/usr/bin/env python3
"""Makes the fixtures of Tests/TokenizationTests: what other tokenizers make of a list of awkward texts.

    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3 sentencepiece==0.2.3 gguf==0.19.0 \
        llama-cpp-python==0.3.36
    venv/bin/python Tools/reference/tokenizer-fixtures.py

Writes into Tests/TokenizationTests/Fixtures:

  texts.json           the texts
  byte-level.json      a byte-level vocabulary whose merges know nothing of word boundaries, so that every cut a
                       pre-tokenizer makes shows in the ids; and for each pre-tokenizer the ids of each text, by the
                       `tokenizers` package with the `pre_tokenizer` of the models' published tokenizer.json
  sentencepiece.json   a small vocabulary and the ids of each text, by the `sentencepiece` package
  smollm2.json, gemma3.json
                       the ids of each text with the models' own vocabularies, which are not part of the fixtures;
                       made only for models that lie in the cache (${XDG_CACHE_HOME:-~/.cache}/vkinfer/models)
"""

import io
import json
import os
import pathlib
import random

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

FIXTURES = pathlib.Path(__file__).parents[2] / "Tests/TokenizationTests/Fixtures"
MODELS = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vkinfer/models"

AWKWARD = [
    "", " ", "  ", "\n", "\r\n", "\t", "a", " a", "a ", "Hello, world!", " Hello", "Hello  world", "   leading", "trailing   ",
    "a  b   c    d", "line\nline", "line\r\nline\r\n", "a\n\n\nb", "a \n b", "a  \n  b", "\n\n  x", "x \t\t y", "tab\tseparated\tvalues\n",
    " \n \n ", "mixed \r\n\t \u00a0 end", "a\u00a0b", "\u3000全角\u3000空白", "a\u2028b\u2029c", "a\u0085b", "a\u180eb", "a\u200bb", "a\u2003 b",
    "a\x1cb\x1fc", "a\x0bb\x0cc", "nul\x00nul", "\ufeffbom",
    "I'm you're he'll they've we'd it's don't", "I'M YOU'RE HE'LL THEY'VE WE'D IT'S", "'Tis 'twas 's 't 're", "it’s don’t",
    "x'\u017f y'\u017fe", "''s '''ll", "'d'd'd", "o'clock rock'n'roll",
    "0", "12", "123", "1234", "12345", "1234567890", " 1 22 333 4444 55555", "3.14159", "1,000,000.50", "1e-9", "0xDEADBEEF", "v1.2.3-rc4",
    "2024-11-24T04:11:55Z", "٣٤٥٦٧ १२३४", "½ ² Ⅷ ①②③④", "x1y22z333", "1st 2nd 3rd", "a1 1a", "９８７６５ 円", "12 345", " 12", " 123456",
    "...", "!!!???", "a.b.c", "(a)[b]{c}", "$100 €200 £300", "a+b=c*d/e", "x == y != z <= w", "C++ C# F# .NET", "#include <stdio.h>", "&amp;&lt;",
    "\"quoted\" 'single' `back`", "`` ` ```", "foo_bar __init__ snake_case", "camelCase PascalCase SCREAMING", "e-mail@example.com", "https://example.com/a?b=c&d=%20#e",
    "-- --- – —", "a/b\\c", "~^|<>=+$`", "“smart” ‘quotes’ „low“ «guillemets»", "。、！？「」『』", "：；＜＝＞＂＃", "‘’‚‛“”„‟", "¡¿§¶†‡•…‰",
    "!\nabc", "{\n    return 0;\n}\n", "def f(x):\n\treturn x  # comment\n", "if (a && b || !c) { d->e++; }", "<|im_start|>user", "</s><s>[INST]",
    "/abc -def .ghi", "??\r\n//x", "a!b?c", ",\n,\n",
    "café naïve Ünïcödé", "cafe\u0301 nai\u0308ve", "\u0301leading mark", "e\u0301\u0302\u0303", "Ångström Å ℵ", "straße STRASSE ẞ", "ĲǅǈΣσς", "ʻokina ʼn ʰʲ",
    "Привет, мир! Ещё раз", "Γειά σου Κόσμε", "שָׁלוֹם עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก", "안녕하세요 세계", "你好，世界！", "こんにちは世界カタカナ", "漢字とkanaとABC123",
    "中文 English 混合 text 中文", "한국어123中文456", "龥龦龧", "ਸਤਿ ਸ੍ਰੀ ਅਕਾਲ", "გამარჯობა", "Բարեւ", "ᎣᏏᏲ ᏣᎳᎩ", "ⰀⰁⰂ Ⅎↄ", "ﬁ ﬂ ﬆ ﬓ", "ＡＢＣａｂｃ", "𐐀𐐨 𞤀𞤢 𝒜𝓑", "ΆΈΉ ᾳ ῼ K Å Ω",
    "😀", "👍🏽", "👨‍👩‍👧‍👦 family", "🏳️‍🌈🇫🇷🇩🇪", "❤️ ☎️ ✈", "a😀b😀😀c", " 🙂 ", "1️⃣2️⃣", "♥♦♣♠ ☃", "∀x∈ℝ: ⌈x⌉ ≠ ⌊x⌋", "→←↑↓ ⇒", "½+¼=¾", "©®™ ℃ №",
    "\u202ertl\u202c", "zero\u200dwidth\u200cjoin", "soft\u00adhyphen", "\ufffd\ufffe\uffff", "\ue000private\U000f0000", "\U0010ffff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "abababababab", "          ", "\n\n\n\n\n\n\n", "\t\t\t\t\t", "!!!!!!!!!!!!!!!!", "        indented", "word        ", "ABCabcABCabc",
    "▁ ▁▁ a▁b",
]  # fmt: skip

# What random texts are drawn from: each entry is as likely as any other.
ALPHABET = [
    *"aaeiostnABZ", *"  \n\r\t", "\u00a0", "\u3000", *"0123456789", *"'\"`.,!?-_/\\()[]{}<>=+*&^%$#@~|:;", "'s", "'ll", "'RE", "é", "e\u0301",
    "Ж", "я", "Σ", "א", "ع", "न", "ि", "ก", "你", "好", "の", "カ", "한", "글", "٣", "½", "Ⅷ", "😀", "👍🏽", "\u200d", "️", "€", "“", "”", "—", "。", "！", "Ａ", "𐐀",
]  # fmt: skip

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CJK = "[一-龥ࠀ-一가-\ud7ff]+"
CASED = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffcℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ"
    "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)


def words(digits):
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


# By the name GGUF files use, the pre_tokenizer of the tokenizer.json of: meta-llama/Meta-Llama-3-8B, Qwen/Qwen2-7B,
# openai-community/gpt2 (and mosaicml/mpt-7b, microsoft/phi-2), HuggingFaceTB/SmolLM2-135M (and bigcode/starcoder,
# smallcloudai/Refact-1_6B-fim, CohereForAI/c4ai-command-r-v01), tiiuae/falcon-7b, deepseek-ai/deepseek-llm-7b-base,
# deepseek-ai/deepseek-coder-6.7b-base, deepseek-ai/DeepSeek-V3, mistralai/Mistral-Nemo-Base-2407. "default" has no
# tokenizer.json: it is what GGUF readers do with files that name no pre-tokenizer.
PRE_TOKENIZERS = {
    "llama-bpe": [split(words("{1,3}")), byte_level(False)],
    "qwen2": [split(words("")), byte_level(False)],
    "gpt-2": [byte_level(True)],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), byte_level(True)],
    "falcon": [
        pre_tokenizers.Punctuation("contiguous"),
        byte_level(True),
        pre_tokenizers.Digits(individual_digits=False),
        split("[0-9][0-9][0-9]"),
    ],
    "default": [
        split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT2), split(r"\p{N}+"), split("[0-9][0-9][0-9]"), byte_level(False),
    ],  # fmt: skip
    "deepseek-llm": [
        split("[\r\n]"), split(rf"\s?[{CASED}]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"), split(CJK),
        pre_tokenizers.Digits(individual_digits=True), byte_level(False),
    ],  # fmt: skip
    "deepseek-coder": [
        split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CJK),
        pre_tokenizers.Digits(individual_digits=True), byte_level(False),
    ],  # fmt: skip
    "deepseek-v3": [
        split(r"\p{N}{1,3}"),
        split("[一-龥\u3040-\u309f\u30a0-\u30ff]+"),
        split(
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
            r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
        ),
        byte_level(False),
    ],
    "tekken": [
        split(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        byte_level(False),
    ],
}


def make_texts():
    generator = random.Random(7)
    texts = list(AWKWARD)
    for _ in range(120):
        texts.append("".join(generator.choice(ALPHABET) for _ in range(generator.randint(3, 24))))
    return texts


def write(name, value):
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value[key], separators=(',', ':'))}" for key in value)
    (FIXTURES / name).write_text("{" + lines + "}\n")
    print(name, (FIXTURES / name).stat().st_size, "bytes")


def byte_level_fixture(texts):
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = byte_level(False)
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    trained.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]

    # Numbered afresh so that the fixture can hold pairs of ids alone: bytes, then what the merges make, in order.
    numbers = {character: byte for byte, character in gpt2_alphabet().items()}
    pairs = []
    for left, right in merges:
        pairs.append([numbers[left], numbers[right]])
        numbers.setdefault(left + right, len(numbers))

    # Falcon's Digits stage comes after ByteLevel and so cuts at the bytes that the alphabet writes as these, which no
    # vocabulary trained that way can tell: only this one, which was not.
    numerals = "²³¹¼½¾".encode("latin1")

    def is_comparable(name, text):
        return name != "falcon" or not any(byte in numerals for byte in text.encode())

    ids = {}
    for name, stages in PRE_TOKENIZERS.items():
        tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(stages)
        ids[name] = [tokenizer.encode(text).ids if is_comparable(name, text) else None for text in texts]
    write("byte-level.json", {"merges": pairs, **ids})


def gpt2_alphabet():
    """The character by which byte-level vocabularies write each byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def sentencepiece_fixture(texts):
    def train(adds_prefix):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([t for t in texts if t.strip() and "\0" not in t] * 3), model_writer=model,
            model_type="bpe", vocab_size=900, byte_fallback=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, add_dummy_prefix=adds_prefix, character_coverage=0.98,
            user_defined_symbols=["<user>", "\n\n"], split_by_whitespace=adds_prefix,
            allow_whitespace_only_pieces=True, minloglevel=2,
        )  # fmt: skip
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        pieces = range(processor.get_piece_size())

        def kind(piece):
            if processor.is_unknown(piece):
                return 2
            if processor.is_control(piece):
                return 3
            if processor.is_byte(piece):
                return 6
            return 4 if processor.id_to_piece(piece) in ("<user>", "\n\n") else 1

        # A U+2581 in the text is a space to sentencepiece; and with a prefix, it adds none to text after a
        # user-defined piece. Neither is wanted here.
        def is_comparable(text):
            return "▁" not in text and not (adds_prefix and "\n\n" in text)

        return {
            "tokens": [processor.id_to_piece(piece) for piece in pieces],
            "scores": [processor.get_score(piece) for piece in pieces],
            "kinds": [kind(piece) for piece in pieces],
            "ids": [processor.encode(text) if is_comparable(text) else None for text in texts],
        }

    write("sentencepiece.json", {"prefixed": train(True), "unprefixed": train(False)})


PROMPTS = {
    "smollm2.json": ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "a<|endoftext|>b", "<repo_name>x <|im_end"],
    "gemma3.json": ["<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "a<eos>b", "<table><unused7> x"],
}


def smollm2_fixture(texts):
    path = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        return print(f"no {path}: smollm2.json is left as it is")
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]

    def make(with_special):
        tokenizer = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(tokens)}, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(PRE_TOKENIZERS["smollm"])
        if with_special:
            names = [token for token, kind in zip(tokens, kinds) if kind == 3]
            tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
        return tokenizer

    plain, special = make(False), make(True)
    prompts = PROMPTS["smollm2.json"]
    write(
        "smollm2.json",
        {
            "ids": [plain.encode(text).ids for text in texts],
            "prompts": prompts,
            "plainIDs": [plain.encode(text).ids for text in prompts],
            "specialIDs": [special.encode(text).ids for text in prompts],
        },
    )


def gemma3_fixture(texts):
    path = MODELS / "gemma-3-270m.Q4_K_M.gguf"
    if not path.exists():
        return print(f"no {path}: gemma3.json is left as it is")
    from llama_cpp import Llama

    model = Llama(str(path), vocab_only=True, verbose=False)

    def encode(text, special):
        return model.tokenize(text.encode(), add_bos=False, special=special)

    # A U+2581 is a space to llama.cpp, a NUL ends its text, and it takes "</s>" for a control token in any vocabulary,
    # also where the file calls it a user-defined one (Gemma: struck-through text).
    def is_comparable(text):
        return not any(exception in text for exception in ["▁", "\0", "</s>"])

    prompts = PROMPTS["gemma3.json"]
    write(
        "gemma3.json",
        {
            "ids": [encode(text, False) if is_comparable(text) else None for text in texts],
            "prompts": prompts,
            "plainIDs": [encode(text, False) for text in prompts],
            "specialIDs": [encode(text, True) for text in prompts],
        },
    )


if __name__ == "__main__":
    FIXTURES.mkdir(parents=True, exist_ok=True)
    texts = make_texts()
    write("texts.json", {"texts": texts})
    byte_level_fixture(texts)
    sentencepiece_fixture(texts)
    smollm2_fixture(texts)
    gemma3_fixture(texts)
