"""Sequences as vectors: pooled hidden states."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .model import BitNetModel

POOLINGS = ("mean", "last")


def embed(
    model: "BitNetModel", sequences: Sequence[Sequence[int]], pooling: str, normalize: bool
) -> "NDArray[np.float32]":
    """What ``BitNetModel.embed`` gives for the token ids of several texts: float32 [N, hidden_size]."""
    import numpy as np

    if pooling not in POOLINGS:
        raise ArgumentError(f"pooling = {pooling!r}: expected 'mean' or 'last'")
    vectors = np.empty((len(sequences), model.config.hidden_size), np.float32)
    for i, ids in enumerate(sequences):  # one at a time: the states of all would be large
        states = model.hidden_states(ids)
        vectors[i] = states[-1] if pooling == "last" else states.mean(axis=0, dtype=np.float64)
    if normalize:
        lengths = np.sqrt(np.sum(np.square(vectors, dtype=np.float64), axis=1, keepdims=True))
        vectors = (vectors / np.maximum(lengths, 1e-30)).astype(np.float32)
    return vectors
