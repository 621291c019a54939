"""What a benchmark runs on: a model, made or loaded, on so many threads and an instruction set."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from .. import _bitnet
from ..arrays import whole_number
from ..errors import ArgumentError, DTypeError, FileSystemError, FormatError
from ..generation import no_keyword
from ..model import BitNetModel
from ..registry import find_model
from ..runtime import build_info, num_threads, set_num_threads
from .machine import Say

DEFAULT_SHAPE = "2b"

# Benchmarks of random weights may have as much context as they ask for.
CONTEXT = 1 << 16


class SubjectOptions(TypedDict, total=False):
    """The options that all benchmarks have.

    model: a directory, file or name for from_pretrained; measured in place of a shape.
    revision: of a model from the hub, as in from_pretrained.
    local_files_only: of a model, too: take what the cache has.
    threads: worker threads; by default as num_threads().
    isa: instruction set; by default the one in use.
    head_dtype: "auto", "bfloat16", "float16", "int8", "int4" or "exact" for embedding and output head.
    packing: of ternary weights.
    kv_dtype: of keys and values.
    ffn_density: share of feed-forward neurons that are on, up to 0.5, of random weights for squared ReLU.
    seed: of the random weights.
    cache: keep the random weights in a file, and load them from there the next time.
    progress: called with a line about what happens next.
    """

    model: str | None
    revision: str | None
    local_files_only: bool
    threads: int | None
    isa: str | None
    head_dtype: str
    packing: Literal["auto", "2bit", "base3"]
    kv_dtype: Literal["float32", "float16", "bfloat16", "int8"]
    ffn_density: float | None
    seed: int
    cache: bool
    progress: Say | None


@dataclass(frozen=True)
class Subject:
    """A model that is being measured.

    model: the model.
    name: for the report.
    build_seconds: how long loading it took, or making its weights.
    say: takes a line about what happens next.
    """

    model: BitNetModel
    name: str
    build_seconds: float
    say: Say

    def facts(self) -> dict[str, Any]:
        """What was measured, for a result."""
        info, m = build_info(), self.model
        return {
            "model": self.name, "parameters": m.num_parameters(), "head_dtype": m.head_dtype, "packing": m.packing, "kv_dtype": m.kv_dtype,
            "threads": int(info["threads"]), "isa": info["isa"], "weight_bytes": m.memory_footprint(),
            "build_seconds": self.build_seconds,
        }  # fmt: skip

    def prompt(self, length: int, first: int = 1) -> list[int]:
        """Some token ids; others begin with another first."""
        return [(7 * i + first) % self.model.config.vocab_size for i in range(length)]

    def check_context(self, prompt: int, tokens: int) -> None:
        """ArgumentError if prompt and tokens do not fit into the model's context."""
        most = self.model.config.max_position_embeddings
        if prompt + tokens > most:
            raise ArgumentError(
                f"prompt + tokens = {prompt + tokens}: expected at most max_position_embeddings = {most} of {self.name}"
            )


@contextmanager
def opened(call: str, shape: str | None, **options: Unpack[SubjectOptions]) -> Iterator[Subject]:
    """The model that a benchmark measures, with threads and instruction set as the options say, and as they were before afterwards."""
    check_options(call, options)
    say = options.get("progress") or (lambda line: None)
    model = options.get("model")
    name = chosen(shape, options)
    with processor_settings(options.get("threads"), options.get("isa")):
        start = time.perf_counter()
        m = _load(model, options) if model is not None else _random(name, options, say)
        with m:
            yield Subject(m, name, time.perf_counter() - start, say)


@contextmanager
def processor_settings(threads: int | None, isa: str | None) -> Iterator[None]:
    """Other threads and another instruction set for a while."""
    before = num_threads(), build_info()["isa"]
    try:
        if threads is not None:
            set_num_threads(threads)
        if isa is not None:
            _bitnet.set_isa(isa)
        yield
    finally:
        set_num_threads(before[0])
        _bitnet.set_isa(before[1])


def _load(path: str | os.PathLike[str], options: SubjectOptions) -> BitNetModel:
    return BitNetModel.from_pretrained(
        path, head_dtype=options.get("head_dtype", "auto"), kv_dtype=options.get("kv_dtype", "float32"),
        packing=options.get("packing", "auto"), resident="copy", verify=False, **place(options),
    )  # fmt: skip


def place(options: SubjectOptions) -> dict[str, Any]:
    """The options of where a model comes from."""
    return {"revision": options.get("revision"), "local_files_only": options.get("local_files_only", False)}


def _random(shape: str, options: SubjectOptions, say: Say) -> BitNetModel:
    if not options.get("cache", True):
        say(f"making random weights of {shape}")
        return _made(shape, options)
    try:
        file = cached(shape, **options)
    except FileSystemError as error:
        say(f"no cache: {error}")
        return _made(shape, options)
    say(f"loading {file}")
    try:
        return _load(file, options)
    except FormatError:  # of another version
        file.unlink()
        return _load(cached(shape, **options), options)


def cached(shape: str, **options: Unpack[SubjectOptions]) -> Path:
    """The file with random weights of a shape in the user's cache directory, made if it is not there.

    Its name says the shape, the head, the density, base 3 and the seed. Raises FileSystemError where it cannot be written.
    """
    say = options.get("progress") or (lambda line: None)
    head, density, seed = _head(options), options.get("ffn_density"), options.get("seed", 0)
    config = _config(shape)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    parts = [
        find_model(shape).name,
        digest,
        "int4g64" if head == "int4" else head,  # files with one scale a row are no longer read
        *([f"density{density:g}"] if density is not None else []),
        *(["base3"] if options.get("packing") == "base3" else []),
        f"seed{seed}",
    ]
    file = cache_directory() / ("-".join(parts).replace("/", "_") + ".bitnet")
    if not file.exists():
        say(f"making random weights of {shape} and writing them to {file}")
        with _made(shape, options, head) as model:
            model.save_pretrained(file)
    return file


def cache_directory() -> Path:
    """Where random weights are kept: bitnet_rust/bench in the user's cache directory, which XDG_CACHE_HOME may name."""
    home = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    try:
        return (Path(os.environ.get("XDG_CACHE_HOME") or home) / "bitnet_rust" / "bench").expanduser()
    except RuntimeError as error:  # the home of nobody
        raise FileSystemError(f"there is no cache directory: {error}") from error


def _made(shape: str, options: SubjectOptions, head: str | None = None) -> BitNetModel:
    more: dict[str, Any] = {
        "head_format": head or options.get("head_dtype", "auto"),
        "kv_dtype": options.get("kv_dtype", "float32"),
        "packing": options.get("packing", "auto"),
    }
    if options.get("ffn_density") is not None:
        more["ffn_density"] = options["ffn_density"]
    return BitNetModel._random(_config(shape), options.get("seed", 0), **more)


def _config(shape: str) -> dict[str, Any]:
    """The config of a registered shape, with room for any context."""
    preset = find_model(shape)
    return preset.config.to_dict() | {"max_position_embeddings": max(CONTEXT, preset.config.max_position_embeddings)}


def _head(options: SubjectOptions) -> str:
    """How the head lies in a file: that of an exact one is made from it."""
    head = options.get("head_dtype", "auto")
    return "auto" if head == "exact" else head


def check_counts(**counts: tuple[Any, int]) -> None:
    """Refuses what is not a whole number of at least so much, given as name=(value, least)."""
    for name, (value, least) in counts.items():
        if whole_number(value, name, _ANY) < least:
            raise ArgumentError(f"{name} = {value}: expected at least {least}")


def check_list(name: str, values: Any, least: int, most: int) -> None:
    """Refuses what is not a list of one or more whole numbers from least to most."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ArgumentError(f"{name} = {values!r}: expected one number or more, in a list")
    for i, value in enumerate(values):
        whole_number(value, f"{name}[{i}]", range(least, most + 1))


def check_options(call: str, options: Mapping[str, Any]) -> None:
    """Refuses keywords that no benchmark has."""
    known = SubjectOptions.__annotations__
    if unknown := [name for name in options if name not in known]:
        raise TypeError(no_keyword(unknown, call, [*known]))
    if options.get("threads") is not None:
        whole_number(options["threads"], "threads", range(1, 1025))
    density = options.get("ffn_density")
    if not isinstance(density, int | float | None):
        raise DTypeError(f"ffn_density = {density!r}: expected a number")
    if density is not None and not 0 < density <= 0.5:
        raise ArgumentError(f"ffn_density = {density!r}: expected a number above 0, at most 0.5")
    if not isinstance(options.get("isa"), str | None):
        raise DTypeError(f"isa = {options['isa']!r}: expected the name of an instruction set, a text")


def chosen(shape: str | None, options: SubjectOptions) -> str:
    """The name of what is measured: a model's, or that of a shape. Refuses a shape beside a model, and the density of a model's weights."""
    model = options.get("model")
    if model is None:
        if shape == "from-model":
            raise ArgumentError("shape = 'from-model': expected a model with it")
        if options.get("revision") is not None:
            raise ArgumentError(f"revision = {options['revision']!r}: expected a model with it")
        return DEFAULT_SHAPE if shape is None else shape
    if shape not in (None, "from-model"):
        raise ArgumentError(f"shape = {shape!r}: expected 'from-model', or none, with model = {model!r}")
    if options.get("ffn_density") is not None:
        raise ArgumentError(
            f"ffn_density = {options['ffn_density']!r}: expected none with model = {model!r}, whose weights decide that"
        )
    return str(model)


_ANY = range(-(2**63), 2**63)
