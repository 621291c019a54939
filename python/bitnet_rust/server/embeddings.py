"""POST /v1/embeddings"""

import asyncio
import base64
from typing import Any

from fastapi import APIRouter, Request, Response

from ..embedding import embed
from ..errors import DeadlineError
from .errors import APIError
from .schemas import EmbeddingRequest
from .service import Service
from .streaming import CLIENT_GONE


def embedding_routes(service: Service) -> APIRouter:
    """The route of embeddings. Texts are read one after another, so that those who are in a conversation wait little."""
    router = APIRouter()
    turn = asyncio.Semaphore(1)

    @router.post("/v1/embeddings")
    async def embeddings(request: Request, body: EmbeddingRequest) -> Any:
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
        data = []
        try:
            async with asyncio.timeout(service.options.request_timeout):
                for index, ids in enumerate(sequences):
                    async with turn:
                        vectors = await asyncio.to_thread(embed, service.model, [ids], body.pooling, body.normalize)
                    if await request.is_disconnected():
                        return Response(status_code=CLIENT_GONE)
                    value: Any = vectors[0].tolist()
                    if body.encoding_format == "base64":
                        value = base64.b64encode(vectors[0].astype("<f4").tobytes()).decode()
                    data.append({"object": "embedding", "index": index, "embedding": value})
        except TimeoutError:
            raise DeadlineError(
                f"the embeddings were not done within {service.options.request_timeout} seconds"
            ) from None
        count = sum(map(len, sequences))
        usage = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": data, "model": service.name, "usage": usage}

    return router
