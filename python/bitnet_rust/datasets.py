"""Whatever users have as data, as a dataset of the core: texts, files, arrays, PyTorch's and Hugging Face's datasets.

Two kinds come out. A *stream* is one long text, cut into windows of ``length`` tokens. *Examples* are sequences of their
own, of any lengths, with labels if they have them; they are copied into compact arrays. Nothing of PyTorch or Hugging
Face is imported: their objects are known by what they can do.
"""

import itertools
import json
import mmap
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _bitnet
from .arrays import int32_ids
from .conversations import IGNORED, chat_example, conversations, hold_conversations, is_conversation
from .errors import ArgumentError, DTypeError, ShapeError, warn
from .texts import PIECE, cut, documents, pieces
from .token_file import SUFFIXES, TokenFile
from .tokenize import token_pieces
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VERIFIED_BYTES = 256 << 20  # token files up to this size are read once before training starts


@dataclass(frozen=True)
class DataOptions:
    """How data become examples.

    length: the most tokens of an example.
    vocab_size: the model's; ids are below it.
    tokenizer: gives the tokenizer for texts, or raises what tells the user how to pass one.
    packing: True joins texts to one stream, with the tokenizer's end token between them, and puts as many whole examples
        together as fit length; False leaves each by itself; None does so for texts and not for examples.
    isolate: documents of a stream do not see each other.
    most: how many examples a run can use, for iterables without a length; None refuses those.
    """

    length: int
    vocab_size: int
    tokenizer: Callable[[], Tokenizer]
    packing: bool | None = None
    isolate: bool = False
    most: int | None = None


def make_dataset(data: Any, name: str, options: DataOptions) -> _bitnet.Dataset:
    """The dataset that training and evaluation take; name is the argument's, for errors."""
    if isinstance(data, _bitnet.Dataset):
        return data
    if isinstance(data, Path):
        stored = _tokens_in(data)
        if stored is None and hold_conversations(data):
            return _elements(list(conversations(data, name)), name, options)
        if stored is None:
            if options.packing is False:
                return _elements(list(documents(data, name)), name, options)
            return _texts(pieces(data, name, PIECE), name, replace(options, most=None))
        data = stored
    if isinstance(data, TokenFile):
        return _file(data, name, options)
    if isinstance(data, str):
        if _is_path(data):
            raise ArgumentError(f"{name} = {data!r} is a text, and the name of a file: pass pathlib.Path({data!r})")
        return _texts(cut(data, PIECE), name, replace(options, most=None))
    if isinstance(data, bytes | bytearray):
        raise DTypeError(f"{name} is of type {type(data).__name__}: expected a str, or token ids")
    if hasattr(data, "__array__"):
        return _array(data, name, options)
    if isinstance(data, array):
        return _stream(int32_ids(data, name), name, options)
    return _elements(data, name, options)


def _is_path(text: str) -> bool:
    """Whether somebody who passed this text meant a file."""
    if not 0 < len(text) < 256 or any(character.isspace() for character in text):
        return False
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


# --- streams ---------------------------------------------------------------------------------------------------------


def _tokens_in(path: Path) -> Any:
    """The token file or array of a path that has one of their suffixes, else None."""
    if path.suffix not in SUFFIXES or path.is_dir():
        return None
    if path.suffix == ".npy" and path.exists():
        import numpy as np

        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError):  # the reader of token files says what is wrong
            return TokenFile(path)
        if stored.ndim != 1:
            return stored
    try:
        return TokenFile(path)
    except DTypeError as error:
        raise DTypeError(f'{error}; pass TokenFile("{path}", dtype=...)') from error


def _file(file: TokenFile, name: str, options: DataOptions) -> _bitnet.Dataset:
    if len(file) <= options.length:
        raise ArgumentError(f"{name}: {file!r}: expected more tokens than context_length = {options.length}")
    size = file.path.stat().st_size
    fields = {"file": file.options | {"verify": size <= _VERIFIED_BYTES, "isolate": options.isolate}}
    return _dataset("file", name, options, fields, None)


def _array(data: Any, name: str, options: DataOptions) -> _bitnet.Dataset:
    """One dimension is a stream, two are examples; arrays of texts and objects are lists of them."""
    import numpy as np

    values: NDArray[Any] = np.asarray(data)
    if values.dtype.kind in "OUT":
        return _elements(values.tolist(), name, options)
    if values.ndim == 1:
        mapped = _mapped(data)
        if mapped is not None:
            return _file(mapped, name, options)
        return _stream(int32_ids(values, name), name, options)
    if values.ndim != 2:
        raise ShapeError(
            f"{name} has shape {values.shape}: expected token ids (tokens,) or examples (examples, tokens)"
        )
    return _Examples(name, options).add_rows(values)


def _mapped(data: Any) -> TokenFile | None:
    """The file that a numpy.memmap, or a part of one, is a view of: it stays on the disk."""
    import numpy as np

    if not isinstance(data, np.memmap) or data.strides != (data.itemsize,) or data.dtype.kind not in "iu":
        return None
    whole: Any = data
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    if not isinstance(whole.base, mmap.mmap) or data.filename is None or data.dtype.byteorder == ">" or not data.size:
        return None
    begin = data.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    path, place = Path(data.filename), whole.offset + begin
    with path.open("rb") as stored:
        magic = stored.read(8)
    if magic != b"BNTOKENS" and not magic.startswith(b"\x93NUMPY"):
        return TokenFile(path, data.dtype, offset=place, tokens=data.size)
    file = TokenFile(path)
    first, odd = divmod(place - (path.stat().st_size - len(file) * data.itemsize), data.itemsize)
    if file.dtype != data.dtype.name or first < 0 or odd:
        return None
    return TokenFile(path, first=first, tokens=data.size)


def _texts(parts: Iterable[tuple[str, bool]], name: str, options: DataOptions) -> _bitnet.Dataset:
    """Texts, in pieces, as one stream."""
    tokenizer = options.tokenizer()
    end = tokenizer.eos_token_id
    if options.isolate and end is None:
        raise ArgumentError(
            f"{name}: documents can be kept apart only by a tokenizer with an end token, and this one has none"
        )
    enough = _enough(options)
    ids = array("i")
    for more in token_pieces(tokenizer, parts):
        if more and max(more) >= options.vocab_size:
            raise ArgumentError(
                f"{name}: the tokenizer has {len(tokenizer)} tokens: expected at most vocab_size = {options.vocab_size} of the model"
            )
        ids.extend(more)
        if enough is not None and len(ids) >= enough:
            break
    return _stream(ids, name, options, end)


def _enough(options: DataOptions) -> int | None:
    """Tokens of a stream that a run can use at most; None for all."""
    return None if options.most is None else options.most * options.length + 1


def _stream(ids: "array[int]", name: str, options: DataOptions, separator: int | None = None) -> _bitnet.Dataset:
    if len(ids) <= options.length:
        raise ArgumentError(
            f"{name} has {len(ids) or 'no'} tokens: expected more than context_length = {options.length}"
        )
    if options.isolate and separator is None:
        raise ArgumentError(
            f"{name}: documents of token ids cannot be told apart: pass texts, or a TokenFile with a separator"
        )
    return _dataset("stream", name, options, {"separator": separator if options.isolate else None}, ids)


# --- examples --------------------------------------------------------------------------------------------------------


def _elements(data: Any, name: str, options: DataOptions) -> _bitnet.Dataset:
    """Lists, iterables, PyTorch's and Hugging Face's datasets: what the first element is says what they are."""
    if isinstance(data, Mapping):
        data = _columns(data, name)
    elements, sized = _iterator(data, name, options)
    first = next(elements, None)
    if first is None:
        raise ArgumentError(f"{name} has no tokens and no examples (an iterator gives its elements only once)")
    elements = itertools.chain([first], elements)
    limits = replace(options, most=None) if sized else options
    if _is_id(first):
        return _stream(int32_ids(list(itertools.islice(elements, _enough(limits))), name), name, options)
    if is_conversation(first):
        tokenizer = options.tokenizer()
        return _Examples(name, limits).add_all(_answered(elements, tokenizer, name))
    if isinstance(first, Path) and hold_conversations(first):
        records = [record for path in _text_paths(elements, name) for record in conversations(path, name)]
        return _elements(records, name, limits)
    if isinstance(first, Path):
        paths = _text_paths(elements, name)
        if options.packing is False:
            return _elements([text for path in paths for text in documents(path, name)], name, limits)
        return _texts((part for path in paths for part in pieces(path, name, PIECE)), name, limits)
    if isinstance(first, str) or (isinstance(first, Mapping) and "text" in first and "input_ids" not in first):
        texts = _strings(elements, name)
        if options.packing is not False:
            return _texts((part for text in texts for part in cut(text, PIECE)), name, limits)
        tokenizer = options.tokenizer()
        elements = ({"input_ids": tokenizer.encode(text)} for text in texts)
    return _Examples(name, limits).add_all(elements)


def _iterator(data: Any, name: str, options: DataOptions) -> tuple[Iterator[Any], bool]:
    """The elements, and whether they end by themselves."""
    try:
        count = len(data)
    except TypeError:
        count = None
    if hasattr(data, "__iter__"):
        elements = iter(data)
    elif count is not None and hasattr(data, "__getitem__"):  # a PyTorch Dataset
        elements = (data[i] for i in range(count))
    else:
        raise DTypeError(
            f"{name} is of type {type(data).__name__}: expected a text, a Path, token ids, a list or array of examples, "
            "or an iterable of dictionaries with input_ids or text"
        )
    if count is None and options.most is None:
        raise ArgumentError(
            f"{name} of type {type(data).__name__} has no length and may never end: pass list(itertools.islice(..., n)), or "
            "to train say by max_steps how much of it to use"
        )
    return elements, count is not None


def _text_paths(elements: Iterable[Any], name: str) -> Iterator[Path]:
    for i, path in enumerate(elements):
        if not isinstance(path, Path) or path.suffix in SUFFIXES:
            raise DTypeError(f"{name}[{i}] = {path!r}: expected the Path of a text file: other data cannot be joined")
        yield path


def _columns(data: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The rows of a dictionary of columns, such as a tokenizer gives."""
    fields = [field for field in ("input_ids", "labels", "attention_mask", "text") if data.get(field) is not None]
    if "input_ids" not in fields and "text" not in fields:
        splits = any(hasattr(column, "column_names") for column in data.values())
        expected = "one of these splits" if splits else "input_ids or text"
        raise ArgumentError(f"{name} has the columns {sorted(map(str, data))}: expected {expected}")
    lengths = {field: len(data[field]) for field in fields}
    if len(set(lengths.values())) > 1:
        raise ShapeError(f"{name}: its columns have different lengths: {lengths}")
    return [dict(zip(fields, row, strict=True)) for row in zip(*(data[field] for field in fields), strict=True)]


def _strings(elements: Iterable[Any], name: str) -> Iterator[str]:
    for i, element in enumerate(elements):
        text = element.get("text") if isinstance(element, Mapping) else element
        if not isinstance(text, str):
            raise DTypeError(f"{name}[{i}] is of type {type(text).__name__}: expected a text, as the first one")
        yield text


def _answered(elements: Iterable[Any], tokenizer: Tokenizer, name: str) -> Iterator[dict[str, Any]]:
    """Conversations as examples; an error if in none of them the assistant speaks, as there would be nothing to learn."""
    learned, count = False, 0
    for record in _conversations(elements, name):
        example = chat_example(record, tokenizer, f"{name}[{count}]")
        learned, count = learned or any(label != IGNORED for label in example["labels"]), count + 1
        yield example
    if not learned:
        raise ArgumentError(
            f"{name}: none of {count} conversations has a message of the assistant, or a completion: expected some, as they are what is learned"
        )


def _conversations(elements: Iterable[Any], name: str) -> Iterator[Mapping[str, Any]]:
    for i, element in enumerate(elements):
        if not is_conversation(element):
            raise DTypeError(
                f"{name}[{i}] is of type {type(element).__name__}: expected a conversation, as the first one"
            )
        yield element


def _is_id(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and getattr(value, "ndim", 0) == 0


def _is_batch(value: Any) -> bool:
    """Whether a value is several sequences."""
    dimensions = getattr(value, "ndim", None)
    if dimensions is not None:
        return bool(dimensions > 1)
    return len(value) > 0 and not _is_id(value[0])


class _Examples:
    """Examples as they are collected: inputs, what should follow each, and lengths."""

    def __init__(self, name: str, options: DataOptions) -> None:
        self._name, self._options = name, options
        self._inputs, self._targets, self._lengths = array("i"), array("i"), array("q")

    def add_all(self, elements: Iterable[Any]) -> _bitnet.Dataset:
        most = self._options.most
        for i, element in enumerate(elements):
            self._add(element, f"{self._name}[{i}]")
            if most is not None and len(self._lengths) >= most:
                break
        return self._made()

    def add_rows(self, values: "NDArray[Any]") -> _bitnet.Dataset:
        """The rows of an array [examples, tokens], without a Python object for each."""
        import numpy as np

        limit = self._options.vocab_size
        if values.dtype.kind not in "iu":
            raise DTypeError(f"{self._name} has dtype {values.dtype}: expected token ids, whole numbers")
        if values.size and (values.min() < 0 or values.max() >= limit):
            i, j = np.argwhere((values < 0) | (values >= limit))[0]
            raise ArgumentError(
                f"{self._name}[{i}].input_ids[{j}] = {values[i, j]}: expected 0 <= id < vocab_size = {limit}"
            )
        self._inputs.frombytes(np.ascontiguousarray(values[:, :-1], np.int32).tobytes())
        self._targets.frombytes(np.ascontiguousarray(values[:, 1:], np.int32).tobytes())
        self._lengths.extend([max(values.shape[1] - 1, 0)] * len(values))
        return self._made()

    def _made(self) -> _bitnet.Dataset:
        pack = {"pack": bool(self._options.packing)}
        made = _dataset("examples", self._name, self._options, pack, self._inputs, self._targets, self._lengths)
        facts = json.loads(made.info())
        if facts["truncated"]:
            warn(
                f"{self._name}: {facts['truncated']} of {len(self._lengths)} examples are longer than context_length = "
                f"{self._options.length} and were cut",
            )
        if facts["skipped"]:
            warn(
                f"{self._name}: {facts['skipped']} of {len(self._lengths)} examples have nothing to learn from (fewer than two "
                "tokens, or every label is -100) and were left out",
            )
        return made

    def _add(self, element: Any, where: str) -> None:
        """An example, or the examples of a batch that a DataLoader has put together."""
        if isinstance(element, Mapping):
            if "input_ids" not in element:
                raise ArgumentError(f"{where} has the fields {sorted(map(str, element))}: expected input_ids or text")
            ids: Any = element["input_ids"]
            labels, mask = element.get("labels"), element.get("attention_mask")
            if not _is_batch(ids):
                self._labeled(ids, labels, mask, where)
                return
            for j, row in enumerate(ids):
                here = f"{where} row {j}"
                self._labeled(row, None if labels is None else labels[j], None if mask is None else mask[j], here)
        elif isinstance(element, tuple | list) and len(element) == 2 and not any(map(_is_id, element)):
            inputs, targets = element
            if not _is_batch(inputs):
                self._pair(inputs, targets, where)
                return
            for j, (x, y) in enumerate(zip(inputs, targets, strict=True)):
                self._pair(x, y, f"{where} row {j}")
        elif isinstance(element, str) or not hasattr(element, "__len__"):
            raise DTypeError(
                f"{where} is of type {type(element).__name__}: expected token ids, a pair of inputs and targets, or a dictionary "
                "with input_ids"
            )
        elif _is_batch(element):
            for j, row in enumerate(element):
                self._labeled(row, None, None, f"{where} row {j}")
        else:
            self._labeled(element, None, None, where)

    def _labeled(self, tokens: Any, labels: Any, mask: Any, where: str) -> None:
        """Ids and labels of the same positions, as Hugging Face's models take them: a label is predicted one position before."""
        ids = self._ids(tokens, f"{where}.input_ids", False)
        goals = ids if labels is None else self._ids(labels, f"{where}.labels", True)
        if len(goals) != len(ids):
            raise ShapeError(f"{where}.labels has {len(goals)} values: expected {len(ids)}, one for each of input_ids")
        if mask is not None:
            begin, end = _attended(mask, len(ids), f"{where}.attention_mask")
            ids, goals = ids[begin:end], goals[begin:end]
        self._append(ids[:-1], goals[1:])

    def _pair(self, inputs: Any, targets: Any, where: str) -> None:
        """Inputs and what should follow each."""
        ids, goals = self._ids(inputs, f"{where} inputs", False), self._ids(targets, f"{where} targets", True)
        if len(goals) != len(ids):
            raise ShapeError(f"{where}: {len(ids)} inputs and {len(goals)} targets: expected as many")
        self._append(ids, goals)

    def _append(self, inputs: "array[int]", targets: "array[int]") -> None:
        self._inputs.extend(inputs)
        self._targets.extend(targets)
        self._lengths.append(len(inputs))

    def _ids(self, values: Any, where: str, labels: bool) -> "array[int]":
        ids = int32_ids(values, where)
        limit = self._options.vocab_size
        if ids and (min(ids) < 0 or max(ids) >= limit):
            for at, value in enumerate(ids):
                if not 0 <= value < limit and not (labels and value == IGNORED):
                    allowed = f" or {IGNORED}" if labels else ""
                    raise ArgumentError(f"{where}[{at}] = {value}: expected 0 <= id < vocab_size = {limit}{allowed}")
        return ids


def _attended(mask: Any, count: int, where: str) -> tuple[int, int]:
    """The part of an example that is no padding."""
    ones = [bool(value) for value in (mask.tolist() if hasattr(mask, "tolist") else mask)]
    if len(ones) != count:
        raise ShapeError(f"{where} has {len(ones)} values: expected {count}, one for each of input_ids")
    if True not in ones:
        return 0, 0
    begin, end = ones.index(True), count - ones[::-1].index(True)
    if not all(ones[begin:end]):
        raise ArgumentError(
            f"{where}: position {begin + ones[begin:end].index(False)} is 0 between ones: expected padding at the ends only"
        )
    return begin, end


def _dataset(
    kind: str,
    name: str,
    options: DataOptions,
    more: dict[str, Any],
    ids: "array[int] | None",
    targets: "array[int] | None" = None,
    lengths: "array[int] | None" = None,
) -> _bitnet.Dataset:
    fields = {"kind": kind, "name": name, "length": options.length, "vocab_size": options.vocab_size} | more
    return _bitnet.dataset(json.dumps(fields), ids, targets, lengths)
