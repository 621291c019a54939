"""Writes core/format/gguf/testdata/iq_bn.gguf with ik_llama.cpp's quantizer: python gguf_iq_bn.py LLAMA_QUANTIZE

A layer of random ternary weights as llama-quantize stores it in IQ1_BN and IQ2_BN, of which the first rows are kept, and their codes.
The PyPI package gguf does not know these types. Their layout is described at RowCodes in core/format/gguf/ternary.go; it was found by
comparing such files with the codes that went into them.
"""

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

from bitnet_rust import BitNetModel

PATH = Path(__file__).resolve().parents[2] / "core/format/gguf/testdata/iq_bn.gguf"
SHAPE = {
    "preset": "tiny",
    "architectures": ["BitnetForCausalLM"],
    "hidden_act": "silu",
    "vocab_size": 256,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
NAME, ROWS, COLS = "blk.0.ffn_down.weight", 8, 512
TYPES = {"IQ1_BN": (134, 2 + COLS // 64 * 13), "IQ2_BN": (135, 4 + COLS // 64 * 16)}  # number, bytes of a row


def tensor(path: Path, size: int) -> bytes:
    """The first bytes of the layer. A reader that knows neither type: all that it needs is the offset."""
    data = path.read_bytes()
    name = NAME.encode()
    at = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    (dims,) = struct.unpack_from("<I", data, at)
    (offset,) = struct.unpack_from("<Q", data, at + 4 + 8 * dims + 4)
    last = data.rindex(b".weight") + 7  # the header ends with the last tensor, whose dimensions, type and offset follow
    (dims,) = struct.unpack_from("<I", data, last)
    start = -(-(last + 4 + 8 * dims + 4 + 8) // 32) * 32
    return data[start + offset : start + offset + size]


def main() -> None:
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with BitNetModel.from_config(SHAPE, seed=5) as model:
            model.save_pretrained(place / "f32.gguf", format="gguf", gguf_type="f32")
        weights = np.array(
            next(t for t in gguf.GGUFReader(place / "f32.gguf").tensors if t.name == NAME).data[:ROWS], np.float32
        )
        for kind, (_, row) in TYPES.items():
            subprocess.run([sys.argv[1], str(place / "f32.gguf"), str(place / kind), kind], check=True)
            found[kind] = tensor(place / kind, ROWS * row)
    codes = np.sign(weights).astype(np.int8)
    found["codes"] = codes.tobytes()
    header = b"GGUF" + struct.pack("<IQQ", 3, len(found), 0)
    data = b""
    for name, content in found.items():
        number = TYPES[name][0] if name in TYPES else 24  # I8
        header += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IQQIQ", 2, COLS, ROWS, number, len(data))
        data += content + bytes(-len(content) % 32)
    PATH.write_bytes(header + bytes(-len(header) % 32) + data)
    print(np.abs(weights).max())


if __name__ == "__main__":
    main()
