"""bitnet serve as OpenAI's own client sees it."""

import base64
import gzip
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from bitnet_rust import BitNetModel
from bitnet_rust.server.schemas import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
)
from conftest import REPO
from serving import CHAT, Served, chat_template

PROMPT = "First Citizen:"
MESSAGES: Any = [{"role": "system", "content": "Speak."}, {"role": "user", "content": "Who is there?"}]
SAMPLED: Any = {"temperature": 0.9, "top_p": 0.8, "seed": 7}


@pytest.fixture(scope="module")
def server(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    template = chat_template(tmp_path_factory.mktemp("chat"))
    with Served("--model", str(tiny_dir), "--served-model-name", "tiny", "--chat-template", str(template)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


# --- text ------------------------------------------------------------------------------------------------------------


def test_a_completion_is_what_generate_gives(client: openai.OpenAI, tiny: BitNetModel) -> None:
    alone = tiny.generate(PROMPT, max_new_tokens=24, details=True)
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=24, temperature=0)
    assert answer.choices[0].text == alone.text
    assert answer.choices[0].finish_reason == alone.finish_reason
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (alone.prompt_tokens, len(alone.token_ids))


def test_a_stream_adds_up_to_the_whole_and_ends_with_the_usage(client: openai.OpenAI, tiny: BitNetModel) -> None:
    chunks = list(
        client.completions.create(
            model="tiny",
            prompt=PROMPT,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == tiny.generate(PROMPT, max_new_tokens=24)
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


def test_a_chat_is_what_chat_gives(client: openai.OpenAI, tiny: BitNetModel) -> None:
    alone = tiny.chat(MESSAGES, chat_template=CHAT, max_new_tokens=24)
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_completion_tokens=24, temperature=0)
    assert answer.choices[0].message.content == alone
    stream = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_completion_tokens=24, temperature=0, stream=True
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == alone
    assert chunks[-1].choices[0].finish_reason == "length"


def test_the_usage_says_what_of_a_prompt_was_there_already(client: openai.OpenAI, tiny: BitNetModel) -> None:
    prompt = "Speak, speak. We are accounted poor citizens: " * 6
    ids = tiny.tokenizer.encode(prompt)
    count = len(ids)
    pages = (count - 1) // 64 * 64  # whole pages, and the last token is always read
    assert pages >= 64

    def cached(usage: Any) -> int:
        assert usage.prompt_tokens == count * 2
        told = usage.prompt_tokens_details.cached_tokens
        assert isinstance(told, int)
        return told

    asked: Any = {"model": "tiny", "prompt": [ids, ids[::-1]], "n": 2, "max_tokens": 2}
    assert cached(client.completions.create(**asked).usage) == 0
    assert cached(client.completions.create(**asked).usage) == 2 * pages
    *_, last = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    assert cached(last.usage) == 2 * pages

    talk: Any = [{"role": "user", "content": "Who are you that " * 12}]
    first = client.chat.completions.create(model="tiny", messages=talk, max_tokens=2)
    talk += [{"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "Speak."}]
    second = client.chat.completions.create(model="tiny", messages=talk, max_tokens=2)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert second.usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens // 64 * 64 > 0


def test_message_contents_may_come_in_parts_and_from_developers(client: openai.OpenAI) -> None:
    parts: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "Spe"}, {"type": "text", "text": "ak."}]},
        MESSAGES[1],
    ]
    whole, cut = (
        client.chat.completions.create(model="tiny", messages=messages, max_tokens=8, temperature=0)
        for messages in (MESSAGES, parts)
    )
    assert whole.choices[0].message.content == cut.choices[0].message.content


def test_prompts_are_texts_token_ids_or_lists_of_them(client: openai.OpenAI, tiny: BitNetModel) -> None:
    prompts = [PROMPT, "Before we"]
    ids = [tiny.tokenizer.encode(prompt) for prompt in prompts]
    alone = tiny.generate(prompts, max_new_tokens=8)
    for prompt, expected in ((prompts, alone), (ids, alone), (ids[1], alone[1:])):
        answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=8, temperature=0)
        assert [choice.text for choice in answer.choices] == expected
        assert [choice.index for choice in answer.choices] == list(range(len(expected)))
    assert client.completions.create(model="tiny", prompt=PROMPT, max_tokens=8, temperature=0, echo=True).choices[
        0
    ].text == (PROMPT + alone[0])


# --- how it is chosen ------------------------------------------------------------------------------------------------


def test_sampling_parameters_are_those_of_generate(client: openai.OpenAI, tiny: BitNetModel) -> None:
    token = tiny.generate(PROMPT, max_new_tokens=1, details=True).token_ids[0]
    for asked, extra, same in (
        (SAMPLED, {}, SAMPLED),
        ({"temperature": 0, "logit_bias": {str(token): -100}}, {}, {"logit_bias": {token: -100}}),
        ({"temperature": 0, "presence_penalty": 1.5}, {}, {"presence_penalty": 1.5}),
        ({"temperature": 0, "frequency_penalty": 1.5}, {}, {"frequency_penalty": 1.5}),
        ({"temperature": 0}, {"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
        ({"temperature": 0.7, "seed": 1}, {"top_k": 3}, {"temperature": 0.7, "seed": 1, "top_k": 3}),
        ({"temperature": 0.7, "seed": 1}, {"min_p": 0.2}, {"temperature": 0.7, "seed": 1, "min_p": 0.2}),
        ({"seed": -1}, {}, {"temperature": 1.0, "seed": 2**64 - 1}),
    ):
        answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=20, extra_body=extra, **asked)
        assert answer.choices[0].text == tiny.generate(PROMPT, max_new_tokens=20, **same), asked


def test_stop_texts_end_it_and_are_not_part_of_it(client: openai.OpenAI, tiny: BitNetModel) -> None:
    text = tiny.generate(PROMPT, max_new_tokens=40)
    for stop in (text[10:14], [text[10:14], "never there"]):
        answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=40, temperature=0, stop=stop)
        assert answer.choices[0].text == text[: text.index(text[10:14])]
        assert answer.choices[0].finish_reason == "stop"


def test_several_choices_have_seeds_of_their_own(client: openai.OpenAI, tiny: BitNetModel) -> None:
    answer = client.completions.create(model="tiny", prompt=[PROMPT, "ROMEO:"], n=2, max_tokens=12, **SAMPLED)
    alone = [
        tiny.generate(prompt, max_new_tokens=12, **(SAMPLED | {"seed": seed}))
        for prompt in (PROMPT, "ROMEO:")
        for seed in (7, 8)
    ]
    assert [choice.text for choice in answer.choices] == alone
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 48
    assert answer.usage.prompt_tokens == sum(len(tiny.tokenizer.encode(prompt)) for prompt in (PROMPT, "ROMEO:"))

    texts = [""] * 4
    for chunk in client.completions.create(
        model="tiny", prompt=[PROMPT, "ROMEO:"], n=2, max_tokens=12, stream=True, **SAMPLED
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == alone


def test_best_of_gives_the_most_probable(client: openai.OpenAI, tiny: BitNetModel) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, n=1, best_of=4, max_tokens=12, **SAMPLED)
    drawn = [
        tiny.generate(PROMPT, max_new_tokens=12, logprobs=0, details=True, **(SAMPLED | {"seed": seed}))
        for seed in range(7, 11)
    ]
    best = max(drawn, key=lambda result: sum(result.logprobs) / len(result.logprobs))
    assert answer.choices[0].text == best.text
    assert answer.choices[0].logprobs is None


def test_log_probabilities_come_in_both_forms(client: openai.OpenAI, tiny: BitNetModel) -> None:
    alone = tiny.generate(PROMPT, max_new_tokens=10, logprobs=2, details=True)
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=10, temperature=0, logprobs=2)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs == pytest.approx(alone.logprobs)
    assert "".join(told.tokens or []) == alone.text
    assert told.text_offset == [len("".join((told.tokens or [])[:i])) for i in range(10)]
    assert [list(top.values()) for top in told.top_logprobs or []] == [
        pytest.approx([p for _, p in top]) for top in alone.top_logprobs
    ]
    chats = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=10, temperature=0, logprobs=True, top_logprobs=2, stream=True
    )
    tokens = [entry for chunk in chats if (one := chunk.choices[0].logprobs) for entry in one.content or []]
    whole = tiny.chat(MESSAGES, chat_template=CHAT, max_new_tokens=10, logprobs=2, details=True)
    assert [entry.logprob for entry in tokens] == pytest.approx(whole.logprobs)
    assert b"".join(bytes(entry.bytes or []) for entry in tokens).decode() == whole.text
    assert all(len(entry.top_logprobs) == 2 for entry in tokens)


# --- vectors and tokens ----------------------------------------------------------------------------------------------


def test_embeddings_are_those_of_embed(client: openai.OpenAI, tiny: BitNetModel) -> None:
    texts = ["Speak, speak.", "You are all resolved"]
    expected = tiny.embed(texts)
    for form in ("base64", "float"):
        answer = client.embeddings.create(model="tiny", input=texts, encoding_format=form)  # type: ignore[call-overload]
        got = [
            np.frombuffer(base64.b64decode(one.embedding), "<f4") if isinstance(one.embedding, str) else one.embedding
            for one in answer.data
        ]
        np.testing.assert_array_equal(np.asarray(got, np.float32), expected)
        assert answer.usage.prompt_tokens == sum(len(tiny.tokenizer.encode(text)) for text in texts)
    last = client.embeddings.create(model="tiny", input=texts[0], extra_body={"pooling": "last", "normalize": False})
    np.testing.assert_array_equal(
        np.asarray(last.data[0].embedding, np.float32), tiny.embed(texts[0], pooling="last", normalize=False)
    )
    with pytest.raises(openai.BadRequestError, match="dimensions = 7: this model's embeddings have"):
        client.embeddings.create(model="tiny", input="x", dimensions=7)


def test_texts_become_tokens_and_tokens_texts(server: Served, tiny: BitNetModel) -> None:
    ids = tiny.tokenizer.encode(PROMPT)
    answer = server.http.post("/tokenize", json={"prompt": PROMPT}).json()
    assert answer == {"count": len(ids), "max_model_len": tiny.config.max_position_embeddings, "tokens": ids}
    assert server.http.post("/detokenize", json={"tokens": ids}).json() == {"prompt": PROMPT}
    rendered = server.http.post("/tokenize", json={"messages": MESSAGES}).json()["tokens"]
    assert rendered == tiny.tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, chat_template=CHAT)


def test_the_model_is_listed(client: openai.OpenAI, tiny: BitNetModel) -> None:
    (model,) = client.models.list().data
    assert model.id == "tiny"
    assert client.models.retrieve("tiny").to_dict()["max_model_len"] == tiny.config.max_position_embeddings
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'"):
        client.models.retrieve("gpt-4")


def test_the_reference_names_every_field_and_metric(server: Served) -> None:
    page = (REPO / "docs" / "reference" / "server.md").read_text()
    named = set(re.findall(r"`(\w+)", page))
    fields = {
        name
        for request in (ChatRequest, CompletionRequest, EmbeddingRequest, TokenizeRequest, DetokenizeRequest)
        for name in [*request.model_fields, *request.unsupported]
    }
    assert fields - named == set()
    server.http.post("/v1/completions", json={})  # so that there is an error to count
    samples = {name.partition("{")[0] for name in server.metrics() if name.startswith("bitnet_")}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples if not name.endswith("_created")}
    assert families == {name for name in named if name.startswith("bitnet_")}


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"temperature": 3}, "temperature", "temperature = 3: expected less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "temperature = 'hot': expected a valid number"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens = 0: expected greater than or equal to 1"),
        ({"max_token": 5}, "max_token", "max_token: there is no such field; did you mean max_tokens?"),
        ({"n": 17}, "n", "n = 17: expected at most 16"),
        ({"best_of": 1, "n": 2}, "best_of", "best_of: expected at least n = 2"),
        ({"suffix": "x"}, "suffix", "suffix: this server does not support it"),
        ({"stop": [""]}, "stop", "expected texts of 1 to 1000 characters"),
        ({"stop": ["x"] * 17}, "stop", "expected a text or a list of at most 16"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias", 'logit_bias["99999999"] = 1: expected a token id in [0, 512)'),
        ({"logit_bias": {"5": 101}}, "logit_bias", "expected a number in [-100, 100]"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "expected a token id and a number"),
        ({"stop_token_ids": [512]}, "stop_token_ids", "stop_token_ids[0] = 512: expected a token id in [0, 512)"),
        ({"top_k": 2**31}, "top_k", "top_k = 2147483648: expected less than"),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids", "stop_token_ids has 1025 entries: expected at most 1024"),
        ({"n_predict": 1}, "n_predict", "n_predict: there is no such field; did you mean max_tokens?"),
        ({"logprobs": 21}, "logprobs", "logprobs = 21: expected less than or equal to 20"),
        ({"prompt": []}, "prompt", "prompt = []: expected a text, token ids, or a list of either"),
        ({"prompt": ""}, "prompt", "prompt is empty"),
        ({"prompt": [[1, 2], "x"]}, "prompt", "expected a text, token ids, or a list of either"),
        ({"prompt": [1, 10**6]}, "prompt", "prompt has 1000000 at 1: expected token ids below 512"),
        ({"prompt": "x " * 9000}, "prompt", "characters: the"),
        ({"prompt": "x " * 1000}, "prompt", "tokens: this model's context has"),
        ({"prompt": "\ud800"}, "prompt", "half of a surrogate pair"),
        ({"stream_options": {}}, "stream_options", "stream_options: expected none without stream = true"),
        ({"model": "other"}, "model", "there is no model 'other'"),
        ({"model": "\udfff"}, "model", "there is no model"),
        ({"model": "m" * 500}, "model", "mmm...: this server has tiny"),
        ({"seed": 2**64}, "seed", "seed = 18446744073709551616"),
        ({"top_p": math.nan}, "top_p", "top_p = nan: expected a finite number"),
    ],
)
def test_what_a_completion_cannot_be_is_said(server: Served, body: dict[str, Any], param: str, message: str) -> None:
    answer = server.http.post(
        "/v1/completions",
        content=json.dumps({"prompt": "x", "max_tokens": 1} | body),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code in (400, 404)
    error = answer.json()["error"]
    assert message in error["message"]
    assert len(error["message"]) < 200
    assert error["param"] == param
    assert error["code"]
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "tools: this server does not support it"),
        ({"response_format": {"type": "json_object"}}, "response_format", "does not support it"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "its newer name"),
        ({"top_logprobs": 2}, "top_logprobs", "expected none without logprobs = true"),
        ({"messages": []}, "messages", "messages has 0 entries: expected at least 1"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type", "'text'"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role", "'wizard'"),
        (
            {"messages": [{"role": "tool", "content": "42", "tool_call_id": "call_1"}]},
            "messages.0.role",
            "messages.0.role = 'tool': expected 'system', 'developer', 'user' or 'assistant'",
        ),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "messages.0.content is missing"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages.0.tool_calls", "support"),
        ({"messages": "hello"}, "messages", "expected a valid list"),
    ],
)
def test_what_a_chat_cannot_be_is_said(server: Served, body: dict[str, Any], param: str, message: str) -> None:
    answer = server.http.post("/v1/chat/completions", json={"messages": MESSAGES} | body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == param


def test_fields_that_ask_for_nothing_are_passed_over(client: openai.OpenAI) -> None:
    nothing: Any = {
        "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "user": "me", "metadata": {"a": "b"}, "store": False,
        "service_tier": "auto", "logit_bias": None, "stop": None, "parallel_tool_calls": True, "verbosity": "medium", "cache_prompt": True,
    }  # fmt: skip
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=2, extra_body=nothing)
    assert answer.choices[0].finish_reason == "length"


def test_token_ids_that_the_model_does_not_have_are_named(client: openai.OpenAI, server: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="input has 512 at 0: expected token ids below 512") as refused:
        client.embeddings.create(model="tiny", input=[512])
    assert (refused.value.param, refused.value.code) == ("input", "invalid_value")
    error = server.http.post("/detokenize", json={"tokens": [5, 512]}).json()["error"]
    assert error["message"] == "tokens has 512 at 1: expected token ids below 512"
    assert error["param"] == "tokens"


def test_more_tokens_than_there_can_be_are_as_many_as_there_can_be(client: openai.OpenAI, tiny: BitNetModel) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=2**40, temperature=0)
    assert answer.choices[0].text == tiny.generate(PROMPT, max_new_tokens=1000)


def test_an_answer_can_be_sent_back_as_it_came(client: openai.OpenAI) -> None:
    told = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4).choices[0].message
    back: Any = [*MESSAGES, told, told.to_dict(), {**told.to_dict(), "annotations": [], "tool_calls": []}]
    for i in (3, 4, 5):
        messages = [*back[:2], back[i - 1], {"role": "user", "content": "Go on."}]
        assert client.chat.completions.create(model="tiny", messages=messages, max_tokens=2).choices


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "message"),
    [
        (
            "GET",
            "/nothing",
            404,
            "unknown_url",
            "GET /nothing: there is no such route; GET /openapi.json has all there are",
        ),
        ("POST", "/chat/completions", 404, "unknown_url", "did you mean /v1/chat/completions?"),
        ("GET", "/health", 404, "unknown_url", "did you mean /health/live?"),
        ("GET", "/v1/completions", 405, "method_not_supported", "GET /v1/completions: expected POST"),
        ("DELETE", "/v1/models", 405, "method_not_supported", "DELETE /v1/models: expected GET"),
        ("GET", "/v1/models/" + "m" * 500, 404, "model_not_found", "mmm...: this server has tiny"),
    ],
)
def test_routes_that_are_not_there_are_said(
    server: Served, method: str, path: str, status: int, code: str, message: str
) -> None:
    answer = server.http.request(method, path, json={} if method == "POST" else None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert message in answer.json()["error"]["message"]
    assert len(answer.json()["error"]["message"]) < 200


def test_what_can_be_got_has_a_head(server: Served) -> None:
    for path in ("/", "/app.js", "/health/live", "/health/ready", "/v1/models", "/v1/models/tiny", "/openapi.json"):
        whole, head = server.http.get(path), server.http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == whole.headers["Content-Length"]
        assert head.headers["Content-Type"] == whole.headers["Content-Type"]
    assert server.http.head("/nothing").status_code == 404
    assert server.http.head("/v1/completions").status_code == 405


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b'{"prompt": "\xff"}'])
def test_a_body_that_is_no_object_is_said(server: Served, body: bytes) -> None:
    answer = server.http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (None, "invalid_json")
    assert ("can't decode byte 0xff" in answer.json()["error"]["message"]) == (b"\xff" in body)


@pytest.mark.parametrize(
    "body",
    [
        {"f" * 10**6: 1},
        {"logit_bias": {"k" * 10**6: 1}},
        {"temperature": "t" * 10**6},
        {"model": "m" * 10**6},
        {"stop": "s" * 10**6},
        {"stream_options": {"o" * 10**6: 1}, "stream": True},
    ],
)
def test_an_error_does_not_repeat_megabytes_of_a_request(server: Served, body: dict[str, Any]) -> None:
    answer = server.http.post("/v1/completions", json={"prompt": PROMPT} | body)
    assert answer.status_code in (400, 404)
    assert len(answer.content) < 2000
    assert answer.json()["error"]["code"]


def test_a_body_that_is_compressed_is_said(server: Served) -> None:
    body = gzip.compress(json.dumps({"prompt": PROMPT}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = server.http.post("/v1/completions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert answer.json()["error"]["message"] == "Content-Encoding = 'gzip': expected a body as it is"


def test_a_model_without_a_chat_template_says_so(tiny_dir: Path) -> None:
    with Served("--model", str(tiny_dir)) as server:
        assert server.http.get("/v1/models").json()["data"][0]["chat"] is False
        answer = server.http.post("/v1/chat/completions", json={"messages": MESSAGES})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "no_chat"
        assert server.http.post("/v1/completions", json={"prompt": PROMPT}).status_code == 200
