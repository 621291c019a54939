"""POST /v1/embeddings"""

import asyncio
import base64
from functools import partial

from fastapi import FastAPI, Request, Response

from ..embedding import embed
from ..errors import DeadlineError
from ..model import BitNetModel
from .errors import APIError
from .schemas import EmbeddingRequest
from .service import Service
from .streaming import CLIENT_GONE, answered, whole


def add_embedding_routes(app: FastAPI, service: Service) -> None:
    """The route of embeddings."""

    @app.post("/v1/embeddings")
    async def embeddings(request: Request, body: EmbeddingRequest) -> Response:
        service.check_model(body.model)
        size = service.model.config.hidden_size
        if body.dimensions not in (None, size):
            raise APIError(
                400, f"dimensions = {body.dimensions}: this model's embeddings have {size} and cannot be shortened",
                param="dimensions", code="invalid_value",
            )  # fmt: skip
        service.check_prompts(len(body.input), "input")
        sequences = [
            await service.prompt_ids(text, add_special_tokens=body.add_special_tokens, param="input", to_continue=False)
            for text in body.input
        ]
        count = sum(map(len, sequences))
        request.state.record.note_texts(count, body.input)
        work = service.vectors.start([partial(_vector, service.model, ids, body) for ids in sequences])
        try:
            async with asyncio.timeout(service.options.request_timeout):
                done = await whole(request, [work])
        except TimeoutError:
            raise DeadlineError(
                f"the embeddings were not done within {service.options.request_timeout} seconds"
            ) from None
        if done is None:
            return Response(status_code=CLIENT_GONE)
        service.metrics.embedded.inc(count)
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(done[0])]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return answered({"object": "list", "data": data, "model": service.name, "usage": usage})


def _vector(model: BitNetModel, ids: list[int], body: EmbeddingRequest) -> list[float] | str:
    """The vector of a text as the request wants it."""
    vector = embed(model, [ids], body.pooling, body.normalize)[0]
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
