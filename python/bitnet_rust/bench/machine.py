"""The machine that is measured: its name, and how fast its memory can be read."""

import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import _bitnet
from ..runtime import build_info

# Larger than last-level caches, so that the limit is memory's, and small beside the models that are measured.
READ_BYTES = 512 << 20
READ_SECONDS = 0.4

Say = Callable[[str], object]


class ReadLimit:
    """How fast memory can be read, measured between repetitions: a machine that is slow for a while (a neighbour, a clock that drops)
    changes both figures of that moment together.

    threads: that read.
    measured: GB/s of each measurement so far.
    """

    def __init__(self) -> None:
        self.threads = int(build_info()["threads"])
        self.measured: list[float] = []

    def measure(self) -> float:
        """GB/s that the threads read from memory, now."""
        limit: float = _bitnet.read_bandwidth(self.threads, READ_BYTES, READ_SECONDS)
        self.measured.append(limit)
        return limit

    def around(self, repeat: int) -> Iterator[int]:
        """Numbers of repetitions; memory is read before the first one and after each."""
        self.measure()
        for i in range(repeat):
            yield i
            self.measure()

    def of(self, i: int) -> float:
        """The limit around the repetition of that number, when it is over."""
        return (self.measured[i] + self.measured[i + 1]) / 2


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """The machine and the software, for a result."""
    info = build_info()
    return {
        "processor": processor(),
        "physical_cores": info["physical_cores"],
        "supported_isas": info["supported_isas"],
        "system": platform.platform(),
        "python": platform.python_version(),
        "go": info["go_version"],
        "bitnet_rust": info["version"],
    }


def resident_bytes() -> int:
    """Memory of this process that is in RAM now; where the system does not say, the most it ever was."""
    now = process_bytes("VmRSS")
    if now is not None:
        return now
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def process_bytes(figure: str, process: int | None = None) -> int | None:
    """A figure that the system keeps of a process (this one): "VmRSS" is its memory in RAM now, "VmHWM" the most so far. None where the
    system does not say."""
    try:
        status = Path(f"/proc/{process or 'self'}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith(f"{figure}:")).split()[1])
    except (OSError, StopIteration):
        return None


def cpu_seconds(process: int | None) -> float | None:
    """What a process has had of the processors so far; None where the system does not say."""
    try:
        figures = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(figures[11]) + int(figures[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Median and range, under the keys of a result."""
    return {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which the share q of the values lies: one of them, nothing in between."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]
