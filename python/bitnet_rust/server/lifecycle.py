"""From the first request to the last: uvicorn, and an end that finishes what it has begun."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from ..engine import Engine
from .app import create_app
from .connections import bounded, impatient
from .logs import log
from .options import ServerOptions
from .service import Service

_POLL = 0.05  # seconds between two looks at what is left
_SEND_BYTES = 128 << 10  # that the system keeps for a client; more wait here


def serve(
    engine: Engine,
    options: ServerOptions | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    started: Callable[[str], object] | None = None,
) -> bool:
    """Serves until SIGTERM or Ctrl-C, then answers what is under way, refuses the rest, and returns whether all was answered.

    A second signal ends it at once. The engine is the caller's, and is not closed.

    host, port: where to listen; port 0 takes a free one.
    started: called with the server's URL once it listens.

    Raises OSError when it cannot listen there.
    """
    app = create_app(engine, options)
    with listening(host, port) as place:
        server = _Server(app.state.service, app, started)
        server.run([place])
    return server.answered


def listening(host: str, port: int) -> socket.socket:
    """A socket at an address; OSError when it cannot be had. Clients that do not read get little memory of the system.

    It says that it is TCP's: only then asyncio has what it writes sent at once, and not when the client has acknowledged what came before,
    which it may put off for 40 ms.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    place = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it lets others listen there, too
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        place.bind(address)
    except BaseException:
        place.close()
        raise
    return place


class _Server(uvicorn.Server):
    """uvicorn with our end, and without patience for clients that do not read."""

    def __init__(self, service: Service, app: Any, started: Callable[[str], object] | None) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", ws="none", server_header=False,
            timeout_keep_alive=75, timeout_graceful_shutdown=5,
        )  # fmt: skip
        config.load()
        config.http_protocol_class = impatient(
            bounded(config.http_protocol_class), service.options.body_timeout, service.options.write_timeout
        )
        super().__init__(config)
        self.answered = True
        self._service, self._started_callback = service, started
        self._ending: asyncio.Task[None] | None = None
        self._hurried = False

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = sockets[0].getsockname()[:2]
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            log("info", "started", url=url, model=self._service.name)
            if self._started_callback is not None:
                self._started_callback(url)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.end)

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self) -> None:
        """Begins the end, and the second time makes it short."""
        if self._ending is None:
            self._service.draining = True
            self._ending = asyncio.get_running_loop().create_task(self._drain())
        else:
            self._hurried = True

    async def _drain(self) -> None:
        service = self._service
        log("info", "draining", requests=service.in_flight)
        waited = 0.0
        while service.in_flight and not self._hurried and waited < service.options.drain_timeout:
            await asyncio.sleep(_POLL)
            waited += _POLL
        self.answered = not service.in_flight
        if not self.answered:
            log("warning", "canceled", requests=service.in_flight)
            service.cancel_all()
        self.should_exit = True
