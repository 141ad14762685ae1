"""Writes a llama of random weights that is large enough for every kernel and small enough for valgrind.

    tiny-model.py FILE

Two layers, a byte-level vocabulary without merges: a token is a byte.
"""

import random
import struct
import sys

WIDTH, FF, LAYERS, HEADS, KV_HEADS, HEAD = 64, 96, 2, 4, 2, 16
random.seed(7)


def byte_alphabet():
    """The characters that byte-level vocabularies write bytes with."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


tokens = byte_alphabet() + ["<|begin|>", "<|im_end|>", "<|im_start|>"]
VOCABULARY = len(tokens)


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, payload):
    return text(key) + struct.pack("<I", kind) + payload


def u32(key, value):
    return entry(key, 4, struct.pack("<I", value))


def array(key, kind, items):
    return entry(key, 9, struct.pack("<IQ", kind, len(items)) + b"".join(items))


metadata = [
    entry("general.architecture", 8, text("llama")),
    entry("general.name", 8, text("Tiny")),
    u32("llama.context_length", 512),
    u32("llama.embedding_length", WIDTH),
    u32("llama.feed_forward_length", FF),
    u32("llama.block_count", LAYERS),
    u32("llama.attention.head_count", HEADS),
    u32("llama.attention.head_count_kv", KV_HEADS),
    u32("llama.rope.dimension_count", HEAD),
    entry("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)),
    entry("tokenizer.ggml.model", 8, text("gpt2")),
    entry("tokenizer.ggml.pre", 8, text("gpt-2")),
    array("tokenizer.ggml.tokens", 8, [text(token) for token in tokens]),
    array("tokenizer.ggml.token_type", 5, [struct.pack("<i", 1 if i < 256 else 3) for i in range(VOCABULARY)]),
    array("tokenizer.ggml.merges", 8, []),
    u32("tokenizer.ggml.bos_token_id", 256),
    u32("tokenizer.ggml.eos_token_id", 257),
]
shapes = {"token_embd.weight": (WIDTH, VOCABULARY), "output_norm.weight": (WIDTH,)}
for layer in range(LAYERS):
    shapes |= {
        f"blk.{layer}.attn_norm.weight": (WIDTH,),
        f"blk.{layer}.attn_q.weight": (WIDTH, HEADS * HEAD),
        f"blk.{layer}.attn_k.weight": (WIDTH, KV_HEADS * HEAD),
        f"blk.{layer}.attn_v.weight": (WIDTH, KV_HEADS * HEAD),
        f"blk.{layer}.attn_output.weight": (HEADS * HEAD, WIDTH),
        f"blk.{layer}.ffn_norm.weight": (WIDTH,),
        f"blk.{layer}.ffn_gate.weight": (WIDTH, FF),
        f"blk.{layer}.ffn_up.weight": (WIDTH, FF),
        f"blk.{layer}.ffn_down.weight": (FF, WIDTH),
    }
infos, data = b"", b""
for name, shape in shapes.items():
    count = 1
    for size in shape:
        count *= size
    infos += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
    infos += struct.pack("<IQ", 0, len(data))
    values = [1.0] * count if len(shape) == 1 else [random.gauss(0, 0.15) for _ in range(count)]
    data += struct.pack(f"<{count}f", *values)
    data += bytes(-len(data) % 32)
head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(metadata)) + b"".join(metadata) + infos
with open(sys.argv[1], "wb") as file:
    file.write(head + bytes(-len(head) % 32) + data)
