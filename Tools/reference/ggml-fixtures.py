#!/usr/bin/env python3
"""Makes the GGUF files in Tests/ModelFilesTests/Fixtures with the reference implementation, the gguf package.

    python3 -m venv venv && venv/bin/pip install gguf numpy
    venv/bin/python Tools/reference/ggml-fixtures.py

weights-*.gguf   for each weight format a tensor of random blocks, named as the format, with ordinary and extreme
                 scales; and "<format>.expected", an f32 tensor of what the package dequantises it to
metadata.gguf    a value and an array of every metadata type, no tensors
split-*.gguf     one model of three tensors in three files

Running it again gives the same bytes.
"""

import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "Tests" / "ModelFilesTests" / "Fixtures"

# Where a block holds half-precision scales, by byte offset.
HALF_FIELDS = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.IQ4_NL: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_XS: [0], Type.MXFP4: [],
}

# Largest and smallest magnitudes of either sign, normal and subnormal, and both zeros.
EXTREME_HALVES = [0x7BFF, 0xFBFF, 0x0001, 0x8001, 0x03FF, 0x0400, 0x0000, 0x8000]

FAMILIES = {
    "weights-floats": [Type.F32, Type.F16, Type.BF16],
    "weights-blocks32": [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0],
    "weights-blocks256": [Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K],
    "weights-nonlinear": [Type.IQ4_NL, Type.IQ4_XS, Type.MXFP4],
}


def random_float_bits(kind: Type, rng: np.random.Generator) -> np.ndarray:
    """Bits of finite numbers over the whole range of a floating-point format, extremes first."""
    if kind == Type.F32:
        extremes, dtype, exponent = [0x7F7FFFFF, 0xFF7FFFFF, 1, 0x80000001, 0, 0x80000000], np.uint32, 0x7F800000
    elif kind == Type.F16:
        extremes, dtype, exponent = EXTREME_HALVES, np.uint16, 0x7C00
    else:
        extremes, dtype, exponent = [0x7F7F, 0xFF7F, 1, 0x8001, 0x007F, 0x0080, 0, 0x8000], np.uint16, 0x7F80
    bits = rng.integers(0, np.iinfo(dtype).max, size=256, dtype=dtype, endpoint=True)
    bits[: len(extremes)] = extremes
    bits[(bits & exponent) == exponent] = 0  # neither infinities nor NaN
    return bits.view(np.uint8).reshape(1, -1)


def random_blocks(kind: Type, rng: np.random.Generator) -> np.ndarray:
    """One row of blocks: every byte random except the half-precision scales, which are finite; extremes first."""
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    count = 16 if block_size == 32 else 6
    blocks = rng.integers(0, 256, size=(count, block_bytes), dtype=np.uint8)
    for number, offset in enumerate(HALF_FIELDS[kind]):
        scales = rng.normal(scale=0.02, size=count).astype(np.float16).view(np.uint16)
        extremes = EXTREME_HALVES[: count - 2]
        scales[: len(extremes)] = np.roll(extremes, number)
        blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(count, 2)
    if kind == Type.MXFP4:
        blocks[:4, 0] = [0, 1, 2, 255]
    return blocks.reshape(1, -1)


def write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_weights() -> None:
    for family, kinds in FAMILIES.items():
        writer = gguf.GGUFWriter(FIXTURES / f"{family}.gguf", "fixture")
        for kind in kinds:
            rng = np.random.default_rng(int(kind))
            data = random_float_bits(kind, rng) if gguf.GGML_QUANT_SIZES[kind][0] == 1 else random_blocks(kind, rng)
            name = kind.name.lower()
            writer.add_tensor(name, data, raw_dtype=kind)
            with np.errstate(over="ignore"):
                expected = gguf.dequantize(data, kind)
            assert not np.isnan(expected).any()
            writer.add_tensor(f"{name}.expected", np.ascontiguousarray(expected, dtype=np.float32))
        write(writer)


def make_metadata() -> None:
    writer = gguf.GGUFWriter(FIXTURES / "metadata.gguf", "fixture")
    integers = {
        Value.UINT8: np.uint8, Value.INT8: np.int8, Value.UINT16: np.uint16, Value.INT16: np.int16,
        Value.UINT32: np.uint32, Value.INT32: np.int32, Value.UINT64: np.uint64, Value.INT64: np.int64,
    }
    for kind, dtype in integers.items():
        limits = np.iinfo(dtype)
        writer.add_key_value(f"scalar.{kind.name.lower()}", int(limits.max), kind)
        writer.add_key_value(
            f"array.{kind.name.lower()}", [int(limits.min), 1, int(limits.max)], Value.ARRAY, sub_type=kind)
    for kind in (Value.FLOAT32, Value.FLOAT64):
        writer.add_key_value(f"scalar.{kind.name.lower()}", 0.1, kind)
        writer.add_key_value(f"array.{kind.name.lower()}", [0.1, -2.5, 1e-30], Value.ARRAY, sub_type=kind)
    writer.add_key_value("scalar.bool", True, Value.BOOL)
    writer.add_key_value("array.bool", [True, False, True], Value.ARRAY, sub_type=Value.BOOL)
    writer.add_key_value("scalar.string", "žluťoučký kůň 🐎", Value.STRING)
    writer.add_key_value("array.string", ["", "a", "日本語", "line\nfeed"], Value.ARRAY, sub_type=Value.STRING)
    write(writer)


def make_split() -> None:
    writer = gguf.GGUFWriter(FIXTURES / "split.gguf", "fixture", split_max_tensors=1)
    writer.add_string("general.name", "three parts")
    for number in range(3):
        writer.add_tensor(f"part{number}", np.full((2, 3 + number), number, dtype=np.float32))
    write(writer)


def main() -> int:
    FIXTURES.mkdir(parents=True, exist_ok=True)
    make_weights()
    make_metadata()
    make_split()
    return 0


if __name__ == "__main__":
    sys.exit(main())
