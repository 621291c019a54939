"""Token ids in all the forms users have them: numbers, lists, NumPy arrays, tensors; ragged batches."""

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError, DTypeError, ShapeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INT32 = range(-(2**31), 2**31)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__")


def is_batch(tokens: Any) -> bool:
    """Whether tokens holds several sequences."""
    if _is_array(tokens):
        return int(tokens.ndim) > 1
    return (
        isinstance(tokens, Sequence) and len(tokens) > 0 and (isinstance(tokens[0], Sequence) or _is_array(tokens[0]))
    )


def token_ids(tokens: Any, name: str = "tokens") -> "array[int]":
    """One sequence of token ids as int32; anything that is not whole numbers raises DTypeError."""
    if _is_array(tokens):
        import numpy as np

        values: NDArray[Any] = np.asarray(tokens)
        if values.ndim > 1:
            raise ShapeError(f"{name} has shape {values.shape}: expected one sequence, shape (tokens,)")
        if values.dtype.kind not in "iu" and values.size:
            raise DTypeError(f"{name} has dtype {values.dtype}: expected whole numbers (int32 or int64)")
        tokens = values.ravel().tolist()
    elif isinstance(tokens, int):
        tokens = [tokens]
    try:
        return array("i", tokens)
    except TypeError as error:
        raise DTypeError(f"{name}: expected a sequence of whole numbers: {error}") from error
    except OverflowError:
        at, value = next((at, value) for at, value in enumerate(tokens) if value not in _INT32)
        raise ArgumentError(f"{name}[{at}] = {value}: token id out of range") from None


def batch_ids(tokens: Any, lengths: Any = None) -> "list[array[int]]":
    """A batch of sequences of token ids. lengths, if given, says how many leading ids of each row count."""
    rows = [token_ids(row, f"tokens[{i}]") for i, row in enumerate(tokens)]
    if lengths is None:
        return rows
    counts = token_ids(lengths, "lengths")
    if len(counts) != len(rows):
        raise ShapeError(f"lengths has shape ({len(counts)},): expected ({len(rows)},), one for each row of tokens")
    for i, (count, row) in enumerate(zip(counts, rows, strict=True)):
        if not 0 < count <= len(row):
            raise ArgumentError(f"lengths[{i}] = {count}: expected 1 to {len(row)}, the length of tokens[{i}]")
    return [row[:count] for count, row in zip(counts, rows, strict=True)]


def pad_logits(rows: "NDArray[np.float32]", counts: Sequence[int], longest: int) -> "NDArray[np.float32]":
    """Spreads the rows [sum of counts, V] of ragged sequences over [B, longest, V], zero where there is no token."""
    import numpy as np

    if all(count == longest for count in counts):
        return rows.reshape(len(counts), longest, rows.shape[1])
    out = np.zeros((len(counts), longest, rows.shape[1]), np.float32)
    at = 0
    for i, count in enumerate(counts):
        out[i, :count] = rows[at : at + count]
        at += count
    return out
