"""The sides of the comparison: processes that keep their model, and binaries that are started for each task."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from .environment import PeerError, last_line


class Side(Protocol):
    """A program that can be asked for a measurement."""

    name: str

    def run(self, task: dict[str, Any]) -> dict[str, float] | None:
        """tokens_per_second and peak_rss of a task; None when the program does not do such tasks. PeerError when it failed."""

    def close(self) -> None: ...


class Server:
    """A process that speaks the protocol of :mod:`bench.peers.serve`."""

    def __init__(self, name: str, command: Sequence[str], cwd: Path, threads: int) -> None:
        self.name = name
        env = dict(os.environ) | {"OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            self._answer()  # ready
        except PeerError:
            self.close()
            raise

    def run(self, task: dict[str, Any]) -> dict[str, float] | None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        answer = self._answer()
        return answer if answer["tokens_per_second"] else None

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, float] = json.loads(line)
                return answer
        raise PeerError(f"{self.name} ended: {last_line(self._process.stderr.read())}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class LlamaBench:
    """The llama-bench of a build of llama.cpp, or of a program made from it (bitnet.cpp, ik_llama.cpp), started for each task."""

    def __init__(self, name: str, binary: Path, model: Path, threads: int, options: Sequence[str]) -> None:
        self.name = name
        for path in (binary, model):
            if not path.is_file():
                raise PeerError(f"{path}: there is no such file")
        self._command = [str(binary), "-m", str(model), "-t", str(threads), "-o", "json", "-r", "1", *options]

    def run(self, task: dict[str, Any]) -> dict[str, float] | None:
        if task.get("sequences", 1) > 1:
            return None  # llama-bench decodes one sequence
        decode = task["task"] == "decode"
        counts = ["-p", "0", "-n", str(task["tokens"])] if decode else ["-p", str(task["tokens"]), "-n", "0"]
        with subprocess.Popen(
            [*self._command, *counts], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            out, err = process.communicate()
        if process.returncode:
            raise PeerError(f"{self.name} ended: {last_line(err)}")
        try:
            return {"tokens_per_second": float(json.loads(out)[-1]["avg_ts"])}
        except (ValueError, LookupError, TypeError) as error:
            raise PeerError(f"{self.name}: no figures in what it printed: {last_line(out)}") from error

    def close(self) -> None:
        pass
