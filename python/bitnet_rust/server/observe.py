"""What is written down of each request: its id, a line of the log, counts; and the answer when nobody else gave one."""

import re
import time
from collections.abc import MutableMapping, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..handle import Handle
from ..tracing import continued
from .errors import APIError, api_error
from .logs import log
from .service import Service, new_id
from .streaming import CLIENT_GONE, usage

_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Record:
    """One request, as log and metrics have it.

    id: the client's X-Request-Id, or a new one.
    send: the server's, for what follows the head of an answer.
    started: in seconds of time.monotonic.
    client: the name of its key, else its address.
    status: of the answer, or CLIENT_GONE; None before either.
    error: what the client was told.
    defect: the exception behind an error that is the server's fault.
    handles: what the engine was asked for.
    copies: how many of these follow each other for each prompt.
    prompt: of those, or texts that are to become vectors, for the log.
    text_tokens: how many those texts have; None without any.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        self.id = given if _ID.fullmatch(given) else new_id("req")
        self.send = send
        self.started = time.monotonic()
        peer = scope.get("client")
        self.client: str = peer[0] if peer else ""
        self.status: int | None = None
        self.error: APIError | None = None
        self.defect: BaseException | None = None
        self.handles: Sequence[Handle] = ()
        self.copies = 1
        self.prompt: Any = None
        self.text_tokens: int | None = None

    def note(self, handles: Sequence[Handle], copies: int, prompt: Any) -> None:
        """Notes what the engine is asked for: each prompt copies times."""
        self.handles, self.copies, self.prompt = handles, copies, prompt

    def note_texts(self, tokens: int, texts: Any) -> None:
        """Notes the texts that are to become vectors, and how many tokens they have."""
        self.text_tokens, self.prompt = tokens, texts

    def fail(self, error: BaseException, told: APIError) -> None:
        """Notes an error that the client is told of."""
        self.error = told
        if told.code == "internal_error" or told.code == "model_error":
            self.defect = error


class Observer:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # the same but for the body, which the ASGI server leaves out
        record = Record(scope, send)
        scope.setdefault("state", {})["record"] = record
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                record.status = record.status or message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.id.encode()), *_HEADERS]
            await send(message)

        self._service.metrics.in_flight.inc()
        try:
            with continued(Headers(scope=scope)):
                await self._app(scope, receive, sent)
        except Exception as error:
            told = api_error(error)
            record.fail(error, told)
            if begun:
                raise
            await told.response()(scope, receive, sent)
        finally:
            self._service.metrics.in_flight.dec()
            self._note(method, scope, record)
            # It knows the scope, and so this record: what knows itself stays until garbage is looked for.
            del record.send

    def _note(self, method: str, scope: MutableMapping[str, Any], record: Record) -> None:
        metrics, took = self._service.metrics, time.monotonic() - record.started
        route = getattr(scope.get("route"), "path", None) or "other"
        status = record.status or CLIENT_GONE
        metrics.requests.labels(method if route != "other" else "other", route, str(status)).inc()
        metrics.seconds.labels(route).observe(took)
        if status == CLIENT_GONE:
            metrics.disconnects.inc()
        fields: dict[str, Any] = {
            "request_id": record.id, "client": record.client, "method": method, "path": scope["path"],
            "status": status, "seconds": round(took, 4),
        }  # fmt: skip
        with_prompts = self._service.options.log_prompts
        if record.handles:
            pieces = [handle.pieces for handle in record.handles]
            told = usage(record.handles, record.copies)
            fields |= {name: told[name] for name in ("prompt_tokens", "completion_tokens")}
            fields["finish_reasons"] = [made[-1].finish_reason if made else None for made in pieces]
            if with_prompts:
                fields["prompt"] = record.prompt
                fields["answers"] = ["".join(piece.text for piece in made) for made in pieces]
        if record.text_tokens is not None:
            fields["prompt_tokens"] = record.text_tokens
            if with_prompts:
                fields["prompt"] = record.prompt
        if record.error is not None:
            metrics.errors.labels(record.error.code or "other").inc()
            ours = record.error.code != "unknown_parameter"  # the name of such a one is the client's text
            fields |= {"code": record.error.code, "param": record.error.param if ours or with_prompts else None}
            if status >= 500 or with_prompts:  # what is wrong with a request repeats parts of it
                fields["error"] = record.error.message
        quiet = route.startswith(("/health", "/metrics")) and status < 400
        level = "error" if record.defect is not None else "debug" if quiet else "info"
        log(level, "request", record.defect, **fields)
