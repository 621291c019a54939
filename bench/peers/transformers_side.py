"""Hugging Face transformers' side, in bfloat16: python transformers_side.py CHECKPOINT THREADS. Runs by path, in its environment."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from serve import serve
from transformers import AutoModelForCausalLM


class Transformers:
    def __init__(self, path: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
        for weight in self._model.parameters():  # a float32 table stays one, and its product with bfloat16 is an error
            if weight.is_floating_point():
                weight.data = weight.data.to(torch.bfloat16)
        self.vocab: int = self._model.config.vocab_size
        self._cache: Any = None
        self._last = torch.zeros(0, 0)

    def read(self, prompts: Sequence[list[int]]) -> None:
        self._cache = None
        self._run(torch.tensor(prompts))

    def step(self) -> None:
        self._run(self._last)

    @torch.inference_mode()
    def _run(self, ids: torch.Tensor) -> None:
        out = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = out.past_key_values
        if not torch.isfinite(out.logits).all():
            raise SystemExit("transformers' logits are not numbers")
        self._last = out.logits[:, -1].argmax(-1, keepdim=True)


if __name__ == "__main__":
    serve(Transformers(sys.argv[1], int(sys.argv[2])))
