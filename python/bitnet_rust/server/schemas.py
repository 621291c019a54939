"""What requests may have in them.

A field of OpenAI's API that this server does not have is refused when it would change the answer, and else passed over; a
field that neither has is refused.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
TokenID = Annotated[int, Field(ge=0, lt=2**31)]


class Request(BaseModel):
    """A request body.

    unsupported: fields that the server does not have, with the values that ask for nothing. Null stands for what is not
        given.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        body = {name: value for name, value in body.items() if value is not None}
        for name, harmless in cls.unsupported.items():
            if name in body and body[name] not in harmless:
                raise ValueError(f"{name}: this server does not support it")
        return {name: value for name, value in body.items() if name not in cls.unsupported}


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or len(stops) > 16:
        raise ValueError("expected a text or a list of at most 16")
    if not all(isinstance(stop, str) and 0 < len(stop) <= 1000 for stop in stops):
        raise ValueError("expected texts of 1 to 1000 characters")
    return stops


class StreamOptions(Request):
    """stream_options

    include_usage: end the stream with an event that has the usage.
    """

    unsupported = {"include_obfuscation": (False,)}

    include_usage: bool = False


class GenerationRequest(Request):
    """What chat and text completions have in common.

    model: the server's name for its model, or nothing.
    n: how many answers to give, each with a seed of its own.
    max_tokens: an answer ends after so many.
    stop: up to 16 texts that end an answer and are not part of it.
    stream: send tokens as they come, as server-sent events.
    stream_options: of a stream.
    seed: equal seeds give equal answers; without one each request draws its own.
    temperature: divides the logits, 0 to 2; 0 is greedy.
    top_p: draw among the most probable tokens that together reach this probability.
    presence_penalty: -2 to 2, subtracted once from the logits of tokens already generated.
    frequency_penalty: -2 to 2, subtracted for each time that a token was generated.
    logit_bias: numbers added to the logits of single tokens, by id.
    top_k: draw among the k most probable tokens.
    min_p: draw among tokens at least so many times as probable as the most probable one.
    typical_p: locally typical sampling.
    repetition_penalty: CTRL's penalty on the tokens of prompt and answer, 0.01 to 100; 1 is none.
    stop_token_ids: tokens that end an answer, besides the model's own.
    ignore_eos: let the model's own end tokens pass.
    prompt_lookup_num_tokens: guess so many tokens where text repeats itself: faster, same text.
    user, metadata, service_tier, safety_identifier: taken, and without effect.
    prompt_cache_key, prompt_cache_retention, parallel_tool_calls: taken, and without effect.
    cache_prompt: llama.cpp's; taken, and without effect, as equal beginnings are kept in any case.
    """

    model: str | None = None
    n: Count = 1
    max_tokens: Count | None = None
    stop: Annotated[list[str], BeforeValidator(_stops)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    temperature: Number | None = Field(None, ge=0, le=2)
    top_p: Number | None = Field(None, gt=0, le=1)
    presence_penalty: Number | None = Field(None, ge=-2, le=2)
    frequency_penalty: Number | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Number] | None = Field(None, max_length=1024)

    # Beyond OpenAI's API, with the meanings that `generate` gives them.
    top_k: int | None = Field(None, ge=0, lt=2**31)
    min_p: Number | None = Field(None, ge=0, le=1)
    typical_p: Number | None = Field(None, gt=0, le=1)
    repetition_penalty: Number | None = Field(None, ge=0.01, le=100)
    stop_token_ids: list[TokenID] | None = Field(None, max_length=1024)
    ignore_eos: bool | None = None
    prompt_lookup_num_tokens: int | None = Field(None, ge=0, le=16)

    # They say something about the request and nothing about the answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    parallel_tool_calls: bool | None = None
    cache_prompt: bool | None = None

    @model_validator(mode="after")
    def _together(self) -> "GenerationRequest":
        if "stream_options" in self.model_fields_set and not self.stream:
            raise ValueError("stream_options: expected none without stream = true")
        return self


class Part(Request):
    """A piece of a message's content.

    type: texts are all that it may be.
    text: the text.
    """

    type: Literal["text"]
    text: str


def _content(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list) or not value:
        raise ValueError('expected a text or a list of {"type": "text", "text": ...}')
    return value


class Message(Request):
    """One message of a conversation.

    role: who says it; "developer" is a system message. There is no "tool", as there are no tools.
    content: its text, in parts; a text alone is one part.
    name: of whoever says it, for templates that use it.
    """

    unsupported = {
        "tool_calls": ([],), "function_call": (), "refusal": (), "audio": (), "annotations": ([],),
    }  # fmt: skip

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], BeforeValidator(_content)]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """The message as chat templates know it."""
        role = "system" if self.role == "developer" else self.role
        message = {"role": role, "content": "".join(part.text for part in self.content)}
        return message if self.name is None else message | {"name": self.name}


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions

    messages: the conversation so far, at least one message.
    max_completion_tokens: the newer name of max_tokens.
    logprobs: answer with the log-probability of each token.
    top_logprobs: and with those of so many most probable ones, up to 20.
    """

    unsupported = {
        "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},), "modalities": (["text"],), "audio": (), "prediction": (),
        "reasoning_effort": ("none",), "verbosity": ("medium",), "web_search_options": (), "store": (False,),
    }  # fmt: skip

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)

    @model_validator(mode="after")
    def _chat_together(self) -> "ChatRequest":
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens: expected none with max_completion_tokens, its newer name")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: expected none without logprobs = true")
        return self


def _prompts(value: Any) -> Any:
    """The prompts as a list, also where there is one."""
    one = isinstance(value, str) or (isinstance(value, list) and bool(value) and isinstance(value[0], int))
    prompts = [value] if one else value
    if not isinstance(prompts, list) or not prompts:
        raise ValueError("expected a text, token ids, or a list of either")
    kind = type(prompts[0])
    if kind not in (str, list) or any(type(prompt) is not kind for prompt in prompts):
        raise ValueError("expected a text, token ids, or a list of either")
    for prompt in prompts if kind is list else []:
        if set(map(type, prompt)) != {int} or not 0 <= min(prompt) <= max(prompt) < 2**31:
            raise ValueError("expected lists of token ids")
    return prompts


class CompletionRequest(GenerationRequest):
    """POST /v1/completions

    prompt: a text, token ids, or a list of either.
    max_tokens: an answer ends after so many; 16, as OpenAI has it.
    logprobs: answer with the log-probability of each token, and with those of so many most probable ones, up to 20.
    echo: begin each answer with its prompt.
    best_of: make so many answers and give the n most probable ones.
    add_special_tokens: let the tokenizer add its own, such as one for the beginning.
    """

    unsupported = {"suffix": ("",), "store": (False,)}

    prompt: Annotated[list[str] | list[list[int]], BeforeValidator(_prompts)]
    max_tokens: Count | None = 16
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False
    best_of: Count | None = None
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _completion_together(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of: expected at least n = {self.n}")
        if self.stream and self.best_of is not None and self.best_of > self.n:
            raise ValueError("best_of: expected n with stream = true, as the best is known when all are complete")
        if self.echo and self.logprobs is not None:
            raise ValueError("echo: expected none with logprobs, which this server has of new tokens only")
        return self


class EmbeddingRequest(Request):
    """POST /v1/embeddings

    input: a text, token ids, or a list of either.
    model: the server's name for its model, or nothing.
    encoding_format: a vector as numbers, or as float32 in base64.
    dimensions: nothing, or the model's width, as its vectors cannot be made shorter.
    user: taken, and without effect.
    pooling: the mean of the last hidden states of a text's tokens, or that of its last token.
    normalize: make each vector's length 1.
    add_special_tokens: let the tokenizer add its own, such as one for the beginning.
    """

    input: Annotated[list[str] | list[list[int]], BeforeValidator(_prompts)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None

    # Beyond OpenAI's API.
    pooling: Literal["mean", "last"] = "mean"
    normalize: bool = True
    add_special_tokens: bool = True


class TokenizeRequest(Request):
    """POST /tokenize: a text, or a conversation as the chat template renders it.

    model: the server's name for its model, or nothing.
    prompt: a text.
    messages: a conversation, in place of a text.
    add_special_tokens: let the tokenizer add its own, such as one for the beginning.
    """

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _either(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt: expected either it or messages")
        return self


class DetokenizeRequest(Request):
    """POST /detokenize

    model: the server's name for its model, or nothing.
    tokens: the ids.
    skip_special_tokens: leave special tokens out of the text.
    """

    model: str | None = None
    tokens: list[TokenID]
    skip_special_tokens: bool = False


REQUESTS = (ChatRequest, CompletionRequest, EmbeddingRequest, TokenizeRequest, DetokenizeRequest)
FIELDS = sorted({name for request in REQUESTS for name in request.model_fields})
