"""What is in the files of a model."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from os import PathLike, fspath
from statistics import median
from typing import Any, Literal

from . import _bitnet
from .arrays import whole_number
from .errors import FormatError
from .hub import resolve
from .progress import Progress, progress_of


def inspect_model(
    name: str | PathLike[str],
    *,
    stats: bool = False,
    i2s_layout: Literal["x86", "arm64", "row4"] = "x86",
    revision: str | None = None,
    local_files_only: bool = False,
    progress: Progress | bool | None = None,
) -> dict[str, Any]:
    """Lists what the files of a model hold, as they stand there: nothing is converted, and no model is built.

    name: as for ``BitNetModel.from_pretrained``, or a checkpoint of a training run.
    stats: read every tensor and describe its numbers.
    i2s_layout: see ``from_pretrained``; it takes stats, as nothing else depends on it.
    revision, local_files_only: see ``from_pretrained``.
    progress: of stats, called as progress(bytes_done, bytes_total); True draws a bar.

    Returns a dictionary with "path", "format" ("safetensors", "native", "gguf", "onnx" or "checkpoint"), "metadata" and "tensors", a list of
    dictionaries: "name", "dtype" (of a native file the layout), "shape" (of packed weights that of the matrix), "bytes",
    "offset" in the file's data, "file", and with stats one of

    - "ternary": how many weights are "minus", "zero" and "plus", and their "scale",
    - "float": "min", "max", "mean", "std", "zeros", and "not_finite", the number of NaN and infinities,
    - "error": why the tensor has none,

    and under "summary" of all ternary tensors their number, how many weights are "minus", "zero" and "plus", and the least, median and
    largest of their "scale" and of their share of zeros, "zeros".

    Raises ModelNotFoundError, FormatError, ArgumentError.
    """
    path = resolve(name, revision=revision, local_files_only=local_files_only)
    with progress_of(progress, f"reading {fspath(name)}") as told:
        info: dict[str, Any] = json.loads(_bitnet.inspect(path.absolute(), bool(stats), i2s_layout, told))
    if stats:
        info["summary"] = _summary([t["ternary"] for t in info["tensors"] if "ternary" in t])
    return info


def _summary(ternary: list[dict[str, Any]]) -> dict[str, Any]:
    def spread(values: list[float]) -> dict[str, float]:
        return {"min": min(values), "median": median(values), "max": max(values)} if values else {}

    codes = ("minus", "zero", "plus")
    counts = {name: sum(t[name] for t in ternary) for name in codes}
    zeros = [t["zero"] / max(1, sum(t[name] for name in codes)) for t in ternary]
    return {"ternary": len(ternary), **counts, "scale": spread([t["scale"] for t in ternary]), "zeros": spread(zeros)}


def tensor_bytes(
    name: str | PathLike[str],
    tensor: str,
    *,
    at: int = 0,
    size: int = 256,
    revision: str | None = None,
    local_files_only: bool = False,
) -> bytes:
    """Bytes of a tensor as they lie in the files of a model: size of them from byte at on, fewer where the tensor ends.

    name, revision, local_files_only: as for ``BitNetModel.from_pretrained``; tensor: a name that ``inspect_model`` lists.

    Raises ModelNotFoundError, FormatError (of a tensor that is not there, too), ArgumentError.
    """
    path = resolve(name, revision=revision, local_files_only=local_files_only)
    start, length = whole_number(at, "at", range(2**62)), whole_number(size, "size", range(1 << 30))
    return base64.b64decode(json.loads(_bitnet.tensor_bytes(path.absolute(), tensor, start, length)))


def hex_lines(data: bytes, at: int) -> Iterator[str]:
    """A dump of bytes: sixteen a line, with their place and as text."""
    for start in range(0, len(data), 16):
        line = data[start : start + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in line)
        yield f"{at + start:08x}  {line[:8].hex(' '):23}  {line[8:].hex(' '):23}  |{text}|"


def tree_lines(tensors: list[dict[str, Any]]) -> Iterator[str]:
    """The modules of a model by the names of its tensors, with their weights; numbered ones that are alike are one.

    FormatError for a name of more parts than any model has.
    """
    yield from _lines(branches(tensors), "")


def _lines(some: "list[Branch]", indent: str) -> Iterator[str]:
    for one in some:
        if one.tensor is not None:
            yield f"{indent}{one.label}  {one.tensor['dtype']} {' x '.join(map(str, one.tensor['shape']))}"
        if one.children:
            each = f"{one.times} times " if one.times > 1 else ""
            yield f"{indent}{one.label}  {each}{one.weights:,} weights"
            yield from _lines(one.children, indent + "  ")


@dataclass
class Branch:
    """A module in the tree that the names of tensors make, a tensor, or both.

    label: its name; of several that are alike "0 to 11".
    times: how many it stands for.
    tensor: "name", "dtype", "shape" and perhaps "bytes" of the first of them; None for a module without one.
    children: what is below it, in the order of the file.
    weights: of one of them.
    bytes: of one of them; 0 where the tensors do not say it.
    """

    label: str
    times: int
    tensor: dict[str, Any] | None
    children: "list[Branch]"
    weights: int
    bytes: int


def branches(tensors: list[dict[str, Any]]) -> list[Branch]:
    """The tree of tensors that are dictionaries with "name", "dtype", "shape" and perhaps "bytes"; see ``tree_lines``."""
    root = _Module()
    for tensor in tensors:
        parts = tensor["name"].split(".")
        if len(parts) > _DEEPEST:
            name = f"{tensor['name'][:50]}..."
            raise FormatError(f"tensor {name!r} has {len(parts)} names in its name: expected at most {_DEEPEST}")
        place = root
        for part in parts:
            place = place.children.setdefault(part, _Module())
        place.tensor = tensor
    _measure(root, {})
    return _branches(root)


_DEEPEST = 64


@dataclass
class _Module:
    """What the names that begin alike have in common: modules, a tensor, or both."""

    children: dict[str, "_Module"] = field(default_factory=dict)
    tensor: dict[str, Any] | None = None
    weights: int = 0
    bytes: int = 0
    kind: int = 0
    """The same for modules with the same names, types and shapes below them."""


def _measure(module: _Module, kinds: dict[Any, int]) -> None:
    """Fills in weights and kinds, each once, from the leaves on."""
    for child in module.children.values():
        _measure(child, kinds)
        module.weights += child.weights
        module.bytes += child.bytes
    own = None
    if module.tensor is not None:
        own = (module.tensor["dtype"], *module.tensor["shape"])
        module.weights += prod(module.tensor["shape"])
        module.bytes += module.tensor.get("bytes", 0)
    below = tuple((name, child.kind) for name, child in module.children.items())
    module.kind = kinds.setdefault((own, below), len(kinds))


def _branches(module: _Module) -> list[Branch]:
    groups: list[tuple[list[str], _Module]] = []  # the numbers, or the name, and what they have in common
    for name, child in module.children.items():
        if groups and name.isdigit() and groups[-1][0][-1].isdigit() and groups[-1][1].kind == child.kind:
            groups[-1][0].append(name)
        else:
            groups.append(([name], child))
    found = []
    for names, child in groups:
        label = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        if len(names) == len(child.children) == 1 and child.tensor is None:
            (last, only) = next(iter(child.children.items()))
            if not only.children:
                label, child = f"{label}.{last}", only
        found.append(Branch(label, len(names), child.tensor, _branches(child), child.weights, child.bytes))
    return found
