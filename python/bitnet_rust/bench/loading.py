"""From a file to the first token, each start in a fresh process."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal, Unpack

from ..errors import ArgumentError, BitNetError
from ..hub import resolve
from ..model import BitNetModel
from ..runtime import build_info
from .machine import ReadLimit, machine, process_bytes, spread
from .subject import SubjectOptions, cached, check_counts, check_options, chosen, place, processor_settings

TIMES = ("import_ms", "ready_ms", "first_token_ms", "process_ms")


def load(
    shape: str | None = None,
    *,
    format: Literal["native", "hf", "gguf"] | None = None,
    resident: Literal["auto", "map", "copy"] = "auto",
    prompt: int = 1,
    repeat: int = 5,
    **options: Unpack[SubjectOptions],
) -> dict[str, Any]:
    """Measure how long a start takes, with the file in the system's cache.

    shape, options: as in ``decode``, but for kv_dtype and cache: keys and values are float32, and random weights always in a file.
    format: of that file: "native" unless stated, or what is converted on loading: "hf" for a Hugging Face checkpoint of packed weights,
        "gguf" for a file with I2_S weights. None with model, whose own is measured.
    resident: as in ``BitNetModel.from_pretrained``, of native files.
    prompt: tokens of the prompt, whose next token is the first one.
    repeat: starts; each is preceded and followed by a measurement of the read limit.

    Gives a dictionary with the medians and ranges of "import_ms" (of the package), "ready_ms" (from_pretrained), "first_token_ms" (from the
    beginning of from_pretrained to the first token) and "process_ms" (from starting the interpreter to its exit), and of one more start
    the memory of the process: "peak_rss_bytes" until its weights lay where they stay, and "rss_bytes" then. "format", "head_dtype" and
    "packing" are what the model that was loaded says.
    """
    check_counts(prompt=(prompt, 1), repeat=(repeat, 1))
    check_options("load", options)
    name = chosen(shape, options)
    if format not in (None, "native", "hf", "gguf"):
        raise ArgumentError(f"format = {format!r}: expected 'native', 'hf' or 'gguf'")
    if format is not None and options.get("model") is not None:
        raise ArgumentError(f"format = {format!r}: expected none with model = {name!r}, which has its own")
    if resident not in ("auto", "map", "copy"):
        raise ArgumentError(f"resident = {resident!r}: expected auto, map or copy")
    if resident != "auto" and format not in (None, "native"):
        raise ArgumentError(
            f"resident = {resident!r}: expected 'auto' with format = {format!r}, which is converted into memory"
        )
    if options.get("kv_dtype", "float32") != "float32":
        raise ArgumentError(f"kv_dtype = {options['kv_dtype']!r}: expected 'float32': a start makes one token")
    if not options.get("cache", True):
        raise ArgumentError(f"cache = {options['cache']!r}: expected True: a start needs a file")
    say = options.get("progress") or (lambda line: None)
    if options.get("model") is not None:
        path = resolve(name, **place(options))
    elif format in ("hf", "gguf"):
        path = exported(cached(name, **(options | SubjectOptions(head_dtype="auto", packing="auto"))), format)
    else:
        path = cached(name, **options)
    file_bytes = _read(path)
    command = [
        sys.executable, "-P", str(Path(__file__).with_name("child.py")), str(path), options.get("head_dtype", "auto"), options.get("packing", "auto"), resident,
        str(options.get("threads") or ""), options.get("isa") or "", str(prompt),
    ]  # fmt: skip
    with processor_settings(options.get("threads"), options.get("isa")):
        limit, starts = ReadLimit(), []
        loaded: dict[str, Any] = {}
        for i in limit.around(repeat):
            times, loaded = _start(command)
            starts.append(times)
            say(
                f"{i + 1}/{repeat}: ready in {starts[-1]['ready_ms']:.0f} ms, first token after {starts[-1]['first_token_ms']:.0f} ms"
            )
        memory = _memory(command)
        figures: dict[str, float] = {}
        for key in TIMES:
            figures |= spread(key, [one[key] for one in starts])
        info = build_info()
        weights = int(loaded["weight_bytes"])
        return {
            "benchmark": "load",
            "model": name,
            "format": loaded["format"],
            "resident": resident,
            "head_dtype": loaded["head_dtype"],
            "packing": loaded["packing"],
            "threads": int(info["threads"]),
            "isa": info["isa"],
            "prompt": prompt,
            "repeat": repeat,
            **figures,
            "file_bytes": file_bytes,
            "weight_bytes": weights,
            **memory,
            **{f"{key.removesuffix('bytes')}per_weight_byte": value / weights for key, value in memory.items()},
            **spread("read_limit_gb_s", limit.measured),
            "fraction_of_limit": statistics.median(
                weights / limit.of(i) / 1e6 / one["first_token_ms"] for i, one in enumerate(starts)
            ),
            "repeats": starts,
            "machine": machine(),
        }


def _memory(command: list[str]) -> dict[str, int]:
    """What a start takes in RAM, at most and in the end; nothing where the system does not say."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "watched"], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = {
            key: process_bytes(figure, process.pid)
            for key, figure in (("peak_rss_bytes", "VmHWM"), ("rss_bytes", "VmRSS"))
        }
        process.communicate()
    return {key: value for key, value in found.items() if value is not None}


def _start(command: list[str]) -> tuple[dict[str, float], dict[str, Any]]:
    """What the parts of a start took, and what the model that it loaded says of itself."""
    began = time.perf_counter()
    done = subprocess.run([*command, ""], capture_output=True, text=True)
    took = 1e3 * (time.perf_counter() - began)
    if done.returncode:
        raise BitNetError(f"a start failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    said = json.loads(done.stdout)
    return said["times"] | {"process_ms": took}, said["model"]


def exported(native: Path, format: Literal["hf", "gguf"]) -> Path:
    """The same weights in another format, beside the native file."""
    place = native.with_suffix(f".{format}")
    if not (place / "config.json" if format == "hf" else place).exists():
        with BitNetModel.from_pretrained(native, resident="map", verify=False) as model:
            model.save_pretrained(place, format=format)
    return place


def _read(path: Path) -> int:
    """Reads all files of a model, so that they are in the system's cache; gives their size."""
    total = 0
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with file.open("rb", buffering=0) as f:
            while piece := f.read(16 << 20):
                total += len(piece)
    return total
