"""Decoding one sequence: every weight is read once a token, so memory sets the limit."""

import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Unpack

from ..profile import Profile
from .burner import burning
from .machine import ReadLimit, machine, quantile, resident_bytes, spread
from .subject import Subject, SubjectOptions, check_counts, opened


def decode(
    shape: str | None = None,
    *,
    tokens: int = 64,
    prompt: int = 16,
    repeat: int = 5,
    burner: bool = False,
    profile: bool = False,
    **options: Unpack[SubjectOptions],
) -> dict[str, Any]:
    """Measure greedy decoding of one sequence against the read limit of memory.

    The run alternates between reading memory with plain loads and decoding, repetition by repetition, and states decoding as a fraction of
    what the machine could read *at that time*: the median token against the median of passes that take about as long. One more pass over
    the same tokens counts the bytes that they read.

    Raises ArgumentError for counts that measure nothing or do not fit into the model's context.

    shape: a registered model name, whose shape gets random weights from ``seed``; "2b" unless stated. With model none, or "from-model".
    tokens: decoded tokens in each repetition, at least 2.
    prompt: prompt tokens in each repetition, read before the clock starts.
    repeat: repetitions; each is preceded and followed by a measurement of the read limit.
    burner: decode once more after each repetition while another process keeps one core busy.
    profile: add the Profile of the counting pass, as "profile".

    The other options are those of ``SubjectOptions``.

    Gives a dictionary that ``json.dumps`` accepts, but for "profile"; bench/README.md explains every key.
    """
    check_counts(tokens=(tokens, 2), prompt=(prompt, 1), repeat=(repeat, 1))
    with opened("decode", shape, **options) as subject:
        subject.check_context(prompt, tokens)
        ids = subject.prompt(prompt)
        _token_times(subject, ids, min(8, tokens))  # page in, plan scratch, wake the workers
        counted = count_decoding(subject, ids, tokens)
        bytes_per_token = counted.bytes / counted.steps

        limit, repeats, gaps, disturbed = ReadLimit(), [], [], []
        for i in limit.around(repeat):
            times = _token_times(subject, ids, tokens)
            steps = [b - a for a, b in pairwise(times)]
            gaps.append(steps)
            if burner:
                with burning():
                    disturbed.append([b - a for a, b in pairwise(_token_times(subject, ids, tokens))])
            subject.say(
                f"{i + 1}/{repeat}: {len(steps) / sum(steps):.1f} tokens/s, memory {limit.measured[-1]:.1f} GB/s"
            )
        for i, steps in enumerate(gaps):
            step, needed = statistics.median(steps), bytes_per_token / limit.of(i) / 1e9  # seconds
            repeats.append(
                {
                    "tokens_per_second": len(steps) / sum(steps),
                    "token_ms_median": 1e3 * step,
                    "read_limit_gb_s": limit.of(i),
                    "fraction_of_limit": needed / step,
                }
            )
        every = [gap for steps in gaps for gap in steps]
        rss = resident_bytes()
        result: dict[str, Any] = {
            "benchmark": "decode",
            **subject.facts(),
            "prompt": prompt,
            "tokens": tokens,
            "repeat": repeat,
            **spread("tokens_per_second", [r["tokens_per_second"] for r in repeats]),
            "token_ms_min": 1e3 * min(every),
            "token_ms_median": 1e3 * statistics.median(every),
            "token_ms_p95": 1e3 * quantile(every, 0.95),
            "token_ms_max": 1e3 * max(every),
            "bytes_per_token": round(bytes_per_token),
            "gate_density": counted.gate_density,
            "down_density": counted.down_density,
            "head_rescored": counted.head_rescored,
            **spread("read_limit_gb_s", limit.measured),
            "fraction_of_limit": statistics.median(r["fraction_of_limit"] for r in repeats),
            "rss_bytes": rss,
            "rss_per_weight_byte": rss / subject.model.memory_footprint(),
            "repeats": repeats,
            "machine": machine(),
        }
        if burner:
            result["burner"] = _burned(gaps, disturbed)
        if profile:
            counted.read_limit_gb_s = result["read_limit_gb_s"]
            result["profile"] = counted
        return result


def _token_times(subject: Subject, prompt: list[int], tokens: int) -> list[float]:
    """When each of tokens greedy tokens was there, by time.perf_counter."""
    session = subject.model.session([prompt], max_new_tokens=tokens, ignore_eos=True)
    return [time.perf_counter() for _ in session]


def count_decoding(subject: Subject, prompt: list[int], tokens: int) -> Profile:
    """The profile of decoding, without reading the prompt."""
    pieces: Iterator[Any] = iter(subject.model.session([prompt], max_new_tokens=tokens, ignore_eos=True))
    next(pieces)
    with subject.model.profile(read_limit=False) as profile:
        for _ in pieces:
            pass
    return profile


def _burned(gaps: list[list[float]], disturbed: list[list[float]]) -> dict[str, Any]:
    """How decoding did beside a busy process, each repetition against the one before it."""
    every = [gap for steps in disturbed for gap in steps]
    ratios = [sum(alone) / sum(steps) for alone, steps in zip(gaps, disturbed, strict=True)]
    return {
        **spread("tokens_per_second", [len(steps) / sum(steps) for steps in disturbed]),
        **spread("relative_speed", ratios),
        "token_ms_median": 1e3 * statistics.median(every),
        "token_ms_max": 1e3 * max(every),
        "worst_over_median": max(every) / statistics.median(every),
    }
