"""Token ids in all the forms users have them: numbers, lists, NumPy arrays, tensors; ragged batches."""

import math
import operator
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError, DTypeError, ShapeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INT32 = range(-(2**31), 2**31)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__")


def whole_number(value: Any, name: str, within: range = _INT32) -> int:
    """An int, or an integer of NumPy, within bounds."""
    try:
        number = operator.index(value)
    except TypeError:
        raise DTypeError(f"{name} = {value!r}: expected a whole number") from None
    if number not in within:
        raise ArgumentError(f"{name} = {number}: expected {within.start} to {within.stop - 1}")
    return number


def seconds(value: Any, name: str) -> float:
    """A time above 0 and finite, of any kind of number."""
    if not hasattr(value, "__float__") and not hasattr(value, "__index__"):
        raise DTypeError(f"{name} = {value!r}: expected a number of seconds")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 < number < math.inf:
        raise ArgumentError(f"{name} = {value!r}: expected a number of seconds above 0")
    return number


def as_prompts(prompts: Any) -> Any:
    """Iterators, and arrays that hold texts or objects (the column of a table), as lists; all else as it is."""
    if isinstance(prompts, Iterator):
        return list(prompts)
    if _is_array(prompts) and not isinstance(prompts, str):
        import numpy as np

        values = np.asarray(prompts)
        return values.tolist() if values.dtype.kind in "UTO" else prompts
    return prompts


def is_batch(tokens: Any) -> bool:
    """Whether tokens holds several sequences."""
    if _is_array(tokens):
        import numpy as np

        return np.ndim(tokens) > 1
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
        if values.dtype.kind not in "iuO" and values.size:
            raise DTypeError(f"{name} has dtype {values.dtype}: expected token ids, whole numbers (int32 or int64)")
        ids = values.ravel().tolist()
    elif isinstance(tokens, int) and not isinstance(tokens, bool):
        ids = [tokens]
    elif isinstance(tokens, Iterable) and not isinstance(tokens, str | bytes | bytearray | Mapping | Set):
        ids = list(tokens)
    else:
        raise DTypeError(f"{name} is {_described(tokens)}: expected token ids, a sequence of whole numbers")
    if any(not hasattr(kind, "__index__") or kind is bool for kind in set(map(type, ids))):
        at, value = next((at, v) for at, v in enumerate(ids) if not hasattr(v, "__index__") or isinstance(v, bool))
        raise DTypeError(f"{name}[{at}] is {_described(value)}: expected a token id, a whole number")
    try:
        return array("i", ids)
    except OverflowError:
        at, value = next((at, value) for at, value in enumerate(ids) if value not in _INT32)
        raise ArgumentError(f"{name}[{at}] = {value}: token id out of range") from None
    except TypeError as error:  # an array of several numbers among the numbers
        raise DTypeError(f"{name}: expected token ids, a sequence of whole numbers: {error}") from error


def int32_ids(tokens: Any, name: str) -> "array[int]":
    """token_ids without a Python object for each id where tokens is an array of integers; one of int32 is given back as it is."""
    if isinstance(tokens, array) and tokens.typecode == "i":
        return tokens
    if _is_array(tokens):
        import numpy as np

        values: NDArray[Any] = np.asarray(tokens)
        if values.ndim == 1 and values.dtype.kind in "iu" and values.size:
            for bound in (values.min(), values.max()):
                if int(bound) not in _INT32:
                    at = int(np.argmax(values == bound))
                    raise ArgumentError(f"{name}[{at}] = {bound}: token id out of range")
            return array("i", np.ascontiguousarray(values, np.int32).tobytes())
    return token_ids(tokens, name)


def _described(value: Any) -> str:
    """A wrong value for an error message: short ones as they are, others by their type."""
    shown = repr(value) if value is None or isinstance(value, str | bytes | int | float) else ""
    return shown if 0 < len(shown) <= 40 else f"of type {type(value).__name__}"


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
