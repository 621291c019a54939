"""The tokenizer wrapper: special tokens, chat templates, and files that cannot be used."""

import gc
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetModel,
    DTypeError,
    ModelNotFoundError,
    ShapeError,
    Tokenizer,
    TokenizerError,
    convert,
)
from conftest import REPO

CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}\n{{ m['role'] | capitalize }}: {{ m['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}"
)


@pytest.fixture
def files(tiny_dir: Path) -> dict[str, str]:
    return {name: (tiny_dir / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json")}


def with_config(files: dict[str, str], **entries: object) -> Tokenizer:
    config = json.loads(files["tokenizer_config.json"]) | entries
    return Tokenizer.from_files(files | {"tokenizer_config.json": json.dumps(config)}, "a test")


def test_special_tokens_are_known_by_name_and_id(files: dict[str, str]) -> None:
    tokenizer = Tokenizer.from_files(files, "a test")
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|begin_of_text|>", 0)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|end_of_text|>", 1)
    assert tokenizer.pad_token is None
    assert tokenizer.pad_token_id is None
    assert tokenizer.unk_token is None
    assert tokenizer.special_ids == [0, 1]
    assert tokenizer.id_to_token(1) == "<|end_of_text|>"
    assert tokenizer.id_to_token(10**6) is None
    assert len(tokenizer) == tokenizer.vocab_size == 512
    assert tokenizer.decode([0, 1]) == ""
    assert tokenizer.decode([1], skip_special_tokens=False) == "<|end_of_text|>"
    assert "without chat template" in repr(tokenizer)


def test_special_tokens_may_be_objects(files: dict[str, str]) -> None:
    assert with_config(files, bos_token={"content": "<|end_of_text|>", "special": True}).bos_token_id == 1
    assert with_config(files, pad_token="<|end_of_text|>").pad_token_id == 1


def test_a_conversation_is_rendered_by_the_models_template(files: dict[str, str]) -> None:
    tokenizer = with_config(files, chat_template=TEMPLATE)
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|begin_of_text|>User: Hi<|end_of_text|>\nAssistant: Hello<|end_of_text|>\nUser: Bye<|end_of_text|>\nAssistant: "
    )
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert ids[0] == 0
    assert "with chat template" in repr(tokenizer)


def test_a_template_file_goes_before_the_config_and_a_list_has_a_default(files: dict[str, str]) -> None:
    both = {"chat_template.jinja": "file", "tokenizer_config.json": json.dumps({"chat_template": "config"})}
    assert Tokenizer.from_files(files | both, "a test").apply_chat_template(CHAT, tokenize=False) == "file"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "default"}]
    assert with_config(files, chat_template=named).apply_chat_template(CHAT, tokenize=False) == "default"
    assert with_config(files, chat_template=named[:1]).chat_template == "tools"


def test_templates_have_what_hugging_face_gives_them(files: dict[str, str]) -> None:
    tokenizer = Tokenizer.from_files(files, "a test")
    render = "{{ messages | tojson }}{% for i in [1, 2] %}{% break %}{% endfor %}{{ tools }}{{ strftime_now('%%') }}"
    text = tokenizer.apply_chat_template([{"content": "é<"}], tokenize=False, chat_template=render, tools="T")
    assert text == '[{"content": "é<"}]T%'


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system messages here') }}",
        "{% for %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages[0]['content'] + 1 }}",
    ],
)
def test_a_template_that_fails_or_attacks_is_refused(files: dict[str, str], template: str) -> None:
    with pytest.raises(TokenizerError, match="chat template"):
        Tokenizer.from_files(files, "a test").apply_chat_template(CHAT, chat_template=template)


def test_no_template_says_what_to_do(files: dict[str, str]) -> None:
    with pytest.raises(TokenizerError, match="chat_template="):
        Tokenizer.from_files(files, "a test").apply_chat_template(CHAT)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokenizer.json": "{"}, "tokenizer.json of a test cannot be used"),
        ({"tokenizer.json": '{"model": 7}'}, "tokenizer.json of a test cannot be used"),
        ({"tokenizer_config.json": "[]x"}, "tokenizer_config.json of a test"),
        ({"tokenizer_config.json": "[1]"}, "tokenizer_config.json of a test"),
    ],
)
def test_damaged_files_are_named(files: dict[str, str], change: dict[str, str], says: str) -> None:
    with pytest.raises(TokenizerError, match=says):
        Tokenizer.from_files(files | change, "a test")


def test_a_directory_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=str(tmp_path)):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json of .* cannot be used"):
        Tokenizer.from_pretrained(tmp_path)


PIECES = REPO / "tests_go" / "testdata" / "sentencepiece"


def old_checkpoint(folder: Path, **files: dict[str, Any]) -> Path:
    """A model with the files that the 1bitLLM checkpoints have for a tokenizer.json; files: what they say."""
    folder.mkdir()
    shape = {
        "vocab_size": 502,
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    with BitNetModel.from_config(shape | {"architecture": "BitnetForCausalLM"}) as model:
        model.save_pretrained(folder, format="hf")
    shutil.copy(PIECES / "tokenizer.model", folder)
    for name, fields in files.items():
        (folder / f"{name}.json").write_text(json.dumps(fields))
    return folder


def test_a_tokenizer_is_made_of_sentencepieces_and_goes_into_every_format(tmp_path: Path) -> None:
    more = {"added_tokens": {"<line>": 501, "<pad>": 500}, "special_tokens_map": {"pad_token": {"content": "<pad>"}}}
    source = old_checkpoint(tmp_path / "old", tokenizer_config={"bos_token": "<s>", "pad_token": None}, **more)
    tokenizer = Tokenizer.from_pretrained(source)
    for text, ids, decoded in json.loads((PIECES / "texts.json").read_text()):  # those of SentencePiece itself
        assert tokenizer.encode(text) == [1, *ids], text
        assert tokenizer.decode([1, *ids]) == decoded, text
    assert tokenizer.encode("a<line>")[-1] == 501
    assert len(tokenizer) == 502
    for to, name in (("native", "m.bitnet"), ("hf", "hf"), ("gguf", "m.gguf"), ("onnx", "onnx/m.onnx")):
        assert convert(source, tmp_path / name, to).different_text is None  # type: ignore[arg-type]
        assert Tokenizer.from_pretrained(tmp_path / name).encode("  First Citizen:<line>") == tokenizer.encode(
            "  First Citizen:<line>"
        )
    with BitNetModel.from_pretrained(source) as model:
        assert model.generate("First Citizen:", max_new_tokens=2)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"tokenizer_config": {"legacy": False}},
            "tokenizer has no form here: .*tokenizer.model: tokenizer_config.json: legacy: found false, expected true, or none",
        ),
        ({"tokenizer_config": {"bos_token": 3}}, "tokenizer_config.json: not as tokenizers have it"),
        (
            {"added_tokens": {"<a>": 500, "<b>": 502}},
            'added token "<b>": found id 502, expected one that continues the 500 pieces',
        ),
        ({"added_tokens": {"<a>": 7}}, 'added token "<a>": found id 7'),
        ({"added_tokens": {"<a>": 2**63}}, "added_tokens.json: not as tokenizers have it"),
    ],
)
def test_what_sentencepieces_cannot_become_is_said_and_ids_are_taken(
    files: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with BitNetModel.from_pretrained(old_checkpoint(tmp_path / "old", **files)) as model:
        assert model.generate([1, 2], max_new_tokens=1)
        with pytest.raises(
            TokenizerError, match=f"no tokenizer.json but a tokenizer.model, of which none can be made: .*{says}"
        ):
            model.generate("First")
        model.tokenizer = Tokenizer.bytes()
        model.save_pretrained(tmp_path / "new", format="hf")
    assert not (tmp_path / "new" / "tokenizer.model").exists()


def test_a_file_that_is_no_sentencepiece_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\xff\x80 SentencePiece")
    with pytest.raises(
        TokenizerError, match=r"no tokenizer\.json but a tokenizer\.model, .* not a SentencePiece model"
    ):
        Tokenizer.from_pretrained(tmp_path)


def test_a_tokenizer_is_read_from_whatever_a_model_is_read_from(shakespeare: BitNetModel, tmp_path: Path) -> None:
    shakespeare.save_pretrained(tmp_path / "tiny.bitnet")
    ids = shakespeare.tokenizer.encode("First Citizen:")
    for name in ("bitnet-shakespeare", tmp_path / "tiny.bitnet", str(tmp_path / "tiny.bitnet")):
        assert Tokenizer.from_pretrained(name).encode("First Citizen:") == ids
    (tmp_path / "bad.bitnet").write_bytes(b"no such thing")
    with pytest.raises(TokenizerError, match=r"bad\.bitnet cannot be read"):
        Tokenizer.from_pretrained(tmp_path / "bad.bitnet")
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        Tokenizer.from_pretrained(tmp_path / "nowhere")


def test_ids_to_decode_have_many_forms(tiny: BitNetModel) -> None:
    ids = tiny.tokenizer.encode("First")
    for form in (ids, tuple(ids), np.array(ids), iter(ids)):
        assert tiny.tokenizer.decode(form) == "First"
    assert tiny.tokenizer.decode(ids[0]) == tiny.tokenizer.decode(ids[:1])


def test_ids_that_are_none_are_refused(tiny: BitNetModel) -> None:
    tokenizer = tiny.tokenizer
    for ids, kind in (([-1], ArgumentError), (["a"], DTypeError), ([1.5], DTypeError), (np.array([[5]]), ShapeError)):
        with pytest.raises(kind, match="ids"):
            tokenizer.decode(ids)
    with pytest.raises(DTypeError, match="text is of type list"):
        tokenizer.encode(["a"])  # type: ignore[arg-type]
    assert tokenizer.id_to_token(-1) is tokenizer.id_to_token(2**40) is tokenizer.token_to_id("no such token") is None


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ 2 ** 10 }} {{ 'ab' * 3 }} {{ '%s-%03d' % ('x', 7) }} {{ 'a' + 'b' }} {{ 7 // 2 }}", "1024 ababab x-007 ab 3"),
        ("{{ [1, 2] + [3] }} {{ (1, 2)[0] }} {{ {'a': 1}['a'] }}", "[1, 2, 3] 1 1"),
        ("{{ 'Hi'.center(6) }}|{{ 'Hi'.ljust(4) }}|{{ '7'.zfill(3) }}", "  Hi  |Hi  |007"),
        ("{{ 'xxHixx'.strip('x') }} {{ 'a.b'.replace('.', '::') }} {{ '-'.join(['a', 'b']) }}", "Hi a::b a-b"),
        ("{{ '{} {}'.format(1, 'b') }} {{ 'a,b'.split(',') | join(' ') }} {{ 'a\tb'.expandtabs(2) }}", "1 b a b a b"),
        ("{{ [1, 2, 1].count(1) }} {{ [3, 1] | sort | join }} {{ [[1], [2]] | sum(start=[]) }}", "2 13 [1, 2]"),
        ("{{ 'abc' | replace('b', 'x') }} {{ '%d' | format(5) }} {{ 12 is divisibleby 4 }} {{ 'b' in 'abc' }}", "axc 5 True True"),
        ("{{ [1, 2, 3] | map('string') | join('+') }} {{ 2 is in [1, 2] }} {{ 'x' | string }}", "1+2+3 True x"),
        ("{{ {'a': [1]} | tojson }} {{ messages[0] | tojson(indent=1) }}", '{"a": [1]} {\n "role": "user",\n "content": "Hi"\n}'),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{% set n = namespace(v=2) %}{{ n.v }}", "<1>2"),
        ("{{ 'ab' ~ 1 ~ none }} {{ 'abc'[1:] }} {{ (5).to_bytes(2, 'big') | length }}", "ab1None bc 2"),
    ],
)  # fmt: skip
def test_templates_may_use_all_of_jinja_that_ends(files: dict[str, str], template: str, text: str) -> None:
    tokenizer = with_config(files)
    assert tokenizer.apply_chat_template(CHAT, tokenize=False, chat_template=template) == text


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ 10 ** 10000 }}", "a power of more than 4096 bits"),
        ("{% set n = namespace(v=3) %}{% for i in range(99) %}{% set n.v = n.v * n.v %}{% endfor %}", "a number of .* bits"),
        ("{{ 'x' * 10 ** 9 }}", "more than a text of their length needs"),
        ("{{ '%999999999d' % 1 }}", "more than a text of their length needs"),
        ("{{ 'x'.center(10 ** 9) }}", "more than a text of their length needs"),
        ("{{ messages | tojson(indent=99) }}", "indent=99"),
        ("{{ 'a'.replace(1, 2) }}", "fails on these messages"),
        ("{{ 1 // 0 }}", "fails on these messages"),
        ("{% for m in messages %}", "line 1 of the chat template is malformed"),
        ("{{ raise_exception('no') }}", "refuses these messages: no"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deep"),
        ("x" * (128 << 10) + "x", "131073 characters: expected at most 131072"),
    ],
)  # fmt: skip
def test_templates_that_do_too_much_say_what(files: dict[str, str], template: str, says: str) -> None:
    tokenizer = with_config(files)
    with pytest.raises(TokenizerError, match=says):
        tokenizer.apply_chat_template(CHAT, tokenize=False, chat_template=template)


def test_renderings_at_once_are_those_of_one_alone(files: dict[str, str]) -> None:
    """Also beside such as fail or use up their room, in what they left, and with marks of their own."""
    marked = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %};{% endfor %}"
    templates = [TEMPLATE, marked, "{{ 'x' * 10 ** 9 }}", "{% set n = namespace(v=0) %}{{ n.v }}{{ 1 // 0 }}"]
    tokenizers = [with_config(files, chat_template=template) for template in templates]

    def render(i: int) -> object:
        conversation = [{"role": "user", "content": f"text {i}"}] * (1 + i % 3)
        try:
            return tokenizers[i % 4].render_generation(conversation)
        except TokenizerError as error:
            return str(error)

    alone = [render(i) for i in range(200)]
    assert alone[1] == ("text 1;text 1;", [(0, 6), (7, 13)])
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(render, range(200))) == alone


def test_a_rendering_leaves_nothing_to_the_collector(files: dict[str, str]) -> None:
    """Jinja's objects know each other: those of each request of a server waited for a collection, which stops all its streams."""
    tokenizer = with_config(files, chat_template=TEMPLATE)
    tokenizer.apply_chat_template(CHAT, tokenize=False)
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            tokenizer.apply_chat_template(CHAT, tokenize=False)
        assert gc.collect() < 50
    finally:
        gc.enable()


@pytest.mark.parametrize("place", ["m.bitnet", "m.gguf", "m"])
def test_a_template_that_a_models_tokenizer_is_given_is_saved_with_the_model(tmp_path: Path, place: str) -> None:
    formats = {".bitnet": "native", ".gguf": "gguf", "": "hf"}
    with BitNetModel.from_pretrained("bitnet-shakespeare") as model:
        model.tokenizer.chat_template = TEMPLATE
        model.save_pretrained(tmp_path / place, format=formats[Path(place).suffix])  # type: ignore[call-overload]
    with BitNetModel.from_pretrained(tmp_path / place) as model:
        assert model.tokenizer.chat_template == TEMPLATE
