"""Writes tests_go/testdata/gguf with the Python package gguf 0.19: python gguf_containers.py

One small Llama with ternary weights in float16, its tensors aligned to 16, 32 (unless a file says otherwise), 64 and 4096 bytes, and in a
file of version 2; and values.npz, what the tensors hold. Their sizes are multiples of 8, so that each alignment puts them elsewhere.
"""

from pathlib import Path

import gguf
import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "tests_go" / "testdata" / "gguf"
VOCABULARY, HIDDEN, INTERMEDIATE, HEADS = 11, 20, 30, 2


def write(path: Path, alignment: int | None = None, version: int = 3) -> dict[str, np.ndarray]:
    """Gives what it wrote."""
    written: dict[str, np.ndarray] = {}
    random = np.random.default_rng(7)
    gguf.gguf_writer.GGUF_VERSION = version
    writer = gguf.GGUFWriter(path, "llama")
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    writer.add_context_length(32)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)

    def ternary(name: str, rows: int, columns: int) -> None:
        codes = random.integers(-1, 2, (rows, columns))
        written[f"{name}.weight"] = (codes * 0.25).astype(np.float16)

    def numbers(name: str, *shape: int) -> None:
        written[f"{name}.weight"] = random.normal(1, 0.1, shape).astype(np.float32)

    numbers("token_embd", VOCABULARY, HIDDEN)
    numbers("blk.0.attn_norm", HIDDEN)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        ternary(f"blk.0.{name}", HIDDEN, HIDDEN)
    numbers("blk.0.ffn_norm", HIDDEN)
    for name in ("ffn_gate", "ffn_up"):
        ternary(f"blk.0.{name}", INTERMEDIATE, HIDDEN)
    ternary("blk.0.ffn_down", HIDDEN, INTERMEDIATE)
    numbers("output_norm", HIDDEN)
    numbers("output", VOCABULARY, HIDDEN)
    for name, values in written.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "values.npz", **write(FOLDER / "version_3.gguf"))
    write(FOLDER / "version_2.gguf", version=2)
    for alignment in (16, 64, 4096):
        write(FOLDER / f"alignment_{alignment}.gguf", alignment)
