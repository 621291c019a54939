"""Decoding many sequences at once: each reading of the weights serves all of them."""

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Unpack

from ..profile import Profile
from .machine import ReadLimit, machine, spread
from .subject import Subject, SubjectOptions, check_counts, check_list, opened

SIZES = (1, 2, 4, 8, 16, 32)
MOST = 32  # sequences of one generation that run at once


def batch(
    shape: str | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    tokens: int = 32,
    prompt: int = 16,
    repeat: int = 3,
    profile: bool = False,
    **options: Unpack[SubjectOptions],
) -> dict[str, Any]:
    """Measure greedy decoding of several sequences at once, in turns: every repetition has all sizes.

    shape, options: as in ``decode``.
    sizes: how many sequences, up to 32.
    tokens: decoded tokens of each sequence, at least 2. The clock starts when all have read their prompts.
    prompt: prompt tokens of each sequence; all prompts differ.
    repeat: repetitions; each is preceded and followed by a measurement of the read limit.
    profile: add the Profile of some steps of the last size, as "profile".

    Gives a dictionary as that of ``decode``, whose own figures are those of the last size; "sizes" has those of each.
    """
    check_counts(tokens=(tokens, 2), prompt=(prompt, 1), repeat=(repeat, 1))
    check_list("sizes", sizes, 1, MOST)
    with opened("batch", shape, **options) as subject:
        subject.check_context(prompt, tokens + COUNTED + spare(max(sizes), prompt))
        counted = {size: _decode(subject, size, prompt, 2, count=True)[1] for size in sizes}
        limit, seconds = ReadLimit(), {size: list[float]() for size in sizes}
        for i in limit.around(repeat):
            for size in sizes:
                seconds[size].append(_decode(subject, size, prompt, tokens)[0])
            speeds = ", ".join(f"{size} x {tokens_a_second(size, tokens, seconds[size][-1]):.1f}" for size in sizes)
            subject.say(f"{i + 1}/{repeat}: {speeds} tokens/s")
        rows = []
        for size in sizes:
            speeds_of = [tokens_a_second(size, tokens, s) for s in seconds[size]]
            first = [tokens_a_second(sizes[0], tokens, s) for s in seconds[sizes[0]]]
            profiled = counted[size]
            assert profiled is not None
            a_token = profiled.bytes / profiled.rows
            rows.append(
                {
                    "sequences": size,
                    **spread("tokens_per_second", speeds_of),
                    "over_first": statistics.median(a / b for a, b in zip(speeds_of, first, strict=True)),
                    "step_ms": 1e3 * size / statistics.median(speeds_of),
                    "bytes_per_token": round(a_token),
                    "fraction_of_limit": statistics.median(
                        speed * a_token / limit.of(i) / 1e9 for i, speed in enumerate(speeds_of)
                    ),
                }
            )
        last = {key: value for key, value in rows[-1].items() if key not in ("sequences", "over_first", "step_ms")}
        result: dict[str, Any] = {
            "benchmark": "batch",
            **subject.facts(),
            "prompt": prompt,
            "tokens": tokens,
            "repeat": repeat,
            **last,
            **spread("read_limit_gb_s", limit.measured),
            "sizes": rows,
            "machine": machine(),
        }
        if profile:
            shown = counted[sizes[-1]]
            assert shown is not None
            shown.read_limit_gb_s = result["read_limit_gb_s"]
            result["profile"] = shown
        return result


def tokens_a_second(size: int, tokens: int, seconds: float) -> float:
    """Speed of all sequences together, from the first token of each to its last."""
    return size * (tokens - 1) / seconds


COUNTED = 4  # steps whose bytes are counted


def spare(size: int, prompt: int) -> int:
    """How many tokens the first sequence of a batch may be ahead of the last: a step reads at least 60 tokens of prompts."""
    return size * prompt // 60 + 2


def _decode(subject: Subject, size: int, prompt: int, tokens: int, count: bool = False) -> tuple[float, Profile | None]:
    """Seconds from the moment when every sequence has its first token to that when all have tokens; with count, the profile of some
    steps more."""
    prompts = [subject.prompt(prompt, first=i + 1) for i in range(size)]
    most = tokens + (COUNTED if count else 0) + spare(size, prompt)
    made = [0] * size
    session = subject.model.session(prompts, max_new_tokens=most, ignore_eos=True)
    with closing(iter(session)) as pieces:

        def until(least: int) -> None:
            while min(made) < least:
                made[next(pieces).index] += 1

        until(1)
        start = time.perf_counter()
        until(tokens)
        seconds = time.perf_counter() - start
        if not count:
            return seconds, None
        with subject.model.profile(read_limit=False) as profile:
            until(tokens + COUNTED)
        return seconds, profile
