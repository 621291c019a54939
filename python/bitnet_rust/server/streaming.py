"""Answers: as a stream of server-sent events, or whole, and what happens when whoever asked has gone."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Generator, Sequence
from typing import Any, Protocol, TypeVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from ..errors import BitNetError
from ..handle import Handle
from .errors import api_error

Result = TypeVar("Result", covariant=True)

CLIENT_GONE = 499  # the status in log and metrics of a request that nobody waits for any more

_DONE = "data: [DONE]\n\n"
# json.dumps would make an encoder for each token.
encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Chunks:
    """The events of one stream: objects that have all but their choices in common, which is encoded once and not for each token.

    frame: what they have in common; with_usage: they say null for the usage, which a last one has.
    """

    def __init__(self, frame: dict[str, Any], with_usage: bool) -> None:
        self._frame, self._with_usage = frame, with_usage
        common = encoded(frame | {"usage": None} if with_usage else frame)
        self._start = f'data: {common[:-1]},"choices":[{{"index":'

    def choice(self, index: int, content: str, logprobs: dict[str, Any] | None, finish: str | None) -> str:
        """An event with one choice, whose content is a field in JSON: "text", or "delta"."""
        told = "null" if logprobs is None else encoded(logprobs)
        reason = "null" if finish is None else f'"{finish}"'
        return f'{self._start}{index},{content},"logprobs":{told},"finish_reason":{reason}}}]}}\n\n'

    def end(self, handles: Sequence[Handle], copies: int) -> str:
        """The events after all choices: the usage, and what says that there are no more."""
        if not self._with_usage:
            return _DONE
        return f"data: {encoded(self._frame | {'choices': [], 'usage': usage(handles, copies)})}\n\n{_DONE}"


class EventStream(Response):
    """Server-sent events while requests of the engine bring them. They are canceled when the client has gone.

    events gives the text of one or several that are ready, at last with ``Chunks.end``; an exception of it becomes a last event with the
    error, as the status has been sent.
    heartbeat: seconds without an event, in the queue or while a long prompt is read, after which a comment is sent.

    media_type: of server-sent events.
    """

    media_type = "text/event-stream"

    def __init__(
        self, request: Request, handles: Sequence[Handle], events: AsyncIterator[str], heartbeat: float
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._request, self._handles, self._events, self._heartbeat = request, handles, events, heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # A task of its own, and past the layers between here and the server: each event would have to go through all of them twice.
        await asyncio.create_task(self._send_all(self._request.state.record.send))

    async def _send_all(self, send: Send) -> None:
        self._send, self._now = send, asyncio.get_running_loop().time
        self._last = self._now()  # when something was sent
        self._comment: asyncio.Task[None] | None = None
        self._beat()
        async with _until_gone(self._request, self._handles) as gone:
            try:
                async for events in self._events:
                    self._last = self._now()
                    more = not events.endswith(_DONE)
                    if not more:
                        self._be_still()
                    await send(_body(events.encode(), more))
            except Exception as error:
                if gone.is_set() or (isinstance(error, OSError) and not isinstance(error, BitNetError)):  # of send()
                    self._request.state.record.status = CLIENT_GONE
                    return
                told = api_error(error)
                self._request.state.record.fail(error, told)
                self._be_still()
                await send(_body(b"data: " + json.dumps(told.body()).encode() + b"\n\n", more=False))
            finally:
                self._be_still()

    def _beat(self) -> None:
        """Sends comments while nothing else is sent, as proxies and clients give up connections that are silent."""
        loop = asyncio.get_running_loop()
        if self._now() >= self._last + self._heartbeat:
            self._last = self._now()
            self._comment = loop.create_task(self._say_waiting())
        self._heart = loop.call_at(self._last + self._heartbeat, self._beat)

    def _be_still(self) -> None:
        """Sends no comments any more, as nothing may follow the last event."""
        self._heart.cancel()
        if self._comment is not None:
            self._comment.cancel()

    async def _say_waiting(self) -> None:
        with contextlib.suppress(OSError):  # the client has gone, which others see too
            await self._send(_body(b": waiting\n\n", more=True))


def _body(data: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def answered(content: dict[str, Any]) -> Response:
    """A whole answer. FastAPI would go over each of its values before it becomes JSON, which they are made for."""
    return Response(encoded(content), media_type="application/json")


def usage(handles: Sequence[Handle], copies: int) -> dict[str, Any]:
    """OpenAI's usage. A prompt counts once, however often it is continued."""
    prompts = handles[::copies]
    prompt = sum(handle.prompt_tokens for handle in prompts)
    completion = sum(len(handle.pieces) for handle in handles)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(handle.cached_tokens for handle in prompts)},
    }


class Awaited(Protocol[Result]):
    """What a client waits for: a handle of the engine, or work beside it."""

    def cancel(self) -> object:
        """Ends it soon; whoever awaits it gets an exception."""

    def __await__(self) -> Generator[Any, None, Result]:
        """Gives the result."""


async def whole(request: Request, handles: Sequence[Awaited[Result]]) -> list[Result] | None:
    """The results of all handles; None when the client has gone before."""
    async with _until_gone(request, handles) as gone:
        try:
            return [await handle for handle in handles]
        except Exception:
            if gone.is_set():
                return None
            raise


@contextlib.asynccontextmanager
async def _until_gone(request: Request, handles: Sequence[Awaited[Any]]) -> AsyncIterator[asyncio.Event]:
    """An event that is set, with the handles' requests canceled, when the client hangs up within the block. The block ends
    them in any case."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()
        for handle in handles:
            handle.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watcher.cancel()
        for handle in handles:
            handle.cancel()
