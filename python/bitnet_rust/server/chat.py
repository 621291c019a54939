"""POST /v1/chat/completions"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response

from ..generation import GenerationResult
from ..handle import Handle, as_they_come
from ..tracing import called
from .logprobs import chat_logprobs, columns
from .schemas import ChatRequest
from .service import Service
from .streaming import CLIENT_GONE, Chunks, EventStream, answered, encoded, usage, whole


def add_chat_routes(app: FastAPI, service: Service) -> None:
    """/v1/chat/completions."""

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        service.check_model(body.model)
        service.check_choices(body.n, "n")
        text = await service.render([message.plain() for message in body.messages])
        ids = await service.prompt_ids(text, add_special_tokens=False, param="messages")
        sampling = service.sampling(body, body.max_completion_tokens or body.max_tokens)
        if body.logprobs:
            sampling["logprobs"] = body.top_logprobs
        with called("chat"):
            handles = service.submit(request, [ids], body.n, body.seed, sampling)
        frame = service.frame("chatcmpl", "chat.completion.chunk" if body.stream else "chat.completion")
        request.state.record.note(handles, body.n, text)
        if body.stream:
            chunks = Chunks(frame, body.stream_options.include_usage)
            return EventStream(request, handles, _events(service, body, chunks, handles), service.options.heartbeat)
        results = await whole(request, handles)
        if results is None:
            return Response(status_code=CLIENT_GONE)
        choices = [_choice(service, i, result) for i, result in enumerate(results)]
        return answered(frame | {"choices": choices, "usage": usage(handles, body.n)})


def _choice(service: Service, index: int, result: GenerationResult) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": result.text, "refusal": None},
        "logprobs": chat_logprobs(service, result.token_ids, result.logprobs, result.top_logprobs),
        "finish_reason": result.finish_reason,
    }


async def _events(service: Service, body: ChatRequest, chunks: Chunks, handles: Sequence[Handle]) -> AsyncIterator[str]:
    for index in range(len(handles)):
        yield chunks.choice(index, '"delta":{"role":"assistant","content":""}', None, None)
    left = len(handles)
    async for index, pieces in as_they_come(handles):
        text, finish = "".join(piece.text for piece in pieces), pieces[-1].finish_reason
        logprobs = None
        if body.logprobs:
            logprobs = chat_logprobs(service, *columns(pieces))
        events = ""
        if text or logprobs:
            events = chunks.choice(index, f'"delta":{{"content":{encoded(text)}}}', logprobs, None)
        if finish is not None:
            events += chunks.choice(index, '"delta":{}', None, finish)
            left -= 1
        if events:
            yield events if left else events + chunks.end(handles, body.n)
