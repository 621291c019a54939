"""The application: routes, what stands around them, and the chat page."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

from .. import __version__
from ..engine import Engine
from ..errors import BitNetError, DTypeError
from ..model import BitNetModel
from .chat import add_chat_routes
from .completions import add_completion_routes
from .embeddings import add_embedding_routes
from .errors import APIError, api_error, no_route, wrong_method
from .gate import Gate
from .observe import Observer
from .options import ServerOptions
from .routes import BodyRoute
from .service import Service
from .tokens import add_token_routes

_OPEN = ("/health/live", "/health/ready")
_PAGE_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"


def create_app(engine: Engine | BitNetModel, options: ServerOptions | None = None) -> FastAPI:
    """OpenAI's API for a model, as an ASGI application.

    engine: an engine, which stays the caller's, or a model, for which one is made that ends with the application.
    options: limits, names and keys; by default those of ``ServerOptions()``.

    Its ``state.service`` says what it is doing. Raises TokenizerError for a model without a tokenizer, DTypeError for anything
    that is neither engine nor model.
    """
    own = None
    if isinstance(engine, BitNetModel):
        engine = own = Engine(engine)
    elif not isinstance(engine, Engine):
        raise DTypeError(f"engine = {engine!r}: expected an Engine or a BitNetModel")
    service = Service(engine, options or ServerOptions())

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)
        if own is not None:
            await asyncio.to_thread(own.close, cancel=True)

    app = FastAPI(title="bitnet-rust", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    app.router.route_class = BodyRoute
    # To the application itself, as each router would be one more layer that every request goes through.
    add_chat_routes(app, service)
    add_completion_routes(app, service)
    add_embedding_routes(app, service)
    add_token_routes(app, service)
    _add_status_routes(app, service)
    page = _add_page_routes(app)
    app.add_middleware(Gate, service=service, open_paths={*_OPEN, *page})
    if service.options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.options.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(Observer, service=service)
    _explain_errors(app)
    return app


def _add_status_routes(app: FastAPI, service: Service) -> None:
    def description() -> dict[str, Any]:
        return {
            "id": service.name, "object": "model", "created": service.created, "owned_by": "bitnet-rust",
            "max_model_len": service.context, "chat": service.has_chat,
        }  # fmt: skip

    @app.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [description()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Any:
        service.check_model(name)
        return description()

    @app.get("/health/live")
    async def live() -> Any:
        return {"status": "ok"}

    @app.get("/health/ready")
    async def ready(response: Response) -> Any:
        failure = service.failure
        if not service.draining and failure is None:
            return {"status": "ok"}
        response.status_code = 503
        return {"status": "draining"} if service.draining else {"status": "failed", "reason": failure}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.content_type)


def _explain_errors(app: FastAPI) -> None:
    """Gives every error OpenAI's form."""

    async def explain(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 404:
            told = no_route(request.method, request.url.path, app.openapi()["paths"])
        elif isinstance(error, HTTPException) and error.status_code == 405:
            told = wrong_method(request.method, request.url.path, error.headers)
        elif isinstance(error, HTTPException):
            told = APIError(
                error.status_code, f"{request.method} {request.url.path}: {error.detail}", headers=error.headers
            )
        else:
            told = api_error(error)
        request.state.record.fail(error, told)
        return told.response()

    for kind in (APIError, BitNetError, HTTPException):
        app.add_exception_handler(kind, explain)


def _add_page_routes(app: FastAPI) -> list[str]:
    """The files of the chat page, which may load nothing from anywhere else. Gives their paths."""
    paths = []
    folder = Path(str(resources.files(__package__) / "static"))
    headers = {"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-cache"}

    def answer(file: Path) -> Callable[[], FileResponse]:
        return lambda: FileResponse(file, headers=headers)

    for file in folder.rglob("*"):
        if file.is_file():
            name = file.relative_to(folder).as_posix()
            paths.append("/" if name == "index.html" else f"/{name}")
            app.get(paths[-1], include_in_schema=False)(answer(file))
    return paths
