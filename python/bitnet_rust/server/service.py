"""What the routes of a server share: the engine, the options, and whether it still takes requests."""

import random
import time
import weakref
from collections.abc import Sequence
from typing import Any, cast

from fastapi import Request

from ..engine import Engine
from ..errors import ArgumentError, BitNetError, TokenizerError
from ..generation import SamplingOptions
from ..handle import Handle
from ..model import BitNetModel
from ..tracing import called
from .beside import Beside
from .errors import APIError, api_error, excerpt
from .metrics import Metrics
from .options import ServerOptions
from .schemas import GenerationRequest
from .spelling import Spelling

_LONG = 4096  # characters that are tokenized beside the event loop


def new_id(prefix: str) -> str:
    """An id for a request or an answer, which nobody needs to be unable to guess: it takes no call of the system."""
    return f"{prefix}-{random.getrandbits(96):024x}"


class Service:
    """One model behind one API.

    engine: continues all requests.
    options: what whoever runs the server decided.
    model: the engine's.
    name: what clients call it.
    created: when the server began, in seconds of Unix time.
    metrics: what is counted.
    spelling: what each token stands for.
    vectors: where texts become vectors, one after another, so that those who are in a conversation wait little.
    texts: where long texts become tokens, or tokens a text.
    draining: whether it refuses new requests because it ends.
    in_flight: requests that the end of the server waits for.
    fingerprint: names model and arithmetic, as ``system_fingerprint`` of answers.
    """

    def __init__(self, engine: Engine, options: ServerOptions) -> None:
        self.engine, self.options = engine, options
        self.model: BitNetModel = engine.model
        self.name = options.served_model_name or self.model._name
        self.created = int(time.time())
        self.metrics = Metrics(engine, self.name)
        self.spelling = Spelling(self.model.tokenizer)
        self.vectors = Beside("vectors", engine._max_queue)
        self.texts = Beside("texts", engine._max_queue)
        self.metrics.embeddings.set_function(lambda: self.vectors.in_flight)
        self.metrics.texts.set_function(lambda: self.texts.in_flight)
        self.draining = False
        self._handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self.in_flight = 0
        self.fingerprint = f"fp_{self.model.config.architectures[0]}_{self.model.head_dtype}_{self.model.kv_dtype}"

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        length: int = self.model.config.max_position_embeddings
        return length

    @property
    def failure(self) -> str | None:
        """Why nothing can be generated any more, for everybody; the log has said more. None while something can."""
        if self.engine._over.is_set():
            return "the engine has ended by a defect"
        try:
            self.model._model.check()
        except BitNetError:
            return "the model's file is damaged"
        return None

    @property
    def has_chat(self) -> bool:
        """Whether there is a chat template."""
        tokenizer = self.model._tokenizer_or_none
        return self.options.chat_template is not None or (tokenizer is not None and tokenizer.chat_template is not None)

    def check_model(self, asked: str | None) -> None:
        """Refuses a request that names another model."""
        if asked is not None and asked != self.name:
            raise APIError(
                404, f"there is no model {excerpt(asked)}: this server has {self.name}",
                code="model_not_found", param="model",
            )  # fmt: skip

    async def prompt_ids(
        self, prompt: str | list[int], *, add_special_tokens: bool, param: str, to_continue: bool = True
    ) -> list[int]:
        """The token ids of a text or of token ids, which the context must hold; with to_continue one more, too."""
        if isinstance(prompt, list):
            self.check_ids(prompt, param)
            ids = prompt
        else:
            ids = await self.tokenize(prompt, add_special_tokens, param)
        if not ids:
            raise APIError(400, f"{param} is empty: expected at least one token", param=param, code="invalid_value")
        if len(ids) > self.context - to_continue:
            answer = ", the answer included" if to_continue else ""
            raise APIError(
                400, f"{param} has {len(ids)} tokens: this model's context has {self.context}{answer}",
                param=param, code="context_length_exceeded",
            )  # fmt: skip
        return ids

    async def tokenize(self, text: str, add_special_tokens: bool, param: str) -> list[int]:
        """The token ids of a text. A long one does not keep others waiting; one that no tokenizer could make short enough for the
        context is refused, as to find that out by its tokens would take seconds and gigabytes."""
        most = self.context * self.spelling.longest
        if len(text) > most:
            raise APIError(
                400, f"{param} has {len(text)} characters: the {self.context} tokens of this model's context have {most} at most",
                param=param, code="context_length_exceeded",
            )  # fmt: skip
        try:
            if len(text) < _LONG:
                return self.model.tokenizer.encode(text, add_special_tokens)
            return (await self.texts.start([lambda: self.model.tokenizer.encode(text, add_special_tokens)]))[0]
        except (ArgumentError, TokenizerError) as error:
            raise APIError(400, f"{param}: {error}", param=param, code="invalid_value") from error

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Refuses token ids that the model does not have."""
        size = self.model.config.vocab_size
        if ids and max(ids) >= size:
            at = next(at for at, token in enumerate(ids) if token >= size)
            raise APIError(
                400,
                f"{param} has {ids[at]} at {at}: expected token ids below {size}",
                param=param,
                code="invalid_value",
            )

    def frame(self, prefix: str, kind: str) -> dict[str, Any]:
        """What an answer and all its events begin with: an id of its own, what kind of object it is, when and by what it was made."""
        return {
            "id": new_id(prefix),
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
            "system_fingerprint": self.fingerprint,
        }

    def check_prompts(self, count: int, param: str) -> None:
        """Refuses a request with too many texts."""
        most = self.options.max_prompts
        if count > most:
            raise APIError(
                400, f"{param} has {count} texts: expected at most {most}", param=param, code="invalid_value"
            )

    def check_choices(self, count: int, param: str) -> None:
        """Refuses a request for too many answers to a prompt."""
        most = self.options.max_choices
        if count > most:
            raise APIError(400, f"{param} = {count}: expected at most {most}", param=param, code="invalid_value")

    async def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt of a conversation."""
        template = self.options.chat_template
        try:
            if sum(len(message["content"]) for message in messages) < _LONG:
                return self.model._render(messages, template)
            return (await self.texts.start([lambda: self.model._render(messages, template)]))[0]
        except TokenizerError as error:
            code = "invalid_value" if self.has_chat else "no_chat"
            raise APIError(400, str(error), param="messages", code=code) from error

    def sampling(self, body: GenerationRequest, max_tokens: int | None) -> SamplingOptions:
        """What a request says about how it is continued, as ``Engine.submit`` takes it."""
        most = self.options.max_tokens
        if max_tokens is not None and most is not None and max_tokens > most:
            raise APIError(
                400, f"max_tokens = {max_tokens}: expected at most {most}", param="max_tokens", code="invalid_value"
            )
        if max_tokens is None:
            default = self.model.generation_config.get("max_new_tokens")
            max_tokens = min(default if isinstance(default, int) else self.context, most or self.context)
        same = (
            "temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty", "repetition_penalty",
            "logit_bias", "stop_token_ids", "ignore_eos", "prompt_lookup_num_tokens",
        )  # fmt: skip
        options: dict[str, Any] = {name: getattr(body, name) for name in same}
        options |= {"max_new_tokens": min(max_tokens, self.context), "do_sample": True, "stop": body.stop}
        return cast(SamplingOptions, options)

    def submit(
        self,
        request: Request,
        prompts: Sequence[Sequence[int]],
        copies: int,
        seed: int | None,
        sampling: SamplingOptions,
    ) -> list[Handle]:
        """Adds a request for each prompt, copies times with seeds that differ; all of them, or none."""
        asked, most = len(prompts) * copies, self.engine._most_at_once
        if asked > most:
            raise APIError(
                400, f"{asked} answers at once: this server has room for {most}, those that wait included",
                param="n" if copies > 1 else "prompt", code="invalid_value",
            )  # fmt: skip
        handles: list[Handle] = []
        try:
            for ids in prompts:
                for copy in range(copies):
                    options = sampling.copy()
                    if seed is not None:
                        options["seed"] = (seed + copy) % 2**64
                    with called(model=self.name):
                        handles.append(
                            self.engine.submit(
                                ids,
                                client=request.state.record.client,
                                deadline=self.options.request_timeout,
                                **options,
                            )
                        )
        except BaseException as error:
            for handle in handles:
                handle.cancel()
            if isinstance(error, Exception):
                raise api_error(error, self.metrics.seconds_until_room()) from error
            raise
        self._handles.update(handles)
        return handles

    def cancel_all(self) -> None:
        """Ends all requests, those to the engine and those beside it."""
        for handle in list(self._handles):
            handle.cancel()
        self.vectors.cancel_all()
        self.texts.cancel_all()

    def close(self) -> None:
        """Waits for what still runs beside the engine."""
        self.vectors.close()
        self.texts.close()
