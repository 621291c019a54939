"""What a saved model says of itself: model card, licence, provenance, training history."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ArgumentError

# Of these keys the value is JSON.
_STRUCTURED = ("provenance", "training_history")

# Records that a history keeps, over all its runs: enough for a curve.
_RECORDS = 1000
_RUNS = 100

# What is different each time that a run is repeated, or only of this machine.
_VOLATILE = ("seconds", "tokens_per_second", "mfu", "pool_bytes", "rss_bytes")


def decode(texts: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a file, with what is JSON in them as objects. What cannot be read stays a text."""
    decoded: dict[str, Any] = dict(texts)
    for key in _STRUCTURED:
        if key in decoded:
            try:
                decoded[key] = json.loads(decoded[key])
            except (ValueError, RecursionError):
                continue
    return decoded


def encode(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The same as texts: a value that is no text becomes JSON, and None, which removes a key, nothing."""
    texts = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise TypeError(f"metadata: expected names as keys, found {key!r}")
        if value is None or isinstance(value, str):
            texts[key] = value or ""
            continue
        try:
            texts[key] = json.dumps(value, allow_nan=False, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(f"metadata: {key!r}: expected a text, or what JSON has: {error}") from None
    return texts


def add_run(history: Any, run: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A training history with one more run; the records of its longest runs become fewer when there are too many."""
    runs: list[Any] = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    stable = [{name: _plain(value) for name, value in r.items() if name not in _VOLATILE} for r in records]
    runs = [*runs, {**run, "records": stable}][-_RUNS:]
    while sum(map(_length, runs)) > _RECORDS:
        longest = max(range(len(runs)), key=lambda i: _length(runs[i]))
        runs[longest] = runs[longest] | {"records": _half(runs[longest]["records"])}
    return runs


def _length(run: dict[str, Any]) -> int:
    records = run.get("records")
    return len(records) if isinstance(records, list) else 0


def _half(records: list[Any]) -> list[Any]:
    """Of every two records the one with an evaluation, else the later one."""
    pairs = [records[at : at + 2] for at in range(0, len(records), 2)]
    return [next((r for r in pair if "eval_loss" in r), pair[-1]) for pair in pairs]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
