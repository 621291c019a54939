"""Reading a prompt: weights are read once for many tokens, so the processor's integer units set the limit."""

import statistics
import time
from typing import Any, Unpack

from .machine import ReadLimit, machine, spread
from .subject import SubjectOptions, check_counts, opened


def prefill(
    shape: str | None = None,
    *,
    tokens: int = 512,
    repeat: int = 5,
    profile: bool = False,
    **options: Unpack[SubjectOptions],
) -> dict[str, Any]:
    """Measure how fast a prompt is read: from the call to the first token that follows it.

    shape, options: as in ``decode``.
    tokens: of the prompt.
    repeat: repetitions; each is preceded and followed by a measurement of the read limit.
    profile: add the Profile of one more repetition, as "profile".

    Gives a dictionary as that of ``decode``.
    """
    check_counts(tokens=(tokens, 1), repeat=(repeat, 1))
    with opened("prefill", shape, **options) as subject:
        subject.check_context(tokens, 0)
        ids, model = subject.prompt(tokens), subject.model

        def read() -> float:
            start = time.perf_counter()
            list(model.session([ids], max_new_tokens=1, ignore_eos=True))
            return time.perf_counter() - start

        read()  # page in, plan scratch, wake the workers
        with model.profile(read_limit=False) as counted:
            read()
        bytes_per_token = counted.bytes / tokens
        limit, seconds = ReadLimit(), []
        for i in limit.around(repeat):
            seconds.append(read())
            subject.say(f"{i + 1}/{repeat}: {tokens / seconds[-1]:.1f} tokens/s, memory {limit.measured[-1]:.1f} GB/s")
        speeds = [tokens / s for s in seconds]
        result: dict[str, Any] = {
            "benchmark": "prefill",
            **subject.facts(),
            "tokens": tokens,
            "repeat": repeat,
            **spread("tokens_per_second", speeds),
            "first_token_ms": 1e3 * statistics.median(seconds),
            "bytes_per_token": round(bytes_per_token),
            **spread("read_limit_gb_s", limit.measured),
            "fraction_of_limit": statistics.median(
                speed * bytes_per_token / limit.of(i) / 1e9 for i, speed in enumerate(speeds)
            ),
            "repeats": [{"tokens_per_second": speed, "read_limit_gb_s": limit.of(i)} for i, speed in enumerate(speeds)],
            "machine": machine(),
        }
        if profile:
            counted.read_limit_gb_s = result["read_limit_gb_s"]
            result["profile"] = counted
        return result
