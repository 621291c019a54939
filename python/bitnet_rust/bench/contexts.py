"""How decoding and reading a prompt slow down as the context grows."""

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from typing import Any, Unpack

from ..profile import Profile
from .batches import COUNTED
from .machine import ReadLimit, machine, spread
from .subject import CONTEXT, Subject, SubjectOptions, check_counts, check_list, opened

LENGTHS = (128, 1024, 4096, 8192)


def context(
    shape: str | None = None,
    *,
    lengths: Sequence[int] = LENGTHS,
    tokens: int = 32,
    repeat: int = 1,
    profile: bool = False,
    **options: Unpack[SubjectOptions],
) -> dict[str, Any]:
    """Measure decoding after prompts of several lengths, and reading these prompts, in turns: every repetition has all lengths.

    shape, options: as in ``decode``.
    lengths: of the prompts, in tokens.
    tokens: decoded after each prompt, at least 2.
    repeat: repetitions; each is preceded and followed by a measurement of the read limit.
    profile: add the Profile of some tokens after the last length, as "profile".

    Gives a dictionary as that of ``decode``, whose own figures are those of the last length; "lengths" has those of each.
    """
    check_counts(tokens=(tokens, 2), repeat=(repeat, 1))
    check_list("lengths", lengths, 1, CONTEXT)
    with opened("context", shape, **options) as subject:
        subject.check_context(max(lengths), tokens + COUNTED)
        _run(subject, min(lengths), 2)
        limit, runs = ReadLimit(), {length: list[tuple[float, float, Profile]]() for length in lengths}
        for i in limit.around(repeat):
            for length in lengths:
                runs[length].append(_run(subject, length, tokens))
                prompt, step, _ = runs[length][-1]
                subject.say(
                    f"{i + 1}/{repeat}: {length} tokens at {length / prompt:.1f}/s, then {1 / step:.1f} tokens/s"
                )
        rows = []
        for length in lengths:
            decoded = [1 / step for _, step, _ in runs[length]]
            read = [length / prompt for prompt, _, _ in runs[length]]
            counted = runs[length][-1][2]
            a_token = counted.bytes / counted.steps
            rows.append(
                {
                    "context": length,
                    **spread("tokens_per_second", decoded),
                    "over_first": statistics.median(a * b[1] for a, b in zip(decoded, runs[lengths[0]], strict=True)),
                    **spread("prompt_tokens_per_second", read),
                    "bytes_per_token": round(a_token),
                    "gate_density": counted.gate_density,
                    "down_density": counted.down_density,
                    "fraction_of_limit": statistics.median(
                        speed * a_token / limit.of(i) / 1e9 for i, speed in enumerate(decoded)
                    ),
                }
            )
        last = {key: value for key, value in rows[-1].items() if key not in ("context", "over_first")}
        result: dict[str, Any] = {
            "benchmark": "context",
            **subject.facts(),
            "tokens": tokens,
            "repeat": repeat,
            **last,
            **spread("read_limit_gb_s", limit.measured),
            "lengths": rows,
            "machine": machine(),
        }
        if profile:
            shown = runs[lengths[-1]][-1][2]
            shown.read_limit_gb_s = result["read_limit_gb_s"]
            result["profile"] = shown
        return result


def _run(subject: Subject, length: int, tokens: int) -> tuple[float, float, Profile]:
    """Seconds of the prompt, median seconds of a token after it, and the profile of some more tokens."""
    start = time.perf_counter()
    session = subject.model.session([subject.prompt(length)], max_new_tokens=tokens + COUNTED, ignore_eos=True)
    with closing(iter(session)) as pieces:
        times = []
        for _ in range(tokens):
            next(pieces)
            times.append(time.perf_counter())
        with subject.model.profile(read_limit=False) as profile:
            for _ in pieces:
                pass
    return times[0] - start, statistics.median(b - a for a, b in pairwise(times)), profile
