"""The server on Ray Serve: several replicas of a model, on one machine or many. It needs ``pip install 'bitnet-rust[ray]'``.

    serve run bitnet_rust.integrations.ray:application model=bitnet-2b replicas=2 cpus=8

Each replica is a process with the model, an engine and the application of ``bitnet serve``. Before them stands a gateway, which passes
requests on as they are. When a replica dies, the gateway sends a request again to another one if nothing of its answer has been sent,
and ends a stream that has begun with an error event.
"""

from ..errors import InternalError, missing_extra

try:
    from ray import serve
    from starlette.applications import Starlette
except ImportError as missing:
    raise missing_extra("bitnet_rust.integrations.ray", "Ray Serve", "ray") from missing

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray.exceptions import RayActorError, RaySystemError, WorkerCrashedError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from .. import logs
from ..engine import Engine
from ..model import BitNetModel
from ..runtime import set_num_threads
from ..server import ServerOptions, create_app, read_keys
from ..server.errors import APIError
from ..server.service import Service

__all__ = ["Settings", "application"]

_UNLIMITED = 2**16  # requests: Ray keeps none back, as whoever waits there would get no 429 from a full engine
_GATEWAY_SECONDS = 10.0  # that a gateway is given beside its replicas' drain_timeout, to say how their streams ended
# What ends a call when the process at the other end has gone, and not when the call itself failed.
LOST = (RayActorError, RaySystemError, WorkerCrashedError)
log = logging.getLogger("ray.serve")  # Ray sends it where its own lines go


class Settings(BaseModel):
    """What ``application`` makes: arguments in a configuration file of Ray Serve, or ``name=value`` on its command line.

    model: a directory, file or name for ``BitNetModel.from_pretrained``, on every machine.
    replicas: how many copies of the model answer, 1 and more.
    autoscaling: Ray's AutoscalingConfig in place of replicas, as {"min_replicas": 1, "max_replicas": 4}.
    cpus: threads of a replica, which Ray keeps free for it.
    gateways: processes that pass requests on.
    attempts: replicas that a request is given to, one after the other, when they die.
    api_key_file: as of ``bitnet serve``; BITNET_API_KEYS is read, too, as the settings of the log are.
    load: options of ``BitNetModel.from_pretrained``, as {"kv_dtype": "int8"}.
    engine: options of ``Engine``, as {"max_sequences": 64}.
    server: options of ``ServerOptions``, as {"served_model_name": "bitnet"}. body_timeout and write_timeout have no effect,
        as Ray's proxy reads requests and sends answers.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = "bitnet-shakespeare"
    replicas: int = Field(1, ge=1)
    autoscaling: dict[str, Any] = {}
    cpus: int = Field(1, ge=1)
    gateways: int = Field(1, ge=1)
    attempts: int = Field(3, ge=1)
    api_key_file: str | None = None
    load: dict[str, Any] = {}
    engine: dict[str, Any] = {}
    server: dict[str, Any] = {}


def application(settings: Settings) -> serve.Application:
    """A Ray Serve application: ``serve.run(application(Settings(model="bitnet-2b", replicas=2)))``.

    Its routes are those of ``bitnet serve``. A request goes to one replica, a request for ``/metrics`` to any of them.
    """
    server = ServerOptions(**settings.server)
    scale = (
        {"autoscaling_config": settings.autoscaling} if settings.autoscaling else {"num_replicas": settings.replicas}
    )
    replica = serve.deployment(
        Replica, name="replica", max_ongoing_requests=_UNLIMITED, ray_actor_options={"num_cpus": settings.cpus},
        health_check_period_s=5, graceful_shutdown_timeout_s=server.drain_timeout, **scale,
    )  # fmt: skip
    gateway = serve.deployment(
        serve.ingress(_ROUTES)(Gateway), name="gateway", num_replicas=settings.gateways, max_ongoing_requests=_UNLIMITED,
        ray_actor_options={"num_cpus": 0}, graceful_shutdown_timeout_s=server.drain_timeout + _GATEWAY_SECONDS,
    )  # fmt: skip
    bound: serve.Application = gateway.bind(
        replica.bind(settings.model_dump()), settings.attempts, server.max_body_bytes
    )
    return bound


class Replica:
    """A model with its engine, and the application of ``bitnet serve`` in front of it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        chosen = Settings(**settings)
        self._printing = logs.to_stderr(*(logs.chosen(name, service=True) for name in ("log_level", "log_format")))
        self._printing.__enter__()  # for as long as the process lasts
        set_num_threads(chosen.cpus)
        self._engine = Engine(BitNetModel.from_pretrained(chosen.model, **chosen.load), **chosen.engine)
        server = {
            "served_model_name": Path(chosen.model).name,
            "api_keys": read_keys(chosen.api_key_file),
        } | chosen.server
        app = create_app(self._engine, ServerOptions(**server))
        self._app: ASGIApp = app
        self._service: Service = app.state.service

    async def answer(self, request: dict[str, Any], body: bytes) -> AsyncIterator[Any]:
        """The answer to a request: its status and header fields, and then pieces of its body, each of all that has come meanwhile."""
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not unread:
                await asyncio.Event().wait()  # when the client goes, this call ends, and with it the application's task
            return unread.pop()

        scope = request | {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
            "state": {},
        }
        running = asyncio.ensure_future(self._app(scope, receive, messages.put))
        running.add_done_callback(lambda task: messages.put_nowait(None))
        try:
            if (start := await messages.get()) is not None:
                yield start["status"], start["headers"]
            over = start is None
            while not over:
                batch = [await messages.get()]
                while not messages.empty():
                    batch.append(messages.get_nowait())
                over = batch[-1] is None
                if piece := b"".join(message["body"] for message in batch if message is not None):
                    yield piece
            await running  # raises what went wrong
        finally:
            running.cancel()

    async def check_health(self) -> None:
        """Ray asks now and then, and replaces a replica that raises or does not answer."""
        if self._service.failure is not None:
            raise InternalError(self._service.failure)
        self._engine.metrics()


class Gateway:
    """Passes requests on to replicas, and their answers back."""

    def __init__(self, replicas: DeploymentHandle, attempts: int, most: int) -> None:
        self._replicas = replicas.options(method_name="answer", stream=True)
        self._attempts, self._most = attempts, most

    async def forward(self, request: Request) -> Response:
        """The answer of a replica to a request, of another one if the first is lost before it answers."""
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._most:
                return _error(413, f"the request is larger than {self._most:,} bytes", "request_too_large")
        parts = ("method", "path", "raw_path", "query_string", "headers", "client", "server")
        asked = {name: request.scope[name] for name in parts}
        for attempt in range(self._attempts):
            answer = self._replicas.remote(asked, bytes(body))
            try:
                status, headers = await anext(answer)
                begun = await anext(answer, b"")
                events = dict(headers).get(b"content-type", b"").startswith(b"text/event-stream")
                if not events:  # nothing goes to the client before all is here
                    begun += b"".join([piece async for piece in answer])
            except LOST as lost:
                log.warning(
                    "a replica was lost before it answered: attempt %d of %d: %s", attempt + 1, self._attempts, lost
                )
                continue
            response = StreamingResponse(_rest(begun, answer), status) if events else Response(begun, status)
            response.raw_headers = list(headers)
            return response
        return _error(503, f"{self._attempts} replicas were lost while they worked on this request", "replica_lost")


async def _forward(request: Request) -> Response:
    gateway: Gateway = serve.get_replica_context().servable_object
    return await gateway.forward(request)


_ROUTES = Starlette(routes=[Route("/{path:path}", _forward, methods=["GET", "POST", "OPTIONS"])])


async def _rest(begun: bytes, answer: "DeploymentResponseGenerator[Any]") -> AsyncIterator[bytes]:
    """A stream of events that has begun. If its replica is lost it ends with an error event."""
    yield begun
    try:
        async for piece in answer:
            yield piece
    except LOST as lost:
        log.warning("a replica was lost within a stream: %s", lost)
        told = APIError(503, "the replica that worked on this request was lost", code="replica_lost")
        yield b"data: " + json.dumps(told.body()).encode() + b"\n\n"


def _error(status: int, message: str, code: str) -> Response:
    return JSONResponse(APIError(status, message, code=code).body(), status)
