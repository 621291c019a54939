"""Work beside the engine: texts that become vectors or tokens, a piece at a time, for no more requests than may wait."""

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from ..errors import QueueFullError, RequestCanceledError
from .errors import api_error

T = TypeVar("T")


class Work(Generic[T]):
    """What a request asked ``Beside`` for; to be awaited, as a handle of the engine is."""

    def __init__(self, task: "asyncio.Task[T]") -> None:
        self._task = task

    def cancel(self) -> None:
        """Ends it after the piece that runs; does nothing if it has ended."""
        self._task.cancel()

    def __await__(self) -> Generator[Any, None, T]:
        return self._result().__await__()

    async def _result(self) -> T:
        try:
            return await self._task
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if waiting is not None and waiting.cancelling():
                raise
            raise RequestCanceledError("the request was canceled") from None


class Beside:
    """A thread for work that would keep the event loop from others. Requests take turns on it, piece by piece.

    limit: how many requests may wait.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._thread = ThreadPoolExecutor(1, f"bitnet-{name}")
        self._limit = limit
        self._open: set[asyncio.Task[Any]] = set()
        self._pieces, self._seconds = 0, 0.0  # that are done, and what they took

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return sum(not task.done() for task in self._open)

    def start(self, pieces: Sequence[Callable[[], T]]) -> Work[list[T]]:
        """Begins with a request's pieces, whose results it gives. Raises APIError, status 429, when as many wait as may."""
        waiting = self.in_flight - 1
        if waiting >= self._limit:
            full = QueueFullError(
                f"the queue is full: {waiting} requests wait, max_queue = {self._limit}: try again later"
            )
            seconds = waiting / 2 * self._seconds / max(self._pieces, 1)
            raise api_error(full, min(max(seconds, 1.0), 60.0))
        task = asyncio.create_task(self._all(pieces))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return Work(task)

    async def _all(self, pieces: Sequence[Callable[[], T]]) -> list[T]:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._thread, self._timed, piece) for piece in pieces]

    def _timed(self, piece: Callable[[], T]) -> T:
        start = time.perf_counter()
        try:
            return piece()
        finally:
            self._pieces += 1
            self._seconds += time.perf_counter() - start

    def cancel_all(self) -> None:
        """Ends all requests after the piece that runs."""
        for task in list(self._open):
            task.cancel()

    def close(self) -> None:
        """Waits for the piece that runs, and forgets all others."""
        self._thread.shutdown(wait=True, cancel_futures=True)
