"""Errors as OpenAI's API has them: {"error": {message, type, param, code}} and a status."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import Response

from ..errors import (
    ArgumentError,
    BitNetError,
    DeadlineError,
    DTypeError,
    OutOfMemoryError,
    QueueFullError,
    RequestCanceledError,
    TokenizerError,
)
from .schemas import FIELDS

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_NAMED = re.compile(r"(\w+)(\[.*?\])? = ")  # how messages of the package begin: logit_bias["7"] = 101: expected ...
# What other servers call our fields.
_ELSEWHERE = {"n_predict": "max_tokens", "n_probs": "logprobs", "repeat_penalty": "repetition_penalty"}


class APIError(Exception):
    """A request that is answered with an error.

    status: of HTTP, 400 to 599.
    message: what is wrong, for people.
    code: a word that programs may compare.
    param: the field of the request that is wrong.
    headers: that the answer gets besides.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.message = _cut(message, 1000)  # it may repeat what a request has
        self.param = None if param is None else _cut(param, 200)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error as JSON has it."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The answer. Its JSON is ASCII, as a message may repeat half a character of the request."""
        return Response(json.dumps(self.body()), self.status, self.headers, "application/json")


def api_error(error: BaseException, retry_after: float = 1.0) -> APIError:
    """What a client is told of an exception of the package; what it does not expect is a defect, whose text stays in the log."""
    match error:
        case APIError():
            return error
        case QueueFullError():
            return APIError(429, str(error), code="queue_full", headers={"Retry-After": str(math.ceil(retry_after))})
        case DeadlineError():
            # OpenAI's client would ask again at once, which helps nobody.
            return APIError(504, f"{error}", code="timeout", headers={"x-should-retry": "false"})
        case RequestCanceledError():
            return APIError(503, str(error), code="canceled")
        case OutOfMemoryError():
            return APIError(503, str(error), code="out_of_memory")
        case ArgumentError() | DTypeError() | TokenizerError():
            named = _NAMED.match(str(error))
            param = named[1] if named and named[1] in FIELDS else None
            return APIError(400, str(error), param=param, code="invalid_value")
        case BitNetError():
            return APIError(500, str(error).splitlines()[0], code="model_error")
    return APIError(500, "the server has a defect: its log says more", code="internal_error")


def no_route(method: str, path: str, routes: Iterable[str]) -> APIError:
    """A path that is none of the routes."""
    path = _cut(path, 100)
    close = difflib.get_close_matches(path, routes, 1, 0.7)
    hint = f"did you mean {close[0]}?" if close else "GET /openapi.json has all there are"
    return APIError(404, f"{method} {path}: there is no such route; {hint}", code="unknown_url")


def wrong_method(method: str, path: str, headers: Mapping[str, str] | None) -> APIError:
    """A route that has other methods."""
    allowed = (headers or {}).get("Allow", "another method")
    return APIError(
        405, f"{method} {_cut(path, 100)}: expected {allowed}", code="method_not_supported", headers=headers
    )


def invalid_request(errors: Sequence[Mapping[str, Any]]) -> APIError:
    """The first of pydantic's errors, in our words."""
    error = errors[0]
    path = [_cut(str(part), 100) for part in error["loc"]]
    name = ".".join(path)
    kind, value = error["type"], error.get("input")
    if not path and kind != "value_error":
        return APIError(400, f"the request is {excerpt(value)}: expected a JSON object", code="invalid_json")
    if kind == "extra_forbidden":
        close = [_ELSEWHERE[path[-1]]] if path[-1] in _ELSEWHERE else difflib.get_close_matches(path[-1], FIELDS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return APIError(400, f"{name}: there is no such field{hint}", param=name, code="unknown_parameter")
    if kind == "missing":
        return APIError(400, f"{name} is missing", param=name, code="missing_required_parameter")
    if kind in ("too_short", "too_long"):
        count, least, most = (error["ctx"].get(length) for length in ("actual_length", "min_length", "max_length"))
        expected = f"at least {least}" if kind == "too_short" else f"at most {most}"
        return APIError(400, f"{name} has {count} entries: expected {expected}", param=name, code="invalid_value")
    reason = error["msg"].removeprefix("Value error, ")
    if kind == "value_error" and not reason.startswith("expected"):  # of the whole request: "field: what is wrong"
        name = ".".join([*path, reason.partition(":")[0]])
        return APIError(400, ".".join([*path, reason]), param=name, code="invalid_value")
    expected = reason if kind == "value_error" else f"expected {reason.removeprefix('Input should be ')}"
    return APIError(400, f"{name} = {excerpt(value)}: {expected}", param=name, code="invalid_value")


def excerpt(value: Any) -> str:
    """A value of a request, short enough for a message."""
    return _cut(repr(value), 100)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
