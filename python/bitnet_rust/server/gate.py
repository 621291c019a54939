"""Who is let in: hosts, keys, the end of the server, and bodies of a size and speed that it can take."""

import asyncio
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .auth import find_key
from .errors import APIError
from .observe import Record
from .service import Service

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Gate:
    """ASGI middleware before the routes. open_paths need no key and are answered to the last."""

    def __init__(self, app: ASGIApp, service: Service, open_paths: Collection[str]) -> None:
        self._app, self._service, self._open = app, service, frozenset(open_paths)
        allowed = service.options.allowed_hosts
        self._hosts = {*_LOOPBACK, *map(str.lower, allowed)} if allowed else None  # of any name without some

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record: Record = scope["state"]["record"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_host(headers.get("host", ""))
            if scope["path"] in self._open:
                await self._app(scope, receive, send)
                return
            self._check_key(headers.get("authorization", ""), record)
            if scope["path"].startswith("/metrics"):
                await self._app(scope, receive, send)
                return
            if self._service.draining:
                raise APIError(
                    503, "the server is ending: it takes no new requests", code="draining",
                    headers={"Retry-After": "5"},
                )  # fmt: skip
            if scope["method"] == "POST":
                body = await self._body(headers, receive)
                if body is None:
                    return
                receive = body
        except APIError as error:
            record.fail(error, error)
            await asyncio.sleep(0)  # uvicorn may be about to hang up, on what follows this request's head
            await error.response()(scope, receive, send)
            return
        self._service.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._service.in_flight -= 1

    def _check_host(self, host: str) -> None:
        """Refuses what a web page sends that has given its own name our address."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._hosts is not None and name.strip("[]").lower() not in self._hosts:
            raise APIError(
                403, f"Host = {host[:100]!r}: this server does not answer to that name", code="host_not_allowed"
            )

    def _check_key(self, authorization: str, record: Record) -> None:
        keys = self._service.options.api_keys
        if not keys:
            return
        key = find_key(keys, authorization)
        if key is None:
            raise APIError(
                401,
                "the API key is wrong" if authorization else "an API key is needed: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        record.client = key.name

    async def _body(self, headers: dict[str, str], receive: Receive) -> Receive | None:
        """Reads the whole body, and returns what gives it to the application; None when the client has gone before its end."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise APIError(
                415, f"Content-Type = {kind[:100]!r}: expected application/json", code="unsupported_media_type"
            )
        if coding := headers.get("content-encoding", "").strip():
            raise APIError(
                415, f"Content-Encoding = {coding[:100]!r}: expected a body as it is", code="unsupported_media_type"
            )
        options = self._service.options
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > options.max_body_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(options.body_timeout):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > options.max_body_bytes:
                        raise self._too_large()
        except TimeoutError:
            raise APIError(
                408, f"the request did not arrive within {options.body_timeout:g} seconds", code="timeout",
                headers={"Connection": "close", "x-should-retry": "false"},
            ) from None  # fmt: skip
        first: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

        async def again() -> Message:
            nonlocal first
            if first is not None:
                message, first = first, None
                return message
            return await receive()

        return again

    def _too_large(self) -> APIError:
        most = self._service.options.max_body_bytes
        # The connection stays: closing it while the rest arrives would take the answer from who is still sending.
        return APIError(413, f"the request is larger than {most:,} bytes", code="request_too_large")
