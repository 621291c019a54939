"""llama.cpp's side, through llama-cpp-python: python llama_cpp_side.py FILE.gguf THREADS CONTEXT. Runs by path, in its environment."""

import ctypes
import sys
from collections.abc import Sequence

import llama_cpp
import numpy as np
from serve import serve

CHUNK = 512  # tokens of a batch, as in llama-bench
SEQUENCES = 32


class LlamaCpp:
    def __init__(self, path: str, threads: int, context: int) -> None:
        llama_cpp.llama_backend_init()
        self._silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silence, ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = context, CHUNK, CHUNK, SEQUENCES
        params.n_threads = params.n_threads_batch = threads
        if hasattr(params, "kv_unified"):
            params.kv_unified = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self.vocab: int = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(CHUNK, 0, 1)
        self._last: list[int] = []  # tokens that are to be read next
        self._at: list[int] = []

    def read(self, prompts: Sequence[list[int]]) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self._last, self._at = [], [len(prompt) for prompt in prompts]
        for sequence, prompt in enumerate(prompts):
            for first in range(0, len(prompt), CHUNK):
                ids = prompt[first : first + CHUNK]
                self._clear()
                for i, token in enumerate(ids):
                    self._add(token, first + i, sequence, first + i == len(prompt) - 1)
                self._run()
            self._last.append(self._greedy(-1))

    def step(self) -> None:
        self._clear()
        for sequence, token in enumerate(self._last):
            self._add(token, self._at[sequence], sequence, True)
            self._at[sequence] += 1
        self._run()
        self._last = [self._greedy(i) for i in range(len(self._last))]

    def _clear(self) -> None:
        self._batch.n_tokens = 0

    def _add(self, token: int, position: int, sequence: int, logits: bool) -> None:
        b, i = self._batch, self._batch.n_tokens
        b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, position, 1, sequence, logits
        b.n_tokens += 1

    def _run(self) -> None:
        if status := llama_cpp.llama_decode(self._context, self._batch):
            raise SystemExit(f"llama_decode: status {status}")

    def _greedy(self, row: int) -> int:
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, row), shape=(self.vocab,))
        if not np.isfinite(logits[0]):
            raise SystemExit("llama.cpp's logits are not numbers")
        return int(logits.argmax())


if __name__ == "__main__":
    serve(LlamaCpp(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
