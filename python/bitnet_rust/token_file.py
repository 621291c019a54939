"""Files of token ids, for texts that are tokenized once and may be larger than memory."""

import json
from array import array
from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from . import _bitnet
from .arrays import int32_ids, whole_number
from .errors import ArgumentError
from .files import place_of

SUFFIXES = (".bin", ".npy")


class TokenFile:
    """A file of token ids: what ``bitnet tokenize`` or ``TokenFile.write`` made, a one-dimensional ``.npy``, or bare ids
    as nanoGPT's scripts write them, whose dtype you have to say.

    >>> tokens = TokenFile("train.bin", dtype="uint16")
    >>> len(tokens), tokens.dtype
    (301966, 'uint16')

    Training reads the windows that it needs; the file is never loaded.

    path: the file.
    offset: where the ids of a file without a header begin, in bytes.
    """

    def __init__(
        self, path: str | PathLike[str], dtype: Any = None, *, offset: int = 0, first: int = 0, tokens: int = 0
    ) -> None:
        """path: the file.
        dtype: of a file without a header: "uint8", "uint16", "uint32", "int32", "int64", or NumPy's object for it.
        offset: where the ids of a file without a header begin, in bytes.
        first, tokens: which ids to take: those from first on, so many, or 0 for all that follow.
        """
        self.path = Path(path)
        self._dtype = _dtype_name(dtype)
        self.offset = whole_number(offset, "offset", range(2**62))
        self._first = whole_number(first, "first", range(2**62))
        self._tokens = whole_number(tokens, "tokens", range(2**62))
        info = _bitnet.token_file(self.path, self._dtype, self.offset, self._first, self._tokens)
        self._info: dict[str, Any] = json.loads(info)

    def __len__(self) -> int:
        tokens: int = self._info["tokens"]
        return tokens

    @property
    def dtype(self) -> str:
        """How an id is stored, by NumPy's name."""
        name: str = self._info["dtype"]
        return name

    @property
    def separator(self) -> int | None:
        """The id that ends a document; None if there is none or the file does not say."""
        return self._info["separator"] if self._info["separator"] >= 0 else None

    @property
    def vocab_size(self) -> int | None:
        """The size of the tokenizer's vocabulary; None if the file does not say."""
        return self._info["vocab_size"] or None

    @property
    def options(self) -> dict[str, Any]:
        """What the core needs to open it."""
        place = {"path": fspath(self.path.absolute()), "dtype": self._dtype, "offset": self.offset}
        return place | {"first": self._first, "tokens": self._tokens}

    def split(self, eval_fraction: float) -> "tuple[TokenFile, TokenFile]":
        """Two parts of the file: what is before its end, and the end, so large a share of its tokens."""
        if not 0 < eval_fraction < 1:
            raise ArgumentError(f"eval_fraction = {eval_fraction}: expected a number between 0 and 1")
        begin = round(len(self) * (1 - eval_fraction))
        if not 0 < begin < len(self):
            raise ArgumentError(f"{self!r}: its {len(self)} tokens cannot be split by eval_fraction = {eval_fraction}")

        def part(first: int, tokens: int) -> TokenFile:
            return TokenFile(
                self.path, self._dtype or None, offset=self.offset, first=self._first + first, tokens=tokens
            )

        return part(0, begin), part(begin, len(self) - begin)

    def __repr__(self) -> str:
        return f"TokenFile({fspath(self.path)!r}, {len(self):,} tokens, {self.dtype})"

    @classmethod
    def write(
        cls, path: str | PathLike[str], ids: Iterable[Any], vocab_size: int, *, separator: int | None = None
    ) -> "TokenFile":
        """Writes token ids into a file, which appears when it is complete.

        ids: a sequence or array of ids, or an iterable of such pieces.
        vocab_size: ids are below it; up to 65536 they take two bytes, else four.
        separator: the id that ends a document, for training that keeps documents apart.
        """
        vocab = whole_number(vocab_size, "vocab_size", range(1, 2**31 + 1))
        mark = -1 if separator is None else whole_number(separator, "separator", range(vocab))
        with place_of(path) as place:
            writer = _bitnet.token_writer(place, vocab, mark)
            try:
                for piece in _pieces(ids, vocab):
                    writer.write(piece)
                writer.commit()
            finally:
                del writer  # and with it what is no whole file, before its directory goes
        return cls(place)


def _pieces(ids: Iterable[Any], vocab: int) -> "Iterator[array[int]]":
    """The ids in arrays, single ones many together."""
    single: array[int] = array("i")
    for piece in [ids] if hasattr(ids, "__array__") or isinstance(ids, array) else ids:
        if not isinstance(piece, int):
            if single:
                yield single
            yield int32_ids(piece, "ids")
            single = array("i")
            continue
        single.append(whole_number(piece, "ids", range(vocab)))
        if len(single) == 1 << 16:
            yield single
            single = array("i")
    yield single


def _dtype_name(dtype: Any) -> str:
    if dtype is None:
        return ""
    if isinstance(dtype, str) and dtype in ("uint8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        return dtype
    import numpy as np

    try:
        stored = np.dtype(dtype)
    except TypeError as error:
        raise ArgumentError(f"dtype = {dtype!r}: expected the name of an integer type, such as 'uint16'") from error
    if stored.byteorder == ">":
        raise ArgumentError(f"dtype = {dtype!r}: expected a little-endian type")
    return str(stored.name)
