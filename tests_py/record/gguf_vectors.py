"""Writes core/format/gguf/testdata/vectors.gguf with the Python package gguf 0.19: python gguf_vectors.py

For each tensor type a tensor of random blocks, and under NAME.float32 what the package makes of them; metadata of every type; and the
codes of I2_S, which the package does not know, in the three layouts, written here from their description.
"""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

PATH = Path(__file__).resolve().parents[2] / "core/format/gguf/testdata/vectors.gguf"
ROWS, COLS = 4, 512
# Where the halves of a block are.
HALVES = {Type.Q4_0: [0], Type.Q8_0: [0], Type.Q4_K: [0, 2], Type.Q6_K: [208], Type.TQ1_0: [52], Type.TQ2_0: [64]}


def blocks(random: np.random.Generator, kind: Type) -> np.ndarray:
    values, size = gguf.GGML_QUANT_SIZES[kind]
    out = random.integers(0, 256, (ROWS * COLS // values, size), dtype=np.uint8)
    for at in HALVES[kind]:
        halves = random.normal(0, 1, len(out)).astype(np.float16)
        halves[:2] = [6e-8, 65504]  # the smallest and the largest
        out[:, at : at + 2] = halves[:, None].view(np.uint8)
    return out.reshape(ROWS, -1)


def i2s(codes: np.ndarray, scale: float, layout: str) -> np.ndarray:
    quarters = {
        "x86": codes.reshape(-1, 4, 32),  # value 32 g + i of a block in byte i
        "arm64": codes.reshape(-1, 4, 16),
        "row4": codes.reshape(-1, 4, COLS),  # rows 4 r + g of column i in byte i
    }[layout]
    bytes_ = sum(((quarters[:, g] + 1).astype(np.uint8) << (6 - 2 * g)) for g in range(4))
    return np.concatenate([bytes_.ravel(), np.float32([scale]).view(np.uint8), np.zeros(28, np.uint8)])


def main() -> None:
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(PATH, "bitnet")
    for bits in (8, 16, 32, 64):
        getattr(writer, f"add_uint{bits}")(f"test.uint{bits}", 2**bits - 1)
        getattr(writer, f"add_int{bits}")(f"test.int{bits}", -(2 ** (bits - 1)))
    writer.add_float32("test.float32", 0.1)
    writer.add_float64("test.float64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "grüße 👋\n")
    writer.add_array("test.strings", ["a", "", "ünï"])
    writer.add_array("test.ints", [1, -2, 3])
    writer.add_array("test.floats", [0.5, -0.25])
    writer.add_array("test.bools", [True, False])
    writer.add_array("test.nested", [[1, 2], [3]])

    floats = random.normal(0, 1, (ROWS, COLS)).astype(np.float32)
    writer.add_tensor("F32", floats)
    writer.add_tensor("F16", floats.astype(np.float16))
    writer.add_tensor("F16.float32", floats.astype(np.float16).astype(np.float32))
    bf16 = gguf.quants.quantize(floats, Type.BF16)
    writer.add_tensor("BF16", bf16, raw_dtype=Type.BF16)
    writer.add_tensor("BF16.float32", gguf.quants.dequantize(bf16, Type.BF16))
    for kind in HALVES:
        data = blocks(random, kind)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        writer.add_tensor(kind.name + ".float32", gguf.quants.dequantize(data, kind))
    codes = random.integers(-1, 2, (ROWS, COLS), dtype=np.int8)
    writer.add_tensor("codes", codes)
    for kind in (Type.TQ1_0, Type.TQ2_0):
        writer.add_tensor(f"codes.{kind.name}", gguf.quants.quantize(codes * np.float32(0.75), kind), raw_dtype=kind)
    for layout in ("x86", "arm64", "row4"):
        writer.add_tensor(f"codes.{layout}", i2s(codes, 0.75, layout).view(np.int8))
    writer.add_tensor("three.dimensions", np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
