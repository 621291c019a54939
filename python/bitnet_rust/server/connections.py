"""Connections whose clients are too slow, or send heads without end: uvicorn waits for them for ever."""

import asyncio
from typing import Any

_HEAD_BYTES = 64 << 10  # of a request's head; h11 has the same limit


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


def bounded(protocol: Any) -> Any:
    """uvicorn's protocol, which hangs up on heads, and on what may follow a body, of more than 64 KiB: httptools would keep all of it."""
    if not hasattr(protocol, "on_body"):  # h11's, which looks itself
        return protocol

    class Bounded(protocol):  # type: ignore[misc]
        _kept = 0  # bytes that the parser has made nothing of that anybody could take

        def data_received(self, data: bytes) -> None:
            self._kept += len(data)
            super().data_received(data)
            if self._kept > _HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

        def on_headers_complete(self) -> None:
            self._kept = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._kept = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._kept = 0
            super().on_message_complete()

    return Bounded


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stops a timer; gives what there is then, none."""
    if timer is not None:
        timer.cancel()
    return None
