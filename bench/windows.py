"""Windows of time in which one of several processes trains while the others wait: how bench.train takes turns.

The parent starts every side as a process (:class:`Side`), and each of them calls :meth:`Windows.update` after every
update of its weights. There it waits, between windows, for a line on standard input with the seconds to go on for.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Windows:
    """The child's end. The first window is a number of updates that warm up: compilers, plans and caches."""

    def __init__(self, warmup: int) -> None:
        self._until: float | None = None
        self._warmup = warmup
        self._updates = 0
        self._start, self._used = time.perf_counter(), time.process_time()

    def update(self) -> bool:
        """Counts an update. At the end of a window it reports, and waits for the next; False when there is none."""
        self._updates += 1
        now = time.perf_counter()
        if self._updates < self._warmup if self._until is None else now < self._until:
            return True
        unit = 1 if sys.platform == "darwin" else 1024
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = {
            "updates": self._updates,
            "seconds": now - self._start,
            "cpu_seconds": time.process_time() - self._used,
            "peak_rss": peak,
        }
        print(json.dumps(report), flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            return False
        self._updates, self._start, self._used = 0, time.perf_counter(), time.process_time()
        self._until = self._start + float(line)
        return True


class SideError(RuntimeError):
    """A process of the comparison ended; the message is what it said last."""


class Side:
    """The parent's end: one process that trains."""

    def __init__(self, name: str, command: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def result(self) -> dict[str, Any]:
        """The report of the window under way."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                report: dict[str, Any] = json.loads(line)
                return report
        said = self._process.stderr.read().strip().splitlines()
        raise SideError(f"{self.name} ended: {said[-1] if said else f'exit status {self._process.wait()}'}")

    def window(self, seconds: float) -> dict[str, Any]:
        """Lets the side train for at least so long and gives its report."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self.result()

    def close(self) -> None:
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
