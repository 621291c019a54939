"""POST /tokenize and /detokenize: texts as this model's tokens."""

from fastapi import FastAPI, Request, Response

from .schemas import DetokenizeRequest, TokenizeRequest
from .service import Service
from .streaming import answered


def add_token_routes(app: FastAPI, service: Service) -> None:
    """Both routes; they are those of vLLM."""

    @app.post("/tokenize")
    async def tokenize(request: Request, body: TokenizeRequest) -> Response:
        service.check_model(body.model)
        if body.messages is not None:
            text, special = await service.render([message.plain() for message in body.messages]), False
        else:
            text, special = body.prompt or "", body.add_special_tokens
        ids = await service.tokenize(text, special, "messages" if body.messages is not None else "prompt")
        return answered({"count": len(ids), "max_model_len": service.context, "tokens": ids})

    @app.post("/detokenize")
    async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
        service.check_model(body.model)
        service.check_ids(body.tokens, "tokens")
        decoded = service.texts.start([lambda: service.model.tokenizer.decode(body.tokens, body.skip_special_tokens)])
        return answered({"prompt": (await decoded)[0]})
