"""Writes a GGUF file with random weights of a shape: python write_gguf.py CONFIG.json FORMAT FILE, FORMAT being TQ1_0, TQ2_0 or F16.

Runs by path, in an environment that has the gguf package. The embedding, which is the head too, is Q6_K, as in the files that people use, and
float16 in an F16 file, which is for a program's own quantizer. There is no tokenizer: programs are given token ids.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

BLOCK = 256  # weights of a block in all formats here
HALF = np.frombuffer(np.float16(0.02).tobytes(), np.uint8)


def blocks(random: np.random.Generator, kind: gguf.GGMLQuantizationType, rows: int, cols: int) -> np.ndarray:
    """Random blocks of a matrix, as bytes [rows, bytes of a row]."""
    if cols % BLOCK:
        raise SystemExit(f"{cols} columns: the formats of GGUF need a multiple of {BLOCK}")
    count = rows * cols // BLOCK
    if kind == gguf.GGMLQuantizationType.TQ2_0:  # 64 bytes of four codes 0, 1 and 2; a half
        digits = random.integers(0, 3, (4, count, 64), np.uint8)
        codes = digits[0] | digits[1] << 2 | digits[2] << 4 | digits[3] << 6
    elif kind == gguf.GGMLQuantizationType.TQ1_0:  # 48 bytes of five base-3 digits, 4 bytes of four; a half
        codes = random.integers(0, 256, (count, 52), np.uint8)
    elif kind == gguf.GGMLQuantizationType.Q6_K:  # 128 bytes of low bits, 64 of high bits, 16 int8 scales; a half
        codes = random.integers(0, 256, (count, 208), np.uint8)
        codes[:, 192:] = 1
    elif kind == gguf.GGMLQuantizationType.F16:  # -0.02, 0 and 0.02
        values = (random.integers(-1, 2, (rows, cols), np.int8) * np.float32(0.02)).astype(np.float16)
        return values.view(np.uint8)
    else:
        raise SystemExit(f"format {kind.name}: expected TQ1_0, TQ2_0 or F16")
    data = np.concatenate([codes, np.broadcast_to(HALF, (count, 2))], axis=1)
    return np.ascontiguousarray(data).reshape(rows, -1)


def write(config: dict[str, Any], kind: gguf.GGMLQuantizationType, path: Path) -> None:
    hidden, ffn, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or hidden // heads
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writer = gguf.GGUFWriter(beside, "bitnet")
    writer.add_context_length(8192)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")  # "none" is unknown to older versions of llama.cpp

    random = np.random.default_rng(0)

    def matrix(name: str, rows: int, cols: int, kind: gguf.GGMLQuantizationType) -> None:
        writer.add_tensor(name, blocks(random, kind, rows, cols), raw_dtype=kind)

    def norm(name: str, size: int) -> None:
        writer.add_tensor(name, np.ones(size, np.float32))

    table = gguf.GGMLQuantizationType.F16 if kind == gguf.GGMLQuantizationType.F16 else gguf.GGMLQuantizationType.Q6_K
    matrix("token_embd.weight", config["vocab_size"], hidden, table)
    norm("output_norm.weight", hidden)
    for i in range(layers):
        p = f"blk.{i}."
        norm(p + "attn_norm.weight", hidden)
        norm(p + "attn_sub_norm.weight", hidden)
        norm(p + "ffn_norm.weight", hidden)
        norm(p + "ffn_sub_norm.weight", ffn)
        matrix(p + "attn_q.weight", heads * head, hidden, kind)
        matrix(p + "attn_k.weight", kv_heads * head, hidden, kind)
        matrix(p + "attn_v.weight", kv_heads * head, hidden, kind)
        matrix(p + "attn_output.weight", hidden, heads * head, kind)
        matrix(p + "ffn_gate.weight", ffn, hidden, kind)
        matrix(p + "ffn_up.weight", ffn, hidden, kind)
        matrix(p + "ffn_down.weight", hidden, ffn, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(beside, path)


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text()), gguf.GGMLQuantizationType[sys.argv[2]], Path(sys.argv[3]))
