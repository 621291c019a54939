"""Handle: a request that an engine has accepted, for threads and for asyncio."""

import contextlib
import math
import os
import threading
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import _bitnet, tracing
from .arrays import seconds
from .errors import RequestCanceledError
from .generation import GenerationResult, Piece, join_pieces
from .streaming import SequenceText

if TYPE_CHECKING:
    import asyncio


class Handle:
    """A request of an ``Engine``: what ``Engine.submit`` gives.

    Iterating gives a ``Piece`` for each token as it comes, from the first one whoever iterates and however often;
    ``result()`` waits for the whole. Under asyncio, ``async for piece in handle`` and ``await handle`` do the same without
    blocking the loop. All methods may be called from any thread.

    A request goes on whether or not somebody reads it; ``cancel()`` ends it. Reading a request that failed raises its
    exception, after the pieces that came before.

    prompt_tokens: how many tokens the prompt has.
    cached_tokens: how many of them were not computed, as an earlier request began alike; known from the first piece on, 0 before.
    """

    def __init__(
        self,
        core: _bitnet.Scheduler,
        text: SequenceText,
        prompt_tokens: int,
        logprobs: bool,
        traced: tracing.Request | None,
    ) -> None:
        self._core = core
        self._text = text
        self._logprobs = logprobs
        self._traced = traced
        self._process = os.getpid()
        self._id: int | None = None  # set by the engine, which knows it when the core has accepted the request
        self._changed = threading.Condition()
        self._pieces: list[Piece] = []
        self._error: BaseException | None = None
        self._ended = False
        self._watchers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []  # set when something has come
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = 0

    # --- reading -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Piece]:
        at = 0
        while self._wait(at, None):
            yield self._pieces[at]
            at += 1

    def result(self, timeout: float | None = None) -> GenerationResult:
        """The whole continuation, once it is complete.

        timeout: how many seconds to wait at most, 0 for not at all; TimeoutError then, and the request goes on.

        Raises what ended the request: RequestCanceledError, DeadlineError, OutOfMemoryError when it does not fit the
        engine's memory even alone, LogitsError.
        """
        self._wait(None, _patience(timeout))
        return self._result()

    def cancel(self) -> None:
        """Ends the request before the engine's next step; does nothing if it has ended."""
        if self._id is not None and not self._ended:
            self._core.cancel(self._id, False)

    @property
    def done(self) -> bool:
        """Whether the request has ended, in whatever way."""
        return self._ended

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What has come so far."""
        return tuple(self._pieces)

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self._stream()

    def __await__(self) -> Generator[Any, None, GenerationResult]:
        return self._whole().__await__()

    def __repr__(self) -> str:
        state = repr(self._error) if self._error else "done" if self._ended else "running"
        return f"Handle({self._id}, {len(self._pieces)} tokens, {state})"

    async def _stream(self) -> AsyncIterator[Piece]:
        async for _, pieces in as_they_come([self]):
            for piece in pieces:
                yield piece

    async def _whole(self) -> GenerationResult:
        async with _watching([self]) as changed:
            while not self._ended:
                await changed.wait()
                changed.clear()
        return self._result()

    def _result(self) -> GenerationResult:
        if self._error is not None:
            raise self._error
        return join_pieces(self._pieces, self.prompt_tokens, self._logprobs)

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _ready(self, at: int | None) -> bool:
        return self._ended or (at is not None and len(self._pieces) > at)

    def _wait(self, at: int | None, timeout: float | None) -> bool:
        """Waits for the piece at, or with None for the end."""
        refuse_forked(self._process)
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready(at), timeout):
                raise TimeoutError(f"the request was not done within {timeout} seconds")
        if at is not None and len(self._pieces) > at:
            return True
        if at is not None and self._error is not None:
            raise self._error
        return False

    # --- what the engine's thread does -------------------------------------------------------------------------------

    def _receive(
        self,
        token_id: int,
        logprob: float,
        ended: str | None,
        top: tuple[tuple[int, float], ...],
        cached: int,
        error: BaseException | None,
    ) -> None:
        """Takes what came of the request, and nothing more once it has ended. Event loops learn of it by ``wake_loops``."""
        piece = None
        self.cached_tokens = cached
        if error is None:
            try:
                text, finish = self._text.push(token_id, ended)
            except BaseException as failure:  # of the tokenizer, which is the user's
                error, finish = failure, None
            else:
                piece = Piece(0, text, token_id, finish, logprob if self._logprobs else None, top)
            if ended is None and self._id is not None and (error is not None or finish is not None):
                self._core.cancel(self._id, error is None)  # the core has not ended it
        done = error is not None or (piece is not None and piece.finish_reason is not None)
        if self._traced is not None:  # before whoever waits for the end can look
            if piece is not None:
                self._traced.took(piece)
            if done:
                self._traced.end(error)
        with self._changed:
            if piece is not None:
                self._pieces.append(piece)
            self._error = error
            self._ended = done
            self._changed.notify_all()

    def _abandon(self) -> None:
        """Ends the request when its engine has gone."""
        if not self._ended:
            self._receive(
                0,
                0.0,
                None,
                (),
                self.cached_tokens,
                RequestCanceledError("the engine was closed before the request was done"),
            )


def wake_loops(handles: Iterable[Handle]) -> None:
    """Tells the event loops in which handles are watched that something came of them: each loop once, as that costs more than a token."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
    for handle in handles:
        for loop, changed in tuple(handle._watchers):
            loops.setdefault(loop, []).append(changed)
    for loop, events in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(_set, events)


def _set(events: Sequence["asyncio.Event"]) -> None:
    for event in events:
        event.set()


async def as_they_come(handles: Sequence[Handle]) -> AsyncIterator[tuple[int, list[Piece]]]:
    """What several requests bring, on an event loop: (index of the handle, the pieces that have come since the last time).

    Raises what ended a request, after the pieces that came before. A task that is canceled while it waits cancels all of them.
    """
    at = [0] * len(handles)
    left = set(range(len(handles)))
    async with _watching(handles) as changed:
        while left:
            for i in sorted(left):
                handle = handles[i]
                ended = handle._ended  # before its pieces are looked at: no more come then
                if pieces := handle._pieces[at[i] :]:
                    at[i] += len(pieces)
                    yield i, pieces
                if ended:
                    left.discard(i)
                    if handle._error is not None:
                        raise handle._error
            if left:
                await changed.wait()
                changed.clear()


@contextlib.asynccontextmanager
async def _watching(handles: Sequence[Handle]) -> AsyncIterator["asyncio.Event"]:
    """An event that is set whenever something comes of one of the handles. A task that is canceled in the block cancels their
    requests."""
    import asyncio

    changed = asyncio.Event()
    watcher = asyncio.get_running_loop(), changed
    for handle in handles:
        refuse_forked(handle._process)
        with handle._changed:
            handle._watchers.append(watcher)
    try:
        yield changed
    except asyncio.CancelledError:
        for handle in handles:
            handle.cancel()
        raise
    finally:
        for handle in handles:
            with handle._changed:
                handle._watchers.remove(watcher)


def _patience(timeout: Any) -> float | None:
    """A timeout of result() as locks take it."""
    if timeout is None or timeout == math.inf:
        return None
    if isinstance(timeout, int | float) and timeout <= 0:  # as what is left of an hour may be
        return 0.0
    return min(seconds(timeout, "timeout"), threading.TIMEOUT_MAX)


def refuse_forked(process: int) -> None:
    """Raises ForkError in another process than that one, where a lock may be held by a thread that is not there."""
    if os.getpid() != process:
        _bitnet.num_threads()  # says so
