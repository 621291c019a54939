"""litespark-inference's side: python litespark_side.py CONFIG.json CONTEXT. Runs by path, in its environment; OMP_NUM_THREADS says the threads.

Its loader reads float checkpoints of one published model. Here the packed matrices are made up instead, in its own classes. It has one
sequence at a time.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from litespark_inference.torchless.model import BitNetConfig, PackedBitNetModel, PackedLayer, PackedProjection
from litespark_inference.torchless.runtime import forward_one, forward_prefill, init_state
from serve import serve


class Litespark:
    def __init__(self, config: dict[str, Any], context: int) -> None:
        self._context = context
        self.vocab: int = config["vocab_size"]
        self._model = random_model(config, context)
        self._state: Any = None
        self._last = 0

    def read(self, prompts: Sequence[list[int]]) -> None:
        if len(prompts) > 1:
            raise NotImplementedError
        self._state = init_state(self._model, self._context)
        self._take(forward_prefill(self._model, self._state, prompts[0]))

    def step(self) -> None:
        self._take(forward_one(self._model, self._state, self._last))

    def _take(self, logits: np.ndarray) -> None:
        if not np.isfinite(logits).all():
            raise SystemExit("litespark's logits are not numbers")
        self._last = int(logits.argmax())


def random_model(config: dict[str, Any], context: int) -> PackedBitNetModel:
    random = np.random.default_rng(0)
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv = config["num_key_value_heads"] * (hidden // heads)

    def projection(out: int, cols: int) -> PackedProjection:
        codes = random.integers(0, 3, (4, out, cols // 4), np.uint8)
        packed = codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6
        sums = codes.astype(np.int32).sum(axis=(0, 2)) - cols
        return PackedProjection(packed, sums.astype(np.int32), float(1 / np.sqrt(2 / 3 * cols)), cols, out)

    def norm(size: int) -> np.ndarray:
        return np.ones(size, np.float32)

    layers = [
        PackedLayer(
            projection(hidden, hidden), projection(kv, hidden), projection(kv, hidden), projection(hidden, hidden),
            projection(ffn, hidden), projection(ffn, hidden), projection(hidden, ffn),
            norm(hidden), norm(hidden), norm(hidden), norm(ffn),
        )
        for _ in range(config["num_hidden_layers"])
    ]  # fmt: skip
    described = BitNetConfig(
        hidden, config["num_hidden_layers"], heads, config["num_key_value_heads"], ffn, config["vocab_size"], context,
        config["rms_norm_eps"], config["rope_theta"],
    )  # fmt: skip
    return PackedBitNetModel(
        described, None, norm(hidden), layers=layers,
        embed_int8=random.integers(-127, 128, (config["vocab_size"], hidden), np.int8),
        embed_scale=np.full(config["vocab_size"], 0.0003, np.float32),
    )  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    serve(Litespark(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])))
