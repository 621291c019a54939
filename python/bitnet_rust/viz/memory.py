"""How the memory of the pool goes up and down."""

import threading
import time
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..arrays import seconds as checked_seconds
from ..errors import ArgumentError
from ..runtime import memory_stats
from .figures import finished, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..training import History

# Of memory_stats, what a sample has.
_FIELDS = ("requested", "in_use", "reserved")


class MemoryRecorder:
    """Notes how much memory weights, caches and scratch take while a ``with`` block runs, from a thread of its own.

    >>> with MemoryRecorder() as memory:
    ...     model.generate("First Citizen:")
    >>> memory.peak, memory.samples[-1]["in_use"]

    interval: seconds between two samples, each of which takes some microseconds.

    samples: dictionaries of "seconds" since the block began, and the bytes "requested" by live blocks, "in_use" for them and
        "reserved" from the system; the first at its beginning, the last at its end.
    marks: what ``mark`` was told, with the seconds.
    peak: the most bytes in use within the block; between two samples too, where that was more than ever before in the process.
    budget: the most that the pool may reserve.
    """

    def __init__(self, interval: float = 0.01) -> None:
        self._interval = checked_seconds(interval, "interval")
        self._sampling = threading.Lock()
        self.samples: list[dict[str, float]] = []
        self.marks: list[tuple[float, str]] = []
        self.peak = 0
        self.budget = 0

    def mark(self, text: str) -> None:
        """Notes that something begins now, for the picture, and how much memory is taken at that moment."""
        self.marks.append((time.perf_counter() - self._began, text))
        self._sample()

    def __enter__(self) -> Self:
        self.samples, self.marks, self.peak = [], [], 0
        self._end = threading.Event()
        self._began = time.perf_counter()
        stats = memory_stats()
        self.budget, self._highest = stats["budget"], stats["peak_in_use"]
        self._sample()
        self._thread = threading.Thread(target=self._run, name="bitnet-memory-recorder", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        with self._sampling:
            stats = memory_stats()
            self.samples.append(
                {"seconds": time.perf_counter() - self._began} | {name: stats[name] for name in _FIELDS}
            )
            risen = stats["peak_in_use"] if stats["peak_in_use"] > self._highest else 0
            self.peak = max(self.peak, stats["in_use"], risen)


def memory_timeline(recorded: "MemoryRecorder | History", *, path: str | PathLike[str] | None = None) -> "Figure":
    """Draws memory over time: what a MemoryRecorder has noted, or the pool's and the process's memory in the records of a training run."""
    figure = new_figure()
    axes: Any = figure.add_subplot(xlabel="seconds", ylabel="MiB")
    if isinstance(recorded, MemoryRecorder):
        if not recorded.samples:
            raise ArgumentError("recorded: found no samples: expected a MemoryRecorder that was entered with `with`")
        at = [one["seconds"] for one in recorded.samples]
        for name, text in (("reserved", "reserved from the system"), ("in_use", "in use"), ("requested", "asked for")):
            values = [one[name] / 2**20 for one in recorded.samples]
            if name == "in_use":
                axes.fill_between(at, values, alpha=0.25, step="post")
            axes.step(at, values, where="post", linewidth=1, label=text)
        for when, text in recorded.marks:
            axes.axvline(when, color="gray", linestyle=":", linewidth=1)
            axes.annotate(
                text, (when, 1), xycoords=("data", "axes fraction"), fontsize=7, rotation=90, va="top", ha="right"
            )
        axes.set_title(
            f"at most {recorded.peak / 2**20:,.1f} MiB of {recorded.budget / 2**30:,.1f} GiB in use", fontsize=10
        )
    else:
        records = [one for one in recorded if "pool_bytes" in one]
        if not records:
            raise ArgumentError("recorded: found no records: expected a MemoryRecorder, or a History of a run")
        at, passed = [], 0.0
        for one in records:
            passed += one["seconds"]
            at.append(passed)
        for name, text in (("rss_bytes", "process"), ("pool_bytes", "weights, gradients, optimizer and scratch")):
            axes.plot(at, [one[name] / 2**20 for one in records], linewidth=1, label=text)
    axes.set_ylim(0, None)
    axes.legend()
    return finished(figure, path)
