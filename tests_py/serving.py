"""A `bitnet serve` in a process of its own, for tests."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

CHAT = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


class Served:
    """`bitnet serve` on a free port. Leaving the block ends it and waits for it.

    >>> with Served("--model", path) as server:
    ...     server.http.get("/v1/models")
    """

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bitnet_rust", "serve", "--port", "0", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {}),
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.lines: list[str] = []  # of the log
        self._reader = threading.Thread(target=lambda err: self.lines.extend(err), args=(self.process.stderr,))
        self._reader.start()
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            self.process.wait()
            self._reader.join()
            raise AssertionError("bitnet serve has ended: " + "".join(self.lines))
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def metrics(self, headers: dict[str, str] | None = None) -> dict[str, float]:
        """Every sample of /metrics by name and labels."""
        text = self.http.get("/metrics", headers=headers).raise_for_status().text
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def log(self) -> list[dict[str, Any]]:
        """The events of the log; complete when the process has ended."""
        return [json.loads(line) for line in self.lines]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Waits for the process and its log; returns the exit status."""
        status = self.process.wait(600)
        self._reader.join()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait()
            finally:
                self.process.kill()
        self._reader.join()
        self.http.close()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def chat_template(folder: Path) -> Path:
    """A file with a chat template, for models that have none."""
    path = folder / "chat.jinja"
    path.write_text(CHAT)
    return path
