"""Routes whose requests have a body: what comes before their function."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError

from . import schemas
from .errors import APIError, invalid_request


class BodyRoute(APIRoute):
    """A route whose function takes the request and its body, as one of ``schemas`` says, and makes the answer itself.

    FastAPI's own way to such a function looks for parameters in path, query, headers and cookies, where these routes have none. That
    would be a quarter of what a short request costs.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request; FastAPI's own for routes without a body."""
        answer = self.endpoint
        schema: type[schemas.Request] | None = get_type_hints(answer).get("body")
        if schema is None:
            return super().get_route_handler()

        async def handle(request: Request) -> Response:
            response: Response = await answer(request, _parsed(await request.body(), schema))
            return response

        return handle


def _parsed(body: bytes, schema: type[schemas.Request]) -> schemas.Request:
    """A body as what it has to be."""
    if not body:
        raise APIError(400, "the request has no body: expected a JSON object", code="invalid_json")
    try:
        return schema.model_validate(json.loads(body))
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False)) from error
    except json.JSONDecodeError as error:
        raise APIError(400, f"the request is no JSON: {error.msg}", code="invalid_json") from error
    except (ValueError, RecursionError) as error:  # bytes, numbers or depth that no reader takes
        reason = str(error).partition(";")[0]
        raise APIError(400, f"the request cannot be read: {reason}", code="invalid_json") from error
