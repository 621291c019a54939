"""Where the time of a model's steps goes: ``with model.profile() as profile: model.generate(...)``."""

import json
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self

from . import _bitnet
from .errors import ArgumentError
from .files import write_text
from .runtime import num_threads

# Larger than last-level caches, so that the limit is memory's.
READ_BYTES = 512 << 20
READ_SECONDS = 0.4

By = Literal["op", "layer", "both"]


@dataclass(frozen=True)
class OpTime:
    """What one kind of work took, in one layer or in all, over all recorded steps.

    layer: its number from 0; None for work of no layer, or of all.
    op: "qkv", "attention" and so on; empty for all of a layer.
    count: how many times it was done.
    seconds: the time it took.
    bytes: that it read of weights, keys and values.
    multiplications: with weights, keys and values.
    """

    layer: int | None
    op: str
    count: int
    seconds: float
    bytes: int
    multiplications: int = 0

    @property
    def gb_s(self) -> float:
        """1e9 bytes a second."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0


class Profile:
    """The times of the steps that a model takes between entering and leaving a ``with`` block, whoever asks for them.

    Recording costs about a microsecond for each layer; a model that is not being profiled pays nothing.
    A second profile of a model at the same time raises ArgumentError.

    ``print(profile)`` is a table, ``save`` writes a trace for https://ui.perfetto.dev or chrome://tracing.

    ops: an ``OpTime`` for each kind of work in each layer; their seconds add up to ``seconds``. "norm+quantize" makes the int8 input of
        the projection after it; "gate+up" is one job, and "gate" and "up" are two where some ten rows decide by their gates whether to
        skip neurons.
    seconds: time within steps and sampling. Python's share, between them, is not part of it.
    steps, rows: how many steps, and tokens in all of them.
    gate_density: share of the feed-forward gates that were open, of the steps that worked neuron by neuron; None if there were none.
    down_density: share of the inputs of the down projection that were not zero after rounding to int8, likewise.
    head_rescored: share of the rows of an "exact" head that were computed in full precision, as their int8 scores left them among the
        largest; None if no step had such a head.
    read_limit_gb_s: how fast memory could be read when the block ended, with the same number of threads, in 1e9 bytes a second.
    dropped: how many spans of a long run are missing in the trace (after 262144); the totals have them all.
    """

    def __init__(self, model: _bitnet.Model, *, read_limit: bool = True) -> None:
        self._model = model
        self._measure = read_limit
        self._data: dict[str, Any] | None = None
        self.read_limit_gb_s: float | None = None

    def __enter__(self) -> Self:
        self._model.start_profile()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._data = json.loads(self._model.stop_profile())
        if self._measure and error is None:
            self.read_limit_gb_s = _bitnet.read_bandwidth(num_threads(), READ_BYTES, READ_SECONDS)

    def _recorded(self) -> dict[str, Any]:
        if self._data is None:
            raise ArgumentError("the profile is not complete: leave its with block first")
        return self._data

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return int(self._recorded()["steps"])

    @property
    def rows(self) -> int:
        """Tokens in all steps."""
        return int(self._recorded()["rows"])

    @property
    def seconds(self) -> float:
        """Time within steps and sampling."""
        return float(self._recorded()["seconds"])

    @property
    def gate_density(self) -> float | None:
        """Share of the feed-forward gates that were open; None if no step worked neuron by neuron."""
        density: float | None = self._recorded()["gate_density"]
        return density

    @property
    def down_density(self) -> float | None:
        """Share of the inputs of the down projection that were not zero, likewise."""
        density: float | None = self._recorded()["down_density"]
        return density

    @property
    def head_rescored(self) -> float | None:
        """Share of the rows of an "exact" head that were computed in full precision; None if no step had such a head."""
        share: float | None = self._recorded()["head_rescored"]
        return share

    @property
    def dropped(self) -> int:
        """Spans that are missing in the trace."""
        return int(self._recorded()["dropped"])

    @property
    def bytes(self) -> int:
        """All that was read of weights, keys and values."""
        return sum(one.bytes for one in self.ops)

    @property
    def ops(self) -> list[OpTime]:
        """Each kind of work in each layer."""
        return [OpTime(**total) for total in self._recorded()["totals"]]

    def by(self, by: By = "op") -> list[OpTime]:
        """Sums: of each kind of work over all layers ("op"), of each layer over all kinds ("layer"), or both apart ("both")."""
        if by not in ("op", "layer", "both"):
            raise ArgumentError(f"by = {by!r}: expected 'op', 'layer' or 'both'")
        if by == "both":
            return self.ops
        sums: dict[Any, OpTime] = {}
        order = {name: i for i, name in enumerate(self._recorded()["ops"])}
        for one in self.ops:
            key: Any = order[one.op] if by == "op" else -1 if one.layer is None else one.layer
            name, layer = (one.op, None) if by == "op" else ("", one.layer)
            last = sums.get(key, OpTime(layer, name, 0, 0.0, 0, 0))
            sums[key] = OpTime(
                layer, name, last.count + one.count, last.seconds + one.seconds, last.bytes + one.bytes,
                last.multiplications + one.multiplications,
            )  # fmt: skip
        return [sums[key] for key in sorted(sums)]

    def table(self, by: By = "op") -> str:
        """The sums of ``by``, as averages of a step, with the share of the time and the speed of reading."""
        steps, total = max(1, self.steps), self.seconds
        rows: list[tuple[str, ...]] = [("layer", "op", "ms/step", "time", "MB/step", "GB/s", "of limit")]
        rows += [
            self._line("" if one.layer is None else str(one.layer), one.op or ("" if one.layer is not None else "(no layer)"), one, steps, total)
            for one in self.by(by)
        ]  # fmt: skip
        rows.append(self._line("", "all", OpTime(None, "all", self.steps, total, self.bytes), steps, total))
        if by == "op":
            rows = [row[1:] for row in rows]
        left = 2 if by != "op" else 1
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                text.ljust(width) if i < left else text.rjust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    def _line(self, layer: str, name: str, one: OpTime, steps: int, total: float) -> tuple[str, ...]:
        limit = self.read_limit_gb_s
        share = f"{100 * one.seconds / total:.1f} %" if total else ""
        return (
            layer, name, f"{1e3 * one.seconds / steps:.3f}", share, f"{one.bytes / steps / 1e6:.2f}" if one.bytes else "",
            f"{one.gb_s:.1f}" if one.bytes else "", f"{100 * one.gb_s / limit:.0f} %" if one.bytes and limit else "",
        )  # fmt: skip

    def __str__(self) -> str:
        facts = [f"{self.steps} steps of {self.rows} tokens, {self.seconds:.3f} s"]
        if self.read_limit_gb_s:
            facts.append(f"memory reads {self.read_limit_gb_s:.1f} GB/s with {num_threads()} threads")
        if self.gate_density is not None and self.down_density is not None:
            facts.append(
                f"{100 * self.gate_density:.1f} % of the gates open, {100 * self.down_density:.1f} % of the down inputs not zero"
            )
        if self.head_rescored is not None:
            facts.append(f"{100 * self.head_rescored:.2f} % of the head's rows computed in full precision")
        if self.dropped:
            facts.append(f"{self.dropped} spans not in the trace")
        return self.table() + "\n" + "; ".join(facts)

    def __repr__(self) -> str:
        if self._data is None:
            return "Profile(not complete)"
        return f"Profile({self.steps} steps, {self.rows} tokens, {self.seconds:.3f} s)"

    def to_dict(self) -> dict[str, Any]:
        """All but the single spans, as ``json.dumps`` accepts it."""
        data = {name: value for name, value in self._recorded().items() if name not in ("spans", "ops", "totals")}
        return data | {"read_limit_gb_s": self.read_limit_gb_s, "bytes": self.bytes, "ops": self._recorded()["totals"]}

    def save(self, path: str | PathLike[str]) -> None:
        """Writes every step and every piece of work as a Chrome trace, a JSON file. FileSystemError if it cannot be written."""
        write_text(path, json.dumps({"traceEvents": self._events(), "displayTimeUnit": "ms"}))

    def _events(self) -> list[dict[str, Any]]:
        data = self._recorded()
        names = data["ops"]
        events: list[dict[str, Any]] = [
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": lane, "args": {"name": f"steps {lane}"}}
            for lane in sorted({lane for lane, *_ in data["spans"]})
        ]
        for lane, layer, op, start, took, amount in data["spans"]:
            event = {"ph": "X", "pid": 1, "tid": lane, "ts": start / 1e3, "dur": took / 1e3}
            if op == len(names):
                event |= {"name": "step", "cat": "step", "args": {"tokens": amount}}
            else:
                args = {"bytes": amount, "GB/s": round(amount / took, 2) if took else 0}
                if layer >= 0:
                    args["layer"] = layer
                event |= {"name": names[op], "cat": "op", "args": args}
            events.append(event)
        return events
