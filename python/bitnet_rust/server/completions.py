"""POST /v1/completions"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response

from ..generation import GenerationResult
from ..handle import Handle, as_they_come
from .logprobs import TextLogprobs, columns
from .schemas import CompletionRequest
from .service import Service
from .streaming import CLIENT_GONE, Chunks, EventStream, answered, encoded, usage, whole


def add_completion_routes(app: FastAPI, service: Service) -> None:
    """/v1/completions."""

    @app.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        service.check_model(body.model)
        service.check_prompts(len(body.prompt), "prompt")
        copies = max(body.n, body.best_of or 1)
        service.check_choices(copies, "n" if copies == body.n else "best_of")
        prompts = [
            await service.prompt_ids(prompt, add_special_tokens=body.add_special_tokens, param="prompt")
            for prompt in body.prompt
        ]
        sampling = service.sampling(body, body.max_tokens)
        if body.logprobs is not None or copies > body.n:
            sampling["logprobs"] = body.logprobs or 0
        handles = service.submit(request, prompts, copies, body.seed, sampling)
        frame = service.frame("cmpl", "text_completion")
        request.state.record.note(handles, copies, body.prompt)
        before = [_text(service, prompt) if body.echo else "" for prompt in body.prompt]
        if body.stream:
            chunks = Chunks(frame, body.stream_options.include_usage)
            events = _events(service, body, chunks, handles, before)
            return EventStream(request, handles, events, service.options.heartbeat)
        results = await whole(request, handles)
        if results is None:
            return Response(status_code=CLIENT_GONE)
        choices: list[dict[str, Any]] = []
        for at, text in enumerate(before):
            for result in _best(results[at * copies : (at + 1) * copies], body.n):
                choices.append(_choice(service, body, len(choices), text, result))
        return answered(frame | {"choices": choices, "usage": usage(handles, copies)})


def _text(service: Service, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else service.model.tokenizer.decode(prompt)


def _best(results: Sequence[GenerationResult], n: int) -> Sequence[GenerationResult]:
    """The n results whose tokens are the most probable on average."""

    def likelihood(result: GenerationResult) -> float:
        logprobs = result.logprobs or []
        return sum(logprobs) / max(len(logprobs), 1)

    return results if len(results) == n else sorted(results, key=likelihood, reverse=True)[:n]


def _choice(
    service: Service, body: CompletionRequest, index: int, before: str, result: GenerationResult
) -> dict[str, Any]:
    logprobs = None
    if body.logprobs is not None and result.logprobs is not None and result.top_logprobs is not None:
        logprobs = TextLogprobs(service).take(result.token_ids, result.logprobs, result.top_logprobs)
    return {
        "index": index, "text": before + result.text, "logprobs": logprobs, "finish_reason": result.finish_reason,
    }  # fmt: skip


async def _events(
    service: Service, body: CompletionRequest, chunks: Chunks, handles: Sequence[Handle], before: Sequence[str]
) -> AsyncIterator[str]:
    for index in range(len(handles)):
        if text := before[index // body.n]:
            yield chunks.choice(index, f'"text":{encoded(text)}', None, None)
    logprobs = [TextLogprobs(service) for _ in handles]
    left = len(handles)
    async for index, pieces in as_they_come(handles):
        text, finish = "".join(piece.text for piece in pieces), pieces[-1].finish_reason
        told = None
        if body.logprobs is not None:
            told = logprobs[index].take(*columns(pieces))
        left -= finish is not None
        if text or told or finish is not None:
            event = chunks.choice(index, f'"text":{encoded(text)}', told, finish)
            yield event if left else event + chunks.end(handles, body.n)
