"""From any format that loads to any that saves, with a check that the model is still the same."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from . import _bitnet
from . import progress as progress_bars
from .errors import ArgumentError, BitNetError, FileSystemError, TokenizerError
from .files import expanded
from .hub import resolve
from .metadata import encode as encode_metadata
from .model import BitNetModel, GGUFType, I2SLayout, LinearClass, checked_head_dtype, checked_packing, shard_bytes
from .onnx_export import ONNXType, data_files
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Format = Literal["native", "hf", "hf-master", "gguf", "onnx"]
Progress = Callable[[str, int, int], object]

# The prompt of the check: as many tokens, spread over the vocabulary.
_CHECKED = 32
# How many special tokens the texts of the check have.
_SPECIAL = 8
# The texts of the check, beside those with the tokenizer's special tokens: scripts, marks, emoji, code, numbers, runs of spaces and lines.
_TEXTS = (
    "Hello, world! It's what we'll do; they'd agree, I'M sure.",
    " leading and trailing ",
    "a  b   c    d\t\te \n f\n\n g   ",
    "Grüße aus Köln — “Zitat” … 12345678 3.14159 1,000,000 $5 <=> ^~|",
    "日本語のテキストと中文字符 한국어 עברית العربية हिन्दी ไทย",
    "👋🏽 👩‍👩‍👧‍👦 🇩🇪 é e\u0301 ﬁ ½ \u200b\ufeff",
    "def f(x):\n\treturn {'a': [x**2 for x in range(10)]}  # comment\n\n\n    pass\r\n\r\nend",
    "\x00\x01\x7f tabs\vand\fforms",
    "ÀÉÎÕÜ İstanbul STRASSE straße ΑΒΓ абв",
)
# Options that not every format has, and those that have them.
_ONLY = {
    "type": ("gguf", "onnx"),
    "use_cache": ("onnx",),
    "masters": ("hf-master",),
    "derive_masters": ("hf-master",),
    "compression": ("native",),
    "linear_class": ("hf",),
    "max_shard_size": ("native", "hf", "hf-master", "gguf"),
    "head_dtype": ("native",),
    "packing": ("native",),
}
# What formats round, by format and weights, or the linear class of packed ones.
_ROUNDING: dict[tuple[str, str | None], str] = {
    ("gguf", "tq1_0"): "scales to float16",
    ("gguf", "tq2_0"): "scales to float16",
    ("gguf", "f16"): "scales to float16",
    ("gguf", "bf16"): "scales to bfloat16",
    ("hf", "bitlinear"): "inverses of scales to float32",
    ("hf-master", "bfloat16"): "masters and tables to bfloat16",
}


@dataclass(frozen=True)
class Conversion:
    """What a conversion did, or with dry_run would do.

    source: what was converted, as given.
    target: the file or directory that has the result.
    format: the target's: "native", "hf", "hf-master", "gguf" or "onnx".
    weights: how ternary layers are stored: "2bit", "base3", "packed", a type of GGUF or ONNX, or the dtype of master
        weights; "float" where none is.
    architecture: the config's.
    parameters: how many weights the model has.
    source_bytes: size of the files that hold the model, tokenizer and config among them.
    target_bytes: the same of what was written; of a dry run what the tensors would take.
    written: False for a dry run.
    same_argmax: share of the positions of a fixed prompt at which both models' most probable next token is the same;
        None without a check.
    max_difference: largest difference of a logit there; 0 when the formats hold the same numbers. None without a check.
    different_text: the first text of a fixed corpus of which the tokenizers of both models make other token ids; None
        if there is none.
    agrees: whether that is what the format promises: the same ids of texts and the same next tokens, or, of one that
        rounds (``rounding``), logits that are apart by no more than rounding explains, an eighth of their standard
        deviation in the root mean square. None without a check.
    rounding: what the format rounds, such as "scales to bfloat16"; None for one that keeps every number.
    warnings: the texts of the ModelWarnings of reading, such as that the source looks as if it had another i2s_layout, and of writing, such as
        how many layers the type of a GGUF file has no form for.
    """

    source: str
    target: str
    format: Format
    weights: str
    architecture: str
    parameters: int
    source_bytes: int
    target_bytes: int
    written: bool
    same_argmax: float | None
    max_difference: float | None
    different_text: str | None
    agrees: bool | None
    rounding: str | None
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Everything as a dictionary that JSON takes."""
        return asdict(self)


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    to: Format | None = None,
    *,
    type: GGUFType | ONNXType | None = None,
    use_cache: bool = True,
    masters: Literal["float32", "bfloat16"] | None = None,
    derive_masters: bool = False,
    linear_class: LinearClass | None = None,
    i2s_layout: I2SLayout = "x86",
    quantize: bool = False,
    head_dtype: str = "auto",
    packing: Literal["auto", "2bit", "base3"] = "auto",
    compression: Literal["zstd"] | None = None,
    max_shard_size: int | str | None = None,
    check: bool = True,
    dry_run: bool = False,
    revision: str | None = None,
    local_files_only: bool = False,
    progress: Progress | bool | None = None,
) -> Conversion:
    """Writes a model in another format, layer by layer, and compares the two.

    source: as for ``BitNetModel.from_pretrained``.
    target: a file that ends in .bitnet, .gguf or .onnx, or a directory: of a Hugging Face checkpoint, a native model, or a GGUF one in
        several files.
    to: "native", "hf" (packed), "hf-master" (master weights, see ``masters``), "gguf" or "onnx" (see ``type``); None takes what the
        name of the target says.
    type: of ternary layers in a GGUF file, "i2_s" unless stated, or in an ONNX file, "int8" unless stated.
    use_cache: whether an ONNX graph takes and gives keys and values.
    masters: dtype of master weights, "float32" unless stated; "bfloat16" is half as large and rounds tables too.
    derive_masters: write master weights of a source that has only packed ones. They compute the same, but what they were before they
        were packed is lost: all are equally far from changing.
    linear_class: of "hf", see ``save_pretrained``.
    i2s_layout, quantize, revision, local_files_only: of the source, see ``from_pretrained``. I2_S tensors that are written have "x86".
    head_dtype, packing: of a native target, how the head and ternary weights lie in it, see ``from_pretrained``: as the source has them
        unless stated. The int8 scores of an "exact" head are not in files: load with that.
    compression: of a native target, see ``BitNetModel.save_pretrained``.
    max_shard_size: the most bytes of tensors in a file, or a text such as "5GB"; the target is a directory then. See ``save_pretrained``.
    check: load what was written and compare the logits of a fixed prompt, and the token ids of fixed texts.
    dry_run: say what would be written, and write nothing. What cannot be written raises as without.
    progress: called as progress("reading", "writing" or "checking", bytes_done, bytes_total); True draws bars, in a terminal or a
        notebook.

    Memory is that of the largest tensors, not of the model. The target appears complete: until then what was
    there stays, also when the process is killed, whose temporary files the next conversion to the same target takes away.

    Raises what loading and saving raise, and ArgumentError for a target that is the source, whose name does not go with the format,
    for an option that the format does not have or that says nothing about the source, for a target that holds files of something else, and for master weights that the source does not have.
    """
    place = expanded(target)
    kind = _format(place, to, max_shard_size is not None)
    stated = {
        "type": type, "use_cache": None if use_cache else False, "masters": masters, "derive_masters": derive_masters or None,
        "compression": compression, "linear_class": linear_class, "max_shard_size": max_shard_size,
        "head_dtype": None if head_dtype == "auto" else head_dtype, "packing": None if packing == "auto" else packing,
    }  # fmt: skip
    for name, value in stated.items():
        if value is not None and kind not in _ONLY[name]:
            expected = " or ".join(map(repr, _ONLY[name]))
            raise ArgumentError(f"{name} = {value!r}: expected to={expected} with it, found {kind!r}")
    if type is not None and type not in (types := get_args(GGUFType if kind == "gguf" else ONNXType)):
        raise ArgumentError(f"type = {type!r}: expected one of {', '.join(types)} with to={kind!r}")
    if head_dtype == "exact":
        raise ArgumentError(
            "head_dtype = 'exact': expected auto, float32, bfloat16, float16, int8 or int4: its int8 scores are not part of a file; "
            "load the result with head_dtype='exact'"
        )
    reading = {"i2s_layout": i2s_layout, "quantize": bool(quantize)}
    making = {"head_format": checked_head_dtype(head_dtype), "packing": checked_packing(packing)}
    most = 0 if max_shard_size is None else shard_bytes(max_shard_size)
    path = resolve(source, revision=revision, local_files_only=local_files_only)
    if place.exists() and place.resolve() == path.resolve():
        raise ArgumentError(f"{fspath(target)} is the source itself: expected another place for the result")
    _refuse_others(place, kind)
    with _step(progress, "reading", path) as told:
        opened = _read(path, told, **reading, **making)
    with opened as model:
        weights = {
            "native": model.packing,
            "hf": "packed",
            "hf-master": masters or "float32",
            "gguf": type or "i2_s",
            "onnx": type or "int8",
        }[kind]
        if kind in ("native", "hf") and "quantization_config" not in model.config:  # a GPT-2 of floats
            weights = "float"
        facts: dict[str, Any] = {
            "source": str(path),
            "target": str(place),
            "format": kind,
            "weights": weights,
            "architecture": model.config.architectures[0],
            "parameters": model.num_parameters(),
            "source_bytes": _size(path, model.info["format"]),
            "warnings": list(model.info.get("warnings", ())),
            "rounding": f"the head to {head_dtype}"
            if head_dtype in ("bfloat16", "float16", "int8", "int4")
            else _ROUNDING.get((kind, linear_class if kind == "hf" else weights)),
        }
        options = {
            "masters": weights if kind == "hf-master" else "",
            "derived_masters": derive_masters,
            "linear_class": linear_class or "",
            "whole": True,
            "gguf_type": weights if kind == "gguf" else "",
            "onnx_type": weights if kind == "onnx" else "",
            "use_cache": use_cache,
            "compression": compression or "",
            "max_shard_size": most,
            "metadata": encode_metadata(model._notes),
        }
        form = "hf" if kind == "hf-master" else kind
        if dry_run:
            file = place / "model.bitnet" if kind == "native" and place.suffix.lower() != ".bitnet" else place
            if kind == "native":
                options["max_shard_size"] = 0  # which changes nothing of the size
            size, warned = model._save(file, form, options | {"dry_run": True}, None)
            return Conversion(
                **_warned(facts, warned),
                target_bytes=size,
                written=False,
                same_argmax=None,
                max_difference=None,
                different_text=None,
                agrees=None,
            )
        before = None
        if check and head_dtype == "auto":
            before = fixed_logits(model)
        elif check:
            with _read(path, None, **reading) as original:
                before = fixed_logits(original)
        ids = _fixed_ids(model) if check else {}
        with _step(progress, "writing", place) as told:
            _, warned = model._save(place, form, options, told)
    facts = _warned(facts, warned)
    same = difference = different = agrees = None
    if before is not None:
        with _step(progress, "checking", place) as told, _read(place, told) as written:
            after = fixed_logits(written)
            after_ids = _fixed_ids(written, ids)
        same, difference = compare_logits(before, after)
        different = next((text for text in ids if after_ids.get(text) != ids[text]), None)
        agrees = different is None and (same == 1 or (facts["rounding"] is not None and within_rounding(before, after)))
    return Conversion(
        **facts,
        target_bytes=_size(place, kind),
        written=True,
        same_argmax=same,
        max_difference=difference,
        different_text=different,
        agrees=agrees,
    )


def _warned(facts: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """The facts once it is known what writing warned of: a GGUF file warns of layers that are float16."""
    return facts | {
        "rounding": facts["rounding"] or ("scales of some layers to float16" if warnings else None),
        "warnings": facts["warnings"] + warnings,
    }


def _read(path: Path, progress: Callable[[int, int], object] | None, **more: Any) -> BitNetModel:
    """A model whose weights stay in their files until they are needed; more are options of loading."""
    options = {"deferred": True, "resident": "copy"} | more
    return BitNetModel(_bitnet.load(path.absolute(), json.dumps(options), progress), path.absolute())


def _format(target: Path, to: str | None, sharded: bool) -> Format:
    """The format that is asked for, by name or by the target's; sharded with max_shard_size."""
    by_name = {".bitnet": "native", ".gguf": "gguf", ".onnx": "onnx"}.get(target.suffix.lower())
    if to is None and by_name is None:
        raise ArgumentError(
            f"{target} may be of several formats: expected to= one of {', '.join(get_args(Format))}, or a name that ends in .bitnet, .gguf or .onnx"
        )
    if to is not None and to not in get_args(Format):
        raise ArgumentError(f"to = {to!r}: expected one of {', '.join(get_args(Format))}")
    if by_name is not None and to not in (None, by_name):
        raise ArgumentError(f"{target} is the name of a {by_name} file: expected a directory for to={to!r}")
    if sharded and by_name in ("native", "gguf"):
        raise ArgumentError(f"{target} is the name of one {by_name} file: expected a directory with max_shard_size")
    if by_name is None and (to == "onnx" or (to == "gguf" and not sharded)):
        instead = ", or max_shard_size with a directory" if to == "gguf" else ""
        raise ArgumentError(f"{target}: expected a name that ends in .{to}{instead}")
    return cast(Format, to or by_name)


def _refuse_others(target: Path, kind: str) -> None:
    """A directory that holds a model of another format would go on to load as that."""
    if kind in ("hf", "hf-master") and any(target.glob("model.bitnet*")):
        raise ArgumentError(
            f"{target} holds a model.bitnet, which would hide the checkpoint: expected another directory"
        )
    if kind == "native" and target.suffix.lower() != ".bitnet" and any(target.glob("*.safetensors")):
        raise ArgumentError(f"{target} holds a Hugging Face checkpoint: expected another directory, or a .bitnet file")


@contextmanager
def _step(progress: Progress | bool | None, name: str, file: Path) -> Iterator[progress_bars.Progress | None]:
    """A step's progress as loading and saving take it."""
    if callable(progress):
        yield lambda done, total: progress(name, done, total)
    else:
        with progress_bars.progress_of(progress, f"{name} {file}") as told:
            yield told


def fixed_logits(model: BitNetModel) -> "NDArray[np.float32]":
    """The logits of a fixed prompt that is spread over the vocabulary."""
    vocabulary = model.config.vocab_size
    length = min(_CHECKED, model.config.max_position_embeddings)
    return model.forward([(at * 7919 + 11) % vocabulary for at in range(length)])


def _fixed_ids(model: BitNetModel, texts: Iterable[str] | None = None) -> dict[str, list[int] | None]:
    """The token ids of texts, by default the fixed ones, with and without special tokens in them; None for one that the tokenizer refuses.
    A model without a tokenizer has none."""
    try:
        tokenizer = Tokenizer.from_files(model._assets, str(model._path))
    except TokenizerError:
        return {}
    if texts is None:
        special = [tokenizer.id_to_token(i) for i in tokenizer.special_ids[:_SPECIAL]]
        texts = [*_TEXTS, *(f"User: hi{token} there {token} \n{token}" for token in special)]
    out: dict[str, list[int] | None] = {}
    for text in texts:
        try:
            out[text] = tokenizer.encode(text)
        except BitNetError:
            out[text] = None
    return out


def compare_logits(a: "NDArray[np.float32]", b: "NDArray[np.float32]") -> tuple[float, float]:
    """The share of positions at which both have the same argmax, and the largest difference, over the positions that both have."""
    length = min(len(a), len(b))
    a, b = a[:length], b[:length]
    return float((a.argmax(-1) == b.argmax(-1)).mean()), float(abs(a - b).max())


def within_rounding(a: "NDArray[np.float32]", b: "NDArray[np.float32]") -> bool:
    """Whether b is a up to what rounded scales do: the difference's root mean square is at most an eighth of a's standard deviation.

    A scale that is off by 2^-9 moves activations to other integers, and every layer adds to that: in a dozen layers of random weights it is
    a twentieth, and it grows with the square root of their number. Wrong weights make it as large as the logits are.
    """
    length = min(len(a), len(b))
    a, b = a[:length].astype("float64"), b[:length].astype("float64")
    return bool(((a - b) ** 2).mean() <= a.var() / 64)


# A file of a split GGUF model.
_SPLIT = re.compile(r"(.*-)\d{5}(-of-\d{5}\.gguf)")


# Endings of weights in a directory, by format, and of what describes a model beside them.
_WEIGHTS = {"native": ".bitnet", "hf": ".safetensors", "hf-master": ".safetensors", "gguf": ".gguf", "onnx": ".onnx"}
_BESIDE = (".json", ".jinja", ".md", ".model", ".txt")


def _size(path: Path, format: str) -> int:
    """Bytes of a file, of all files of a split one or of an index, of an ONNX file with its data, or of a model in a directory,
    which may have exports of it to other formats and the records of a run besides."""
    try:
        if path.is_dir():
            ending = _WEIGHTS[format]
            there = (file for file in path.iterdir() if file.is_file())
            files = [file for file in there if file.suffix.lower() in (ending, *_BESIDE) or f"{ending}." in file.name]
        elif path.suffix.lower() == ".onnx":
            files = [path, *data_files(path)]
        elif part := _SPLIT.fullmatch(path.name):
            files = [
                file
                for file in path.parent.iterdir()
                if (its := _SPLIT.fullmatch(file.name)) and its.groups() == part.groups()
            ]
        elif path.name.endswith(".index.json"):
            named = set(json.loads(path.read_text("utf-8"))["weight_map"].values())
            files = [path, *(path.parent / name for name in named)]
        else:
            files = [path]
        return sum(file.stat().st_size for file in files)
    except OSError as error:
        raise FileSystemError(f"{path}: {error.strerror}") from error
