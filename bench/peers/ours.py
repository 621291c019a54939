"""This package's side: python -m bench.peers.ours FILE THREADS HEAD_DTYPE PACKING."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bitnet_rust import BitNetModel, Piece, set_num_threads

from .serve import serve

MOST_TOKENS = 4096  # more than any task decodes


class Ours:
    def __init__(self, path: str, threads: int, head_dtype: str, packing: Any) -> None:
        set_num_threads(threads)
        self._model = BitNetModel.from_pretrained(
            path, head_dtype=head_dtype, packing=packing, resident="copy", verify=False
        )
        self.vocab = self._model.config.vocab_size
        self._pieces: Iterator[Piece] = iter(())
        self._sequences = 0

    def read(self, prompts: Sequence[list[int]]) -> None:
        self._sequences = len(prompts)
        self._pieces = iter(self._model.session(prompts, max_new_tokens=MOST_TOKENS, ignore_eos=True))
        waiting = set(range(len(prompts)))
        while waiting:
            waiting.discard(next(self._pieces).index)

    def step(self) -> None:
        for _ in range(self._sequences):
            next(self._pieces)


if __name__ == "__main__":
    serve(Ours(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
