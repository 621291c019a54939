"""Connections whose clients are too slow: uvicorn waits for them for ever."""

import asyncio
from typing import Any


def impatient(protocol: Any, body_timeout: float, write_timeout: float) -> Any:
    """uvicorn's protocol, which hangs up when the head of a request takes longer than body_timeout seconds to arrive, or when a client
    leaves for write_timeout seconds unread what was sent to it."""

    class Impatient(protocol):  # type: ignore[misc]
        _head: asyncio.TimerHandle | None = None
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._head = _cancel(self._head)
            elif self._head is None:  # a part of the next request's
                self._await_head()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._patience = self.loop.call_later(write_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            self._patience = _cancel(self._patience)
            super().resume_writing()

        def connection_lost(self, error: Exception | None) -> None:
            self._head = _cancel(self._head)
            self._patience = _cancel(self._patience)
            super().connection_lost(error)

        def _await_head(self) -> None:
            self._head = self.loop.call_later(body_timeout, self.transport.close)

    return Impatient


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stops a timer; gives what there is then, none."""
    if timer is not None:
        timer.cancel()
    return None
