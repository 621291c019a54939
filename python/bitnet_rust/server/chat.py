"""POST /v1/chat/completions"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from ..generation import GenerationResult
from ..handle import Handle, as_they_come
from ..tracing import called
from .logprobs import chat_logprobs, columns
from .schemas import ChatRequest
from .service import Service
from .streaming import CLIENT_GONE, EventStream, usage, whole


def chat_routes(service: Service) -> APIRouter:
    """/v1/chat/completions."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat_completions(request: Request, body: ChatRequest) -> Any:
        service.check_model(body.model)
        text = await service.render([message.plain() for message in body.messages])
        ids = await service.prompt_ids(text, add_special_tokens=False, param="messages")
        sampling = service.sampling(body, body.max_completion_tokens or body.max_tokens)
        if body.logprobs:
            sampling["logprobs"] = body.top_logprobs
        with called("chat"):
            handles = service.submit(request, [ids], body.n, body.seed, sampling)
        frame = service.frame("chatcmpl", "chat.completion.chunk" if body.stream else "chat.completion")
        request.state.record.note(handles, text)
        if body.stream:
            return EventStream(request, handles, _events(service, body, frame, handles), service.options.heartbeat)
        results = await whole(request, handles)
        if results is None:
            return Response(status_code=CLIENT_GONE)
        choices = [_choice(service, i, result) for i, result in enumerate(results)]
        return frame | {"choices": choices, "usage": usage(handles, body.n)}

    return router


def _choice(service: Service, index: int, result: GenerationResult) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": result.text, "refusal": None},
        "logprobs": chat_logprobs(service, result.token_ids, result.logprobs, result.top_logprobs),
        "finish_reason": result.finish_reason,
    }


async def _events(
    service: Service, body: ChatRequest, frame: dict[str, Any], handles: Sequence[Handle]
) -> AsyncIterator[dict[str, Any]]:
    if body.stream_options.include_usage:
        frame = frame | {"usage": None}

    def event(index: int, delta: dict[str, str], logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
        return frame | {"choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]}

    for index in range(len(handles)):
        yield event(index, {"role": "assistant", "content": ""})
    async for index, pieces in as_they_come(handles):
        text, finish = "".join(piece.text for piece in pieces), pieces[-1].finish_reason
        logprobs = None
        if body.logprobs:
            logprobs = chat_logprobs(service, *columns(pieces))
        if text or logprobs:
            yield event(index, {"content": text}, logprobs)
        if finish is not None:
            yield event(index, {}, finish=finish)
    if body.stream_options.include_usage:
        yield frame | {"choices": [], "usage": usage(handles, body.n)}
