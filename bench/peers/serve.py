"""What every side of the comparison does: it loads its model, and then measures what it is asked for, line by line.

It needs nothing but the standard library, since it also runs in the environments of other programs.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol


class Model(Protocol):
    """A program with a model in memory."""

    vocab: int

    def read(self, prompts: Sequence[list[int]]) -> None:
        """Forgets everything, and reads prompts, one for each sequence. NotImplementedError for more sequences than it can have."""

    def step(self) -> None:
        """Decodes one greedy token of each sequence."""


def serve(model: Model) -> None:
    """Answers tasks, JSON objects on standard input, with JSON objects on standard output, until there are no more."""
    tasks: dict[str, Callable[..., float]] = {"decode": _decode, "prompt": _prompt}
    _say({"ready": True})
    for line in sys.stdin:
        task = json.loads(line)
        rate: float | None = None
        with suppress(NotImplementedError):
            rate = tasks[task.pop("task")](model, **task)
        _say({"tokens_per_second": rate, "peak_rss": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss})


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _prompts(model: Model, length: int, sequences: int) -> list[list[int]]:
    return [[(7 * i + 13 * s + 1) % model.vocab for i in range(length)] for s in range(sequences)]


def _decode(model: Model, tokens: int, prompt: int, sequences: int = 1) -> float:
    """Tokens a second of all sequences together, after their prompts."""
    model.read(_prompts(model, prompt, sequences))
    model.step()
    start = time.perf_counter()
    for _ in range(tokens):
        model.step()
    return sequences * tokens / (time.perf_counter() - start)


def _prompt(model: Model, tokens: int) -> float:
    """Tokens a second of reading a prompt."""
    prompts = _prompts(model, tokens, 1)
    start = time.perf_counter()
    model.read(prompts)
    return tokens / (time.perf_counter() - start)
