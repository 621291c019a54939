"""OpenTelemetry spans of loading and of requests, in programs that use OpenTelemetry; elsewhere nothing is imported and nothing done.

Names and attributes are those of OpenTelemetry's conventions for generative AI, and ``bitnet.*`` beyond them. No span has a text, of a
prompt, an answer or a stop string. A span is a child of the one that is current where the call is made, in a thread or a task.
"""

import json
import logging
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from .errors import BitNetError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from .generation import Piece

_LOG = logging.getLogger(__name__)
_PROVIDER = "bitnet_rust"
_REQUESTED = {  # the convention's names of sampling options; it has one for stop strings too, which are text
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
}
_MOST = 2**63 - 1  # that an attribute holds

# What the caller calls a request: the operation, and the model's name.
_called: ContextVar[tuple[str, str | None]] = ContextVar("bitnet_rust_called", default=("text_completion", None))


@contextmanager
def loading(name: str) -> Iterator[dict[str, Any]]:
    """A span around the loading of a model, and current in it, so that downloads are its children.

    Gives a dictionary for further attributes.
    """
    attributes: dict[str, Any] = {}
    tracer = _tracer()
    if tracer is None:
        yield attributes
        return
    with tracer.start_as_current_span(
        f"load {name}",
        attributes={"gen_ai.provider.name": _PROVIDER, "gen_ai.request.model": name},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield attributes
        except BaseException as error:
            _fail(span, error)
            raise
        finally:
            span.set_attributes(attributes)


@contextmanager
def called(operation: str | None = None, model: str | None = None) -> Iterator[None]:
    """What requests in the block are in their spans: "chat" rather than "text_completion", to a model of that name. A block inside
    another one changes only what it names."""
    outer = _called.get()
    before = _called.set((operation or outer[0], model or outer[1]))
    try:
        yield
    finally:
        _called.reset(before)


@contextmanager
def continued(headers: Mapping[str, str]) -> Iterator[None]:
    """Spans in the block belong to the trace that an HTTP request's headers name (``traceparent``), unless there is a current span."""
    if _tracer() is None:
        yield
        return
    from opentelemetry import context, propagate, trace

    if trace.get_current_span().get_span_context().is_valid:  # of an instrumentation of the server, which has read them
        yield
        return
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


class Request:
    """The span of one request to a model, a batch of prompts or one: what was asked, how many tokens came, when the first one did,
    and why it ended."""

    def __init__(self, model: str, params: str, prompt_tokens: int) -> None:
        from opentelemetry import context

        self._operation, named = _called.get()
        self._model = named or model
        self._params = params
        self._prompt_tokens = prompt_tokens
        self._context = context.get_current()

    def begin(self) -> Self:
        """Starts the span, as a child of the one that was current when this object was made."""
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": _PROVIDER,
            "gen_ai.request.model": self._model,
            "gen_ai.output.type": "text",
            "gen_ai.usage.input_tokens": self._prompt_tokens,
        }
        params = json.loads(self._params)
        for option, name in _REQUESTED.items():
            if option in params and not (option == "seed" and params[option] > _MOST):
                attributes[f"gen_ai.request.{name}"] = params[option]
        self._span: Span | None = None
        self._tokens = 0
        self._reasons: dict[int, str] = {}
        self._started = time.monotonic()
        if tracer := _tracer():
            self._span = tracer.start_span(
                f"{self._operation} {self._model}", context=self._context, attributes=attributes
            )
        return self

    def took(self, piece: "Piece") -> None:
        """Notes a token."""
        if self._tokens == 0 and self._span is not None:
            self._span.add_event("bitnet.first_token")
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", time.monotonic() - self._started)
        self._tokens += 1
        if piece.finish_reason is not None:
            self._reasons[piece.index] = piece.finish_reason

    def end(self, error: BaseException | None = None) -> None:
        """Ends the span, with the status of an error if there was one. Raises nothing: a fault of the program's exporter is logged."""
        span, self._span = self._span, None
        if span is None:
            return
        try:
            span.set_attribute("gen_ai.usage.output_tokens", self._tokens)
            if self._reasons:
                span.set_attribute("gen_ai.response.finish_reasons", [self._reasons[i] for i in sorted(self._reasons)])
            if error is not None:
                _fail(span, error)
            span.end()
        except Exception:
            _LOG.exception("a span could not be ended")

    def follow(self, pieces: "Generator[Piece, None, None]") -> "Generator[Piece, None, None]":
        """The pieces of a generation, with the span from the first that is asked for until they end or nobody asks any more."""
        self.begin()
        error: BaseException | None = None
        try:
            for piece in pieces:
                self.took(piece)
                yield piece
        except GeneratorExit:
            raise
        except BaseException as failure:
            error = failure
            raise
        finally:
            pieces.close()
            self.end(error)


def request(model: str, params: str, prompt_tokens: int) -> Request | None:
    """The span to be of a request, None in a program that does not trace.

    model: the model's name, unless ``called`` has another one. params: sampling parameters as the core takes them.
    """
    return None if _tracer() is None else Request(model, params, prompt_tokens)


def _tracer() -> "Tracer | None":
    """OpenTelemetry's tracer for this package, None if the program has not imported OpenTelemetry or set no provider."""
    if sys.modules.get("opentelemetry.trace") is None:
        return None
    from opentelemetry import trace  # waits for an import that is under way in another thread

    from . import __version__

    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider.get_tracer("bitnet_rust", __version__)


def _fail(span: "Span", error: BaseException) -> None:
    """Gives a span the status of an error. Messages of other packages may repeat a text, and are left out."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, str(error) if isinstance(error, BitNetError) else None))
