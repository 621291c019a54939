"""Speed of this machine, measured so that the figures explain themselves.

Decoding one sequence reads every weight once a token, so memory sets its limit. :func:`decode` therefore measures both in one run: it
alternates between reading memory with plain loads and decoding, repetition by repetition, and states decoding as a fraction
of what the machine could read *at that time*. A machine that slows down half-way shows in both figures and in ``repeats``, not in the fraction.

``python -m bench`` in the repository and ``bitnet bench`` are this module.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from . import _bitnet
from .errors import ArgumentError
from .model import BitNetModel
from .runtime import build_info, num_threads, set_num_threads

__all__ = ["app", "decode", "processor", "report"]

# Larger than last-level caches, so that the limit is memory's, and small beside the models that are measured.
READ_BYTES = 512 << 20
READ_SECONDS = 0.4
FLOAT_BYTES = 4


def decode(
    shape: str = "2b",
    *,
    model: str | None = None,
    threads: int | None = None,
    head_dtype: str = "auto",
    tokens: int = 64,
    prompt: int = 16,
    repeat: int = 5,
    seed: int = 0,
    ffn_density: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure greedy decoding of one sequence against the read limit of memory.

    Raises ArgumentError for counts that measure nothing or do not fit into the model's context.

    Args:
        shape: a registered model name, whose shape gets random weights from ``seed``.
        model: a directory, file or name for ``from_pretrained``; measured instead of ``shape``.
        threads: worker threads; default as ``num_threads()``.
        head_dtype: "auto", "bfloat16", "int8" or "int4" for embedding and output head.
        tokens: decoded tokens in each repetition, at least 2.
        prompt: prompt tokens in each repetition, read before the clock starts.
        ffn_density: share of feed-forward neurons that are on for a token, up to 0.5, of random weights for squared ReLU.
        repeat: repetitions; each is preceded and followed by a measurement of the read limit.
        progress: called with a line about what happens next.

    Returns:
        A dictionary that ``json.dumps`` accepts; bench/README.md explains every key.
    """
    for name, value, least in (("tokens", tokens, 2), ("prompt", prompt, 1), ("repeat", repeat, 1)):
        if value < least:
            raise ArgumentError(f"{name} = {value}: expected at least {least}")
    say = progress or (lambda line: None)
    before = num_threads()
    if threads is not None:
        set_num_threads(threads)
    try:
        say(f"building {model or shape}")
        start = time.perf_counter()
        with _open(model, shape, head_dtype, seed, ffn_density) as m:
            return _measure(m, model or shape, time.perf_counter() - start, tokens, prompt, repeat, say)
    finally:
        set_num_threads(before)


def _open(model: str | None, shape: str, head_dtype: str, seed: int, ffn_density: float | None) -> BitNetModel:
    if model is not None:
        return BitNetModel.from_pretrained(model, head_dtype=head_dtype, memory="copied")
    if ffn_density is not None:
        return BitNetModel._random(shape, seed, head_format=head_dtype, ffn_density=ffn_density)
    return BitNetModel.from_config(shape, seed=seed, head_dtype=head_dtype)


def _measure(
    m: BitNetModel, name: str, build_seconds: float, tokens: int, prompt: int, repeat: int, say: Callable[[str], None]
) -> dict[str, Any]:
    info, config = build_info(), m.config
    threads = int(info["threads"])
    if prompt + tokens > config.max_position_embeddings:
        raise ArgumentError(
            f"prompt + tokens = {prompt + tokens}: expected at most max_position_embeddings = "
            f"{config.max_position_embeddings} of {name}"
        )
    ids = [(7 * i + 1) % config.vocab_size for i in range(prompt)]
    _token_times(m, ids, 8)  # page in, plan scratch, wake the workers

    bytes_per_token = _bytes_per_token(m, context=prompt + (tokens - 1) / 2)
    limits = [_read_limit(threads)]
    repeats: list[dict[str, Any]] = []
    gaps: list[float] = []
    for i in range(repeat):
        times = _token_times(m, ids, tokens)
        limits.append(_read_limit(threads))
        steps = [b - a for a, b in pairwise(times)]
        gaps += steps
        speed = len(steps) / sum(steps)
        limit = (limits[-2] + limits[-1]) / 2
        needed = bytes_per_token / limit / 1e9  # seconds
        repeats.append(
            {
                "tokens_per_second": speed,
                "read_limit_gb_s": limit,
                "fraction_of_limit": speed * needed,
                "fraction_of_limit_best": needed / min(steps),
            }
        )
        say(f"{i + 1}/{repeat}: {speed:.1f} tokens/s, memory {limit:.1f} GB/s")

    speeds = [r["tokens_per_second"] for r in repeats]
    weight_bytes = m.memory_footprint()
    rss = _resident_bytes()
    return {
        "benchmark": "decode",
        "model": name,
        "parameters": m.num_parameters(),
        "head_dtype": m.head_dtype,
        "threads": threads,
        "isa": info["isa"],
        "prompt": prompt,
        "tokens": tokens,
        "repeat": repeat,
        "tokens_per_second": statistics.median(speeds),
        "tokens_per_second_min": min(speeds),
        "tokens_per_second_max": max(speeds),
        "token_ms_min": 1e3 * min(gaps),
        "token_ms_median": 1e3 * statistics.median(gaps),
        "token_ms_p95": 1e3 * _quantile(gaps, 0.95),
        "bytes_per_token": round(bytes_per_token),
        "read_limit_gb_s": statistics.median(limits),
        "read_limit_gb_s_min": min(limits),
        "read_limit_gb_s_max": max(limits),
        "fraction_of_limit": statistics.median(r["fraction_of_limit"] for r in repeats),
        "fraction_of_limit_best": statistics.median(r["fraction_of_limit_best"] for r in repeats),
        "weight_bytes": weight_bytes,
        "rss_bytes": rss,
        "rss_per_weight_byte": rss / weight_bytes,
        "build_seconds": build_seconds,
        "repeats": repeats,
        "machine": _machine(info),
    }


def _token_times(m: BitNetModel, prompt: list[int], tokens: int) -> list[float]:
    """When each of tokens greedy tokens was there, by time.perf_counter."""
    return [time.perf_counter() for _ in m.session([prompt], max_new_tokens=tokens, ignore_eos=True)]


def _read_limit(threads: int) -> float:
    """GB/s that this many threads read from memory, now."""
    limit: float = _bitnet.read_bandwidth(threads, READ_BYTES, READ_SECONDS)
    return limit


def _bytes_per_token(m: BitNetModel, context: float) -> float:
    """Bytes that decoding a token reads: every weight once, and the keys and values of the context before it.

    Of an embedding table that is not also the output head (it has the checkpoint's precision then) one row is read.
    """
    config = m.config
    head_dim = -(-config.head_dim // 16) * 16
    cache = 2 * FLOAT_BYTES * config.num_hidden_layers * config.num_key_value_heads * head_dim * context
    weights = m.memory_footprint()
    if not config.tie_word_embeddings:
        dtype = "bfloat16" if config.dtype == "bfloat16" else "float32"
        weights -= _table_bytes(config.vocab_size, config.hidden_size, dtype)
    total: float = weights + cache
    return total


def _table_bytes(rows: int, cols: int, dtype: str) -> int:
    """Bytes of a float matrix in memory: panels of 16 rows, columns padded to 4."""
    return -(-rows // 16) * 16 * -(-cols // 4) * 4 * (2 if dtype == "bfloat16" else FLOAT_BYTES)


def _resident_bytes() -> int:
    """Memory of this process that is in RAM now; where the system does not say, the most it ever was."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def _machine(info: dict[str, Any]) -> dict[str, Any]:
    return {
        "processor": processor(),
        "physical_cores": info["physical_cores"],
        "supported_isas": info["supported_isas"],
        "system": platform.platform(),
        "python": platform.python_version(),
        "go": info["go_version"],
        "bitnet_rust": info["version"],
    }


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def report(result: dict[str, Any]) -> str:
    """The result of decode in a few lines for people."""
    r, machine = result, result["machine"]
    reads = r["bytes_per_token"]
    rows = {
        "machine": f"{machine['processor']}, {machine['physical_cores']} physical cores, {machine['system']}",
        "model": f"{r['model']}: {r['parameters'] / 1e6:.1f} M parameters, {r['head_dtype']} head",
        "kernels": f"{r['isa']}, {r['threads']} threads",
        "decode": f"{_spread(r, 'tokens_per_second')} tokens/s",
        "a token": f"{r['token_ms_median']:.2f} ms, the fastest {r['token_ms_min']:.2f}, 95 % at most {r['token_ms_p95']:.2f}",
        "reads": f"{reads / 1e6:.1f} MB a token, {r['tokens_per_second'] * reads / 1e9:.2f} GB/s",
        "read limit": f"{_spread(r, 'read_limit_gb_s')} GB/s, in the same run",
        "fraction": f"{100 * r['fraction_of_limit']:.1f} % of the read limit, "
        f"the fastest tokens {100 * r['fraction_of_limit_best']:.1f} %",
        "memory": f"{r['rss_bytes'] / 1e6:.1f} MB resident, {r['rss_per_weight_byte']:.2f} x weights of "
        f"{r['weight_bytes'] / 1e6:.1f} MB",
    }
    return "\n".join(f"{name:<11}{text}" for name, text in rows.items())


def _spread(r: dict[str, Any], key: str) -> str:
    return f"{r[key]:.2f} ({r[key + '_min']:.2f} to {r[key + '_max']:.2f})"


app = typer.Typer(help="Measure this machine.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure this machine."""


@app.command("decode")
def _decode_command(
    shape: Annotated[str, typer.Option(help="Shape for random weights: a registered name, such as 2b or 0.7b.")] = "2b",
    model: Annotated[str | None, typer.Option(help="Directory or name of a model to load and measure instead.")] = None,
    threads: Annotated[int | None, typer.Option(help="Worker threads.", show_default="all physical cores")] = None,
    head_dtype: Annotated[str, typer.Option(help="Embedding and output head: auto, bfloat16, int8 or int4.")] = "auto",
    tokens: Annotated[int, typer.Option(min=2, help="Decoded tokens in each repetition.")] = 64,
    prompt: Annotated[int, typer.Option(min=1, help="Prompt tokens, read before the clock starts.")] = 16,
    repeat: Annotated[int, typer.Option(min=1, help="Repetitions.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random weights.")] = 0,
    ffn_density: Annotated[
        float | None,
        typer.Option(
            help="Share of feed-forward neurons that are on, up to 0.5.", show_default="as random weights have it"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Greedy decoding of one sequence, as a fraction of what memory allows."""
    result = decode(
        shape, model=model, threads=threads, head_dtype=head_dtype, tokens=tokens, prompt=prompt, repeat=repeat, seed=seed,
        ffn_density=ffn_density,
        progress=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    print(json.dumps(result, indent=2) if as_json else report(result))
