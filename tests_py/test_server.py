"""bitnet serve as OpenAI's own client sees it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from bitnet_rust import BitNetModel
from serving import CHAT, Served, chat_template

PROMPT = "First Citizen:"
MESSAGES: Any = [{"role": "system", "content": "Speak."}, {"role": "user", "content": "Who is there?"}]


@pytest.fixture(scope="module")
def server(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    template = chat_template(tmp_path_factory.mktemp("chat"))
    with Served("--model", str(tiny_dir), "--served-model-name", "tiny", "--chat-template", str(template)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


# --- what comes out --------------------------------------------------------------------------------------------------


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
