"""Whatever users have as data, as a dataset of the core: texts, files, token ids."""

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _bitnet
from .arrays import token_ids
from .errors import ArgumentError
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class DataOptions:
    """How data become examples.

    length: the most tokens of an example.
    vocab_size: the model's; ids are below it.
    tokenizer: gives the tokenizer for texts, or raises what tells the user how to pass one.
    """

    length: int
    vocab_size: int
    tokenizer: Callable[[], Tokenizer]


def make_dataset(data: Any, name: str, options: DataOptions) -> _bitnet.Dataset:
    """The dataset that training and evaluation take; name is the argument's, for errors."""
    if isinstance(data, Path):
        try:
            data = data.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ArgumentError(f"{name}: {data} is not a UTF-8 text: {error}") from error
    if isinstance(data, str):
        data = options.tokenizer().encode(data)
    return _stream(token_ids(data, name), name, options)


def _stream(ids: "array[int]", name: str, options: DataOptions) -> _bitnet.Dataset:
    if not ids:
        raise ArgumentError(f"{name} has no tokens: expected more than context_length = {options.length}")
    fields = {"kind": "stream", "name": name, "length": options.length, "vocab_size": options.vocab_size}
    return _bitnet.dataset(json.dumps(fields), ids, None, None)
