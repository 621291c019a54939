"""Fine-tuning: conversations become examples of which exactly the assistant's tokens are learned; `bitnet finetune` end to end."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bitnet_rust import (
    ArgumentError,
    BitNetModel,
    DTypeError,
    Tokenizer,
    TokenizerError,
    Trainer,
    chat_example,
    diff_models,
)
from bitnet_rust.conversations import DEFAULT_CHAT_TEMPLATE, first_prompt, is_conversation
from conftest import GOLDEN, REPO, Terminal

MASTERS = GOLDEN / "bitnet_online_bf16"
PLAY = REPO / "recipes" / "data" / "tinyshakespeare.txt"

LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}\n{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (  # as templates of models that think: what was thought earlier is left out
    "{% for m in messages %}[{{ m.role }}]{{ m.content if loop.last else m.content.split('=')[-1] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ENDS = {LLAMA3: "<|eot_id|>", CHATML: "<|im_end|>", MARKED: "<|im_end|>", DEFAULT_CHAT_TEMPLATE: "</s>"}
SPECIAL = ["<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    learned = Tokenizer.train_bpe(PLAY.read_text()[:20000], 400, special_tokens=SPECIAL)
    return Tokenizer(learned.backend, {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.mark.parametrize("template", ENDS, ids=["llama-3", "chatml", "marked", "default"])
def test_exactly_the_assistants_tokens_are_learned(template: str, tokenizer: Tokenizer) -> None:
    """Over turns, with and without a system message, whatever the texts are; and the tokens before a reply are those of generation."""
    tokenizer.chat_template = template
    texts = [
        "Speak, speak.",
        "  two\n\nlines ",
        "a",
        "Grüße 👋🏽 12345",
        "if x:\n\treturn <b>",
        "Assistant: user\n",
        "é́漢字",
    ]
    rng = random.Random(5)
    for _ in range(40):
        messages = [{"role": "system", "content": rng.choice(texts)}] if rng.random() < 0.5 else []
        for _ in range(rng.randint(1, 4)):
            messages += [
                {"role": "user", "content": rng.choice(texts)},
                {"role": "assistant", "content": rng.choice(texts)},
            ]
        example = chat_example({"messages": messages}, tokenizer)
        ids, labels = list(example["input_ids"]), list(example["labels"])
        rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
        assert tokenizer.decode(ids, skip_special_tokens=False) == rendered
        if template != DEFAULT_CHAT_TEMPLATE:  # whose prompt ends with a space, which would join the reply's first word
            assert ids == tokenizer.encode(rendered, add_special_tokens=False)
        spans = [i for i in range(len(ids)) if labels[i] != -100 and labels[i - 1] == -100]
        replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        assert len(spans) == len(replies)
        for begin, reply in zip(spans, replies, strict=True):
            end = next((i for i in range(begin, len(ids)) if labels[i] == -100), len(ids))
            assert labels[begin:end] == ids[begin:end]
            said = tokenizer.decode(ids[begin:end], skip_special_tokens=False)
            assert said.endswith(ENDS[template])
            assert said.removesuffix(ENDS[template]).strip() == messages[reply]["content"].strip()
            prompt = tokenizer.apply_chat_template(messages[:reply], add_generation_prompt=True)
            if template != DEFAULT_CHAT_TEMPLATE:
                assert ids[:begin] == prompt


def test_forms_of_records_are_the_same_conversation(tokenizer: Tokenizer) -> None:
    tokenizer.chat_template = LLAMA3
    turns = [{"role": "user", "content": "Who?\n\nHe."}, {"role": "assistant", "content": "No more."}]
    expected = chat_example({"messages": turns}, tokenizer)
    shared = [{"from": "human", "value": "Who?\n\nHe."}, {"from": "gpt", "value": "No more."}]
    assert chat_example({"conversations": shared}, tokenizer) == expected
    assert chat_example({"instruction": "Who?", "input": "He.", "output": "No more."}, tokenizer) == expected
    assert chat_example({"prompt": turns[:1], "completion": turns[1:]}, tokenizer) == expected
    later = chat_example({"prompt": [*turns, turns[0]], "completion": turns[1:]}, tokenizer)
    learned = [label for label in later["labels"] if label != -100]
    assert tokenizer.decode(learned, False) == "No more.<|eot_id|>"  # not what the assistant says in the prompt
    plain = chat_example({"prompt": "To be, ", "completion": "or not"}, tokenizer)
    assert list(plain["input_ids"]) == [
        *tokenizer.encode("To be, "),
        *tokenizer.encode("or not"),
        tokenizer.eos_token_id,
    ]
    assert list(plain["labels"])[: len(tokenizer.encode("To be, "))] == [-100] * len(tokenizer.encode("To be, "))


@pytest.mark.parametrize(
    "stray",
    [
        {"prompt": "Who?", "prompt_id": "1"},
        {"prompt": "Who?", "completion": "I."},
        {"prompt": [{"role": "user", "content": "Who?"}]},
        {"instruction": "Answer."},
        {"instruction": "Answer.", "output": "Yes."},
        {"conversations": None},
    ],
    ids=lambda stray: "+".join(stray),
)
def test_fields_beside_messages_do_not_count(stray: dict[str, Any], tokenizer: Tokenizer) -> None:
    tokenizer.chat_template = LLAMA3
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "No more."}]
    shared = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "No more."}]
    expected = chat_example({"messages": turns}, tokenizer)
    prompt = (tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True), False)
    for record in ({**stray, "messages": turns}, {"messages": None, **stray, "conversations": shared}):
        assert is_conversation(record)
        assert chat_example(record, tokenizer) == expected
        assert first_prompt(record, tokenizer) == prompt


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"instruction": 5, "output": "x"}, "row.instruction = 5: expected a text"),
        ({"instruction": "x", "input": [1], "output": "x"}, r"row.input = \[1\]: expected a text"),
        ({"instruction": "x", "output": {}}, "row.output = {}: expected a text"),
        ({"conversations": [{"from": ["x"], "value": "y"}]}, r"row.conversations\[0\].from = \['x'\]: expected a text"),
        ({"prompt": "x"}, r"row: expected \"messages\".*, found {'prompt': 'x'}$"),
        ({"prompt": "x" * 10**6}, r"row: expected \"messages\".*, found {'prompt': 'x{180,190}\.\.\.$"),
        ({"prompt": 3, "completion": "x"}, "row.prompt = 3: expected a text or a list of messages$"),
        ({"instruction": "x", "output": None}, "row: expected"),
        (5, "row: expected .* found 5"),
    ],
)
def test_records_of_another_form_are_named(record: Any, message: str, tokenizer: Tokenizer) -> None:
    tokenizer.chat_template = LLAMA3
    with pytest.raises(ArgumentError, match=message):
        chat_example(record, tokenizer, "row")


def test_what_cannot_be_told_is_an_error(tokenizer: Tokenizer) -> None:
    tokenizer.chat_template = FORGETFUL
    user, thinks = {"role": "user", "content": "2+2"}, {"role": "assistant", "content": "hm=4"}
    assert chat_example({"messages": [user, thinks]}, tokenizer)
    with pytest.raises(TokenizerError, match=r"message 1 otherwise when others follow.*generation"):
        chat_example({"messages": [user, thinks, user, thinks]}, tokenizer)
    with pytest.raises(ArgumentError, match=r"row.messages\[1\].content = 4: expected a text"):
        chat_example({"messages": [user, {"role": "assistant", "content": 4}]}, tokenizer, "row")
    with pytest.raises(ArgumentError, match="the assistant speaks first"):
        chat_example({"messages": [thinks]}, tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(TokenizerError, match="no chat template"):
        chat_example({"messages": [user, thinks]}, tokenizer)


def dialogues(count: int) -> list[dict[str, Any]]:
    """Speeches of the play, one answering the other."""
    speeches = [part.split(":\n", 1)[1] for part in PLAY.read_text().split("\n\n") if ":\n" in part]
    pairs = [(a, b) for a, b in zip(speeches[::2], speeches[1::2], strict=False) if len(a) + len(b) < 120][:count]
    return [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]} for a, b in pairs]


def test_packed_conversations_do_not_see_each_other(tokenizer: Tokenizer) -> None:
    tokenizer.chat_template = CHATML
    shape = {
        "preset": "tiny",
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
    }
    with BitNetModel.from_config(shape, seed=1) as model:
        model.tokenizer = tokenizer
        alone = model.evaluate(dialogues(12), context_length=256, packing=False)
        packed = model.evaluate(dialogues(12), context_length=256, packing=True)
        learned = [sum(label != -100 for label in chat_example(d, tokenizer)["labels"]) for d in dialogues(12)]
    assert packed["tokens"] == alone["tokens"] == sum(learned)
    assert packed["loss"] == pytest.approx(alone["loss"], rel=1e-6)


GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
BROKEN = {
    "cut.json": (json.dumps([GOOD, GOOD], indent=1)[:-30], r"cut\.json is not JSON: .*line \d+ column \d+.*expected a list"),
    "comma.json": (json.dumps([GOOD]).replace('"content"', ',"content"', 1), r"comma\.json is not JSON: .*line 1 column"),
    "lines.json": (f"{json.dumps(GOOD)}\n" * 2, r"lines\.json is not JSON: Extra data: line 2.*ends in \.jsonl"),
    "one.json": (json.dumps(GOOD), r"one\.json: expected a list of records, found dict"),
    "first.json": (json.dumps([{"mesages": []}, GOOD]), r"entry 1 of .*first\.json: record: expected \"messages\".*found .*mesages"),
    "later.json": (json.dumps([GOOD, GOOD, 7]), r"entry 3 of .*later\.json: record: expected \"messages\".*found 7"),
    "role.json": (json.dumps([GOOD, {"messages": [{"content": "a"}]}]), r"entry 2 of .*role\.json: record\.messages\[0\] = .*role and content"),
    "turn.jsonl": (f'{json.dumps(GOOD)}\n\n{{"conversations": [{{"from": 7}}]}}\n', r"line 3 of .*turn\.jsonl: record\.conversations\[0\]\.from = 7"),
    "reply.jsonl": ('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": 3}\n', r"line 2 of .*reply\.jsonl: record\.completion is of type int"),
    "cut.jsonl": (f"{json.dumps(GOOD)}\n" + json.dumps(GOOD)[:-9], r"line 2 of .*cut\.jsonl is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_conversations_that_are_broken_are_no_text(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    content, said = BROKEN[name]
    (tmp_path / name).write_text(content)
    shape = {"preset": "tiny", "vocab_size": len(tokenizer)}
    with BitNetModel.from_config(shape, trainable=True) as model:
        model.tokenizer = tokenizer
        trainer = Trainer(model, max_steps=1)
        for data in (tmp_path / name, [tmp_path / name], tmp_path):
            with pytest.raises((ArgumentError, DTypeError), match=said):
                trainer.train(data)


def test_a_trainer_takes_conversations(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """As a list, and as a file; an element is checked where it stands."""
    tokenizer.chat_template = LLAMA3
    lines = dialogues(8)
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "chat.json").write_text(json.dumps(lines))
    shape = {
        "preset": "tiny",
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
    }
    losses = []
    for data in (lines, tmp_path / "chat.jsonl", tmp_path / "chat.json", [tmp_path / "chat.jsonl"]):
        with BitNetModel.from_config(shape, seed=1, trainable=True) as model:
            model.tokenizer = tokenizer
            history = Trainer(model, max_steps=2, batch_size=2, context_length=200, packing=True).train(data)
            losses.append([record["loss"] for record in history])
            with pytest.raises(ArgumentError, match=r"dataset\[1\]\.messages\[0\] = 'x'"):
                Trainer(model, max_steps=1).train([lines[0], {"messages": ["x"]}])
    assert losses == [losses[0]] * 4


def test_from_published_masters_to_a_gguf_file_and_a_checkpoint(bitnet: Terminal, tmp_path: Path) -> None:
    """The recipe of docs/how-to/fine-tune.md on the dialogues of a play."""
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(line) + "\n" for line in dialogues(60)))
    out = tmp_path / "tuned"
    command = ["finetune", "--model", str(MASTERS), "--data", str(tmp_path / "chat.jsonl"), "--out", str(out), "--json"]
    options = ["--max-steps", "12", "--batch-size", "2", "--context-length", "192", "--export", "hf,gguf,hf-master"]
    status, text, err = bitnet(*command, *options)
    assert status == 0, err
    result = json.loads(text)
    losses = [json.loads(line)["loss"] for line in (out / "train.jsonl").read_text().splitlines()]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert result["eval_loss"] is not None
    places = [out, *map(Path, result["exports"].values())]
    assert [place.name for place in places] == ["tuned", "hf", "model.gguf", "hf-master"]
    said = []
    for place in places:
        with BitNetModel.from_pretrained(place) as model:
            said.append(
                [model.chat(one["messages"][:1], max_new_tokens=24, details=True).token_ids for one in dialogues(3)]
            )
            assert model.tokenizer.chat_template == DEFAULT_CHAT_TEMPLATE
    assert said == [said[0]] * 4
    assert diff_models(out, out / "hf-master").equal
    status, text, err = bitnet(*command, *options, "--resume")
    assert status == 0, err
    assert json.loads(text)["steps"] == 12
    assert json.loads(text)["eval_loss"] == result["eval_loss"]


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in dialogues(4)))
    return path


SHORT = ("--max-steps", "1", "--batch-size", "1", "--context-length", "96", "--eval-fraction", "0", "--json")


def test_exports_are_those_of_the_recipe_and_of_the_run_that_goes_on(
    bitnet: Terminal, chat: Path, tmp_path: Path
) -> None:
    """Where none are stated, packed weights and GGUF."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{pretrained: {MASTERS}}}\ndata: {{train: chat.jsonl}}\nexport: {{formats: [hf-master]}}\n"
    )
    stated, chosen, default = tmp_path / "stated", tmp_path / "chosen", tmp_path / "default"
    start = ("--model", str(MASTERS), "--data", str(chat))
    for out, options, wanted in (
        (stated, ("--config", str(recipe)), {"hf-master"}),
        (stated, ("--resume",), {"hf-master"}),
        (chosen, ("--config", str(recipe), "--export", "gguf"), {"gguf"}),
        (chosen, ("--resume",), {"gguf"}),
        (default, start, {"hf", "gguf"}),
    ):
        status, text, err = bitnet("finetune", "--out", str(out), *options, *SHORT)
        assert status == 0, err
        assert set(json.loads(text)["exports"]) == wanted


def test_overwrite_takes_the_exports_of_an_earlier_run_away(bitnet: Terminal, chat: Path, tmp_path: Path) -> None:
    """But no file of somebody else, and not the model that the run is to begin with."""
    out = tmp_path / "out"
    command = ("finetune", "--data", str(chat), "--out", str(out), *SHORT)
    status, _, err = bitnet(*command, "--model", str(MASTERS), "--export", "hf,hf-master,gguf")
    assert status == 0, err
    status, _, err = bitnet(*command, "--model", str(out / "hf-master"), "--overwrite")
    assert (status, "expected another place for --out" in err) == (1, True)
    (out / "hf" / "notes.md").write_text("mine")
    status, _, err = bitnet(*command, "--model", str(MASTERS), "--export", "", "--overwrite")
    assert status == 0, err
    assert [file.name for file in (out / "hf").iterdir()] == ["notes.md"]
    assert not (out / "hf-master").exists()
    assert not (out / "model.gguf").exists()


def test_finetune_names_what_is_missing(bitnet: Terminal, tmp_path: Path) -> None:
    status, _, err = bitnet("finetune", "--out", str(tmp_path / "out"), "--data", "x.jsonl")
    assert (status, "--model is missing" in err) == (1, True)
    status, _, err = bitnet("finetune", "--out", str(tmp_path / "out"), "--model", str(MASTERS), "--export", "onx")
    assert (status, "--export onx" in err) == (1, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("linear_class=foo", "export.linear_class = 'foo': expected one of autobitlinear, bitlinear"),
        ("masters=float16", "export.masters = 'float16': expected one of float32, bfloat16"),
        ("gguf_type=[1]", "export.gguf_type = [1]: expected one of i2_s"),
        ('formats=[["a"]]', "export.formats = [['a']]: expected a list of hf, hf-master, gguf"),
        ("formats=5", "export.formats = 5: expected a list"),
        ("masters=bfloat16", "export.masters = 'bfloat16': expected hf-master among export.formats, found hf, gguf"),
    ],
)
def test_exports_are_checked_before_the_run(setting: str, message: str, bitnet: Terminal, tmp_path: Path) -> None:
    command = ("finetune", "--model", str(MASTERS), "--data", "x.jsonl", "--out", str(tmp_path / "out"))
    status, _, err = bitnet(*command, "--set", f"export.{setting}")
    assert (status, message in err) == (1, True), err


def test_options_of_exports_that_are_not_asked_for_are_refused(bitnet: Terminal, tmp_path: Path) -> None:
    """Those of a recipe go with the formats that an option replaces."""
    (tmp_path / "x.jsonl").write_text('{"text": "a text"}')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {{pretrained: {MASTERS}}}\nexport: {{formats: [gguf], gguf_type: f16}}\n")
    command = ("finetune", "--data", str(tmp_path / "x.jsonl"), "--out", str(tmp_path / "out"), "--export", "hf")
    status, _, err = bitnet(*command, "--model", str(MASTERS), "--type", "tq2_0")
    assert (status, err) == (1, "bitnet: --type tq2_0: expected gguf among --export, found hf\n")
    status, _, err = bitnet(*command, "--config", str(recipe), "--chat-template", str(recipe))
    assert (status, err) == (1, f"bitnet: --chat-template {recipe}: expected conversations with it, found texts\n")


@pytest.mark.filterwarnings("ignore:data. 1 of 2 examples have nothing to learn from")
def test_conversations_in_which_the_assistant_says_nothing_are_refused(
    bitnet: Terminal, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    record = {"messages": [{"role": "user", "content": "Who is there?"}]}
    said = "none of 3 conversations has a message of the assistant, or a completion: expected some"
    tokenizer.chat_template = LLAMA3
    with BitNetModel.from_pretrained(MASTERS, trainable=True) as model:
        model.tokenizer = tokenizer
        with pytest.raises(ArgumentError, match=f"^data: {said}"):
            Trainer(model, max_steps=1, context_length=32).dataset([record] * 3, "data")
        answered = {"messages": [*record["messages"], {"role": "assistant", "content": "Nay."}]}
        assert Trainer(model, max_steps=1, context_length=64).dataset([record, answered], "data")
    (tmp_path / "x.jsonl").write_text((json.dumps(record) + "\n") * 3)
    command = ("finetune", "--model", "bitnet-shakespeare", "--data", str(tmp_path / "x.jsonl"), "--eval-fraction", "0")
    status, _, err = bitnet(*command, "--out", str(tmp_path / "out"), "--quiet")
    assert status == 1
    assert err.startswith(f"bitnet: --data: {said}")


def test_a_layout_is_checked_before_the_data(bitnet: Terminal, tmp_path: Path) -> None:
    command = ("finetune", "--model", str(MASTERS), "--data", "x.jsonl", "--out", str(tmp_path / "out"))
    status, _, err = bitnet(*command, "--set", "model.i2s_layout=x87")
    assert (status, err) == (1, "bitnet: model.i2s_layout = 'x87': expected one of x86, arm64, row4\n")


LLAMA = {"model_type": "llama", "hidden_act": "silu", "quantization_config": {"quant_method": "bitnet"}}


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"quantization_config": {"quant_method": "bitnet", "use_rms_norm": True}}, "f16", "q_proj has a norm of its own"),
        ({"quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["up_proj"]}}, "i2_s", "up_proj is float"),
        ({"tokenizer": {"kind": "characters"}}, "f16", 'a model of type "WordLevel"'),
        ({"hidden_size": 192}, "f16", ""),
        (LLAMA | {"head_dim": 32}, "tq1_0", ""),
    ],
)  # fmt: skip
def test_models_that_gguf_cannot_hold_are_refused_before_the_run(
    changes: dict[str, Any], kind: str, message: str, bitnet: Terminal, tmp_path: Path
) -> None:
    shape = {
        "model_type": "bitnet",
        "vocab_size": 256,
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    recipe: dict[str, Any] = {
        "model": shape,
        "tokenizer": {"kind": "bytes"},
        "data": {"train": str(PLAY), "eval_fraction": 0},
        "training": {"max_steps": 1, "batch_size": 1, "context_length": 16},
        "sample": {"max_new_tokens": 1},
        "export": {"formats": ["gguf"], "gguf_type": kind},
    }
    recipe |= changes if "tokenizer" in changes else {"model": shape | changes}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    out = tmp_path / "out"
    status, _, err = bitnet("train", "--config", str(tmp_path / "recipe.json"), "--out", str(out))
    assert (status, message in err, out.exists()) == (1 if message else 0, True, not message), err
    assert ("export.formats: gguf: " in err) == bool(message)
    assert ("of 7 ternary layers are F16 instead of TQ1_0" in err) == (kind == "tq1_0"), err
