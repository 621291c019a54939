"""POST /tokenize and /detokenize: texts as this model's tokens."""

from typing import Any

from fastapi import APIRouter

from .schemas import DetokenizeRequest, TokenizeRequest
from .service import Service


def token_routes(service: Service) -> APIRouter:
    """Both routes; they are those of vLLM."""
    router = APIRouter()

    @router.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> Any:
        service.check_model(body.model)
        if body.messages is not None:
            text, special = await service.render([message.plain() for message in body.messages]), False
        else:
            text, special = body.prompt or "", body.add_special_tokens
        ids = await service.tokenize(text, special, "messages" if body.messages is not None else "prompt")
        return {"count": len(ids), "max_model_len": service.context, "tokens": ids}

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> Any:
        service.check_model(body.model)
        service.check_ids(body.tokens, "tokens")
        decoded = service.texts.start([lambda: service.model.tokenizer.decode(body.tokens, body.skip_special_tokens)])
        return {"prompt": (await decoded)[0]}

    return router
