"""Guessing tokens where text repeats itself: a step that checks several costs little more than one that makes one."""

import statistics
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import Any, Unpack

from ..errors import ArgumentError
from ..profile import Profile
from .machine import ReadLimit, machine, spread
from .subject import Subject, SubjectOptions, check_counts, check_list, opened

COUNTS = (0, 2, 4, 8, 16)
MOST = 16  # tokens of a guess


def guess(
    shape: str | None = None,
    *,
    counts: Sequence[int] = COUNTS,
    tokens: int = 64,
    text: str | None = None,
    repeat: int = 3,
    profile: bool = False,
    **options: Unpack[SubjectOptions],
) -> dict[str, Any]:
    """Measure greedy decoding with prompt lookup of so many tokens, in turns: every repetition has all counts.

    What is continued begins with a text, the model's own continuation of it, and the text again: a model that quotes goes on with what
    is there already. Random weights never do; they are made to say one token, so that every guess is right and the result is the most
    that guessing can bring.

    shape, options: as in ``decode``.
    counts: of tokens that are guessed at a time, 0 for none to 16.
    tokens: decoded tokens, at least 2. The clock starts with the first one.
    text: to continue; only of a model that has a tokenizer.
    repeat: repetitions; each is preceded and followed by a measurement of the read limit.
    profile: add the Profile of decoding with the last count, as "profile".

    Gives a dictionary as that of ``decode``, whose own figures are those of the last count; "counts" has those of each.
    """
    check_counts(tokens=(tokens, 2), repeat=(repeat, 1))
    check_list("counts", counts, 0, MOST)
    with opened("guess", shape, **options) as subject:
        prompt, sampling = _quoting(subject, text, tokens)
        subject.check_context(len(prompt), tokens)
        counted = {count: _decode(subject, prompt, tokens, count, sampling, profiled=True)[1] for count in counts}
        limit, seconds = ReadLimit(), {count: list[float]() for count in counts}
        for i in limit.around(repeat):
            for count in counts:
                seconds[count].append(_decode(subject, prompt, tokens, count, sampling)[0])
            subject.say(
                f"{i + 1}/{repeat}: "
                + ", ".join(f"{count} guesses {(tokens - 1) / seconds[count][-1]:.1f}" for count in counts)
                + " tokens/s"
            )
        rows = []
        for count in counts:
            speeds = [(tokens - 1) / s for s in seconds[count]]
            first = [(tokens - 1) / s for s in seconds[counts[0]]]
            profiled = counted[count]
            assert profiled is not None
            rows.append(
                {
                    "guesses": count,
                    **spread("tokens_per_second", speeds),
                    "over_first": statistics.median(a / b for a, b in zip(speeds, first, strict=True)),
                    "tokens_per_step": (tokens - 1) / profiled.steps,
                    "bytes_per_token": round(profiled.bytes / (tokens - 1)),
                }
            )
        last = {
            key: value for key, value in rows[-1].items() if key not in ("guesses", "over_first", "tokens_per_step")
        }
        result: dict[str, Any] = {
            "benchmark": "guess",
            **subject.facts(),
            "prompt": len(prompt),
            "tokens": tokens,
            "repeat": repeat,
            "quotes": not sampling,
            **last,
            **spread("read_limit_gb_s", limit.measured),
            "fraction_of_limit": statistics.median(
                (tokens - 1) / s * last["bytes_per_token"] / limit.of(i) / 1e9
                for i, s in enumerate(seconds[counts[-1]])
            ),
            "counts": rows,
            "machine": machine(),
        }
        if profile:
            shown = counted[counts[-1]]
            assert shown is not None
            shown.read_limit_gb_s = result["read_limit_gb_s"]
            result["profile"] = shown
        return result


# What a model that comes with the package knows by heart.
TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n"


def _quoting(subject: Subject, text: str | None, tokens: int) -> tuple[list[int], dict[str, Any]]:
    """A prompt after which much is said again, and the sampling options for that."""
    model = subject.model
    tokenizer = model._tokenizer_or_none
    if tokenizer is None:
        if text is not None:
            raise ArgumentError(f"text = {text!r}: {subject.name} has no tokenizer")
        return subject.prompt(16), {"logit_bias": {1: 100.0}}
    start = list(tokenizer.encode(TEXT if text is None else text))
    subject.check_context(2 * len(start) + tokens, tokens)
    return [*start, *model.generate(start, max_new_tokens=tokens, ignore_eos=True), *start], {}


def _decode(
    subject: Subject, prompt: list[int], tokens: int, count: int, sampling: dict[str, Any], profiled: bool = False
) -> tuple[float, Profile | None]:
    """Seconds from the first token to the last, and the profile of that time."""
    session = subject.model.session(
        [prompt], max_new_tokens=tokens, ignore_eos=True, prompt_lookup_num_tokens=count, **sampling
    )
    with closing(iter(session)) as pieces:
        next(pieces)
        profile = subject.model.profile(read_limit=False) if profiled else None
        with profile or nullcontext():
            start = time.perf_counter()
            for _ in pieces:
                pass
            return time.perf_counter() - start, profile
