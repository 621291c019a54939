"""The bitnet command: what it prints, where, and its exit status."""

import io
import json
import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.status import Status

import bitnet_rust
from bitnet_rust import BitNetModel, Tokenizer, cli
from bitnet_rust.cli.output import working
from bitnet_rust.generation import Piece
from bitnet_rust.progress import Bar
from conftest import Terminal

PROMPT = "First Citizen:"


def test_generate_prints_the_text(bitnet: Terminal, shakespeare: BitNetModel) -> None:
    text = shakespeare.generate(PROMPT, max_new_tokens=20)
    assert bitnet("generate", PROMPT, "-n", "20") == (0, text + "\n", "")
    assert bitnet("generate", "-", "-n", "20", stdin=PROMPT) == (0, text + "\n", "")
    assert bitnet("generate", PROMPT, "-n", "20", "--echo") == (0, PROMPT + text + "\n", "")


def test_generate_takes_sampling_options(bitnet: Terminal, shakespeare: BitNetModel) -> None:
    text = shakespeare.generate(PROMPT, max_new_tokens=20, temperature=2.0, top_k=9, seed=5, stop=["zz", "e"])
    options = ("--temperature", "2", "--top-k", "9", "--seed", "5", "--stop", "zz", "--stop", "e")
    assert bitnet("generate", PROMPT, "-n", "20", *options) == (0, text + "\n", "")


def test_commands_that_load_say_where_weights_are_kept_and_when_checksums_are_compared(
    bitnet: Terminal, shakespeare: BitNetModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Any, Any]] = []
    load = BitNetModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def loading(cls: type[BitNetModel], name: Any, **options: Any) -> BitNetModel:
        asked.append((options["resident"], options["verify"]))
        return load(cls, name, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(BitNetModel, "from_pretrained", classmethod(loading))
    (tmp_path / "t").write_text("{{ messages[-1]['content'] }}")
    (tmp_path / "t.txt").write_text("First Citizen: speak. " * 60)
    commands = (
        ("generate", PROMPT, "-n", "1"), ("perplexity", str(tmp_path / "t")), ("eval", "--data", str(tmp_path / "t.txt")),
        ("chat", "--chat-template", str(tmp_path / "t"), "-n", "1"),
    )  # fmt: skip
    shakespeare.save_pretrained(tmp_path / "m.bitnet")
    for command in commands:
        of_file = (*command, "-m", str(tmp_path / "m.bitnet"))
        assert bitnet(*of_file, "--resident", "map", "--verify", "never", stdin=PROMPT)[0] == 0
        assert bitnet(*of_file, "--resident", "copy", "--verify", "now", stdin=PROMPT)[0] == 0
    assert asked == [("map", False), ("copy", True)] * len(commands)


@pytest.mark.parametrize(
    ("command", "option", "value", "choices"),
    [
        (("serve", "-m", "no-such-model"), "--mode", "fast", ("throughput", "latency")),
        (("serve", "-m", "no-such-model"), "--kv-dtype", "int4", ("float32", "float16", "bfloat16", "int8")),
        (
            ("generate", PROMPT, "-m", "no-such-model"),
            "--head-dtype",
            "float8",
            ("auto", "exact", "float32", "bfloat16", "float16", "int8", "int4"),
        ),
        (("chat", "-m", "no-such-model"), "--packing", "3bit", ("auto", "2bit", "base3")),
        (("inspect", "no-such-model"), "--i2s-layout", "bogus", ("x86", "arm64", "row4")),
        (("convert", "no-such-model", "target"), "--to", "pdf", ("native", "hf", "hf-master", "gguf", "onnx")),
        (("convert", "no-such-model", "target"), "--masters", "float16", ("float32", "bfloat16")),
        (
            ("convert", "no-such-model", "target.gguf"),
            "--type",
            "q9",
            ("i2_s", "tq1_0", "tq2_0", "f16", "bf16", "f32", "int8", "int2"),
        ),
        (("finetune", "--out", "x"), "--type", "int8", ("i2_s", "tq1_0", "tq2_0", "f16", "bf16", "f32")),
        (("finetune", "--out", "x"), "--i2s-layout", "bogus", ("x86", "arm64", "row4")),
        (("models",), "--log-level", "loud", ("debug", "info", "warning", "error", "critical")),
        (("models",), "--log-format", "xml", ("text", "json")),
        (("bench", "load"), "--format", "onnx", ("native", "hf", "gguf")),
        (("generate", PROMPT, "-m", "no-such-model"), "--resident", "disk", ("auto", "map", "copy")),
        (("generate", PROMPT, "-m", "no-such-model"), "--verify", "later", ("background", "now", "never")),
    ],
)
def test_options_with_few_values_show_them_and_are_checked_first(
    bitnet: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    option: str,
    value: str,
    choices: tuple[str, ...],
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    status, out, err = bitnet(*command, option, value)
    assert (status, out) == (2, "")
    assert f"Invalid value for '{option}':" in err
    assert f"'{value}' is not one of " + ", ".join(map(repr, choices)) in err
    assert " | ".join(choices) in bitnet(*command, "--help")[1]
    if option.startswith("--log"):
        return  # a setting, which says itself where it is wrong
    name = "load" if command[0] == "bench" else ""
    monkeypatch.setenv(
        "_".join(filter(None, ("BITNET", command[0], name, option[2:]))).upper().replace("-", "_"), value
    )
    status, _, err = bitnet(*command)
    assert (status, f"{value!r} in the environment: expected one of {', '.join(choices)}" in err) == (1, True)


def test_what_cannot_be_served_is_said_before_anything_is_loaded(
    bitnet: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def loaded(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(BitNetModel, "from_pretrained", loaded)
    (tmp_path / "none").write_text("# no key yet\n")
    (tmp_path / "broken").write_text("{% for m in messages %}")
    monkeypatch.setenv("BITNET_API_KEYS", "sk-of-the-environment")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for option, value, message in (
            ("--kv-bytes", "0", "--kv-bytes 0: expected 1 to"),
            ("--max-sequences", "5000", "--max-sequences 5000: expected 1 to 4096"),
            ("--max-queue", "-1", "--max-queue -1: expected 1 to"),
            ("--heartbeat", "0", "--heartbeat 0.0: expected a number of seconds above 0"),
            ("--api-key-file", str(tmp_path / "none"), "has no API key: expected one in each line"),
            ("--chat-template", str(tmp_path / "broken"), "line 1 of the chat template is malformed"),
            ("--assistant-revision", "main", "--assistant-revision main: expected an --assistant-model with it"),
            ("--num-assistant-tokens", "2", "--num-assistant-tokens 2: expected an --assistant-model with it"),
            ("--port", str(taken.getsockname()[1]), "cannot listen on 127.0.0.1:"),
        ):
            status, out, err = bitnet("serve", option, value)
            assert (status, out) == (1, ""), option
            assert message in err, option
            assert err.count("\n") == 1, option
    chat = ("chat", "-m", "bitnet-shakespeare")
    assert "is malformed" in bitnet(*chat, "--chat-template", str(tmp_path / "broken"))[2]
    assert "expected an --assistant-model with it" in bitnet(*chat, "--assistant-revision", "main")[2]
    assert "expected an --assistant-model with it" in bitnet("generate", "x", "--num-assistant-tokens", "2")[2]


def test_generate_biases_tokens_and_ends_at_tokens(bitnet: Terminal, shakespeare: BitNetModel) -> None:
    result = shakespeare.generate(PROMPT, max_new_tokens=20, details=True)
    first, fourth = result.token_ids[0], result.token_ids[3]
    biased = shakespeare.generate(PROMPT, max_new_tokens=20, logit_bias={first: float("-inf"), 5: 1.5})
    options = ("--logit-bias", f"{first}=-inf", "--logit-bias", "5=1.5")
    assert bitnet("generate", PROMPT, "-n", "20", *options) == (0, biased + "\n", "")
    stopped = shakespeare.generate(PROMPT, max_new_tokens=20, stop_token_ids=[fourth])
    assert bitnet("generate", PROMPT, "-n", "20", "--stop-token-ids", str(fourth)) == (0, stopped + "\n", "")
    status, out, err = bitnet("generate", PROMPT, "--logit-bias", "13:-inf")
    assert (status, out) == (2, "")
    assert "ID=NUMBER" in err


def test_generate_prints_its_profile_and_writes_the_trace(
    bitnet: Terminal, shakespeare: BitNetModel, tmp_path: Path
) -> None:
    text = shakespeare.generate(PROMPT, max_new_tokens=4)
    trace = tmp_path / "trace.json"
    status, out, err = bitnet("generate", PROMPT, "-n", "4", "--profile", str(trace))
    assert (status, out) == (0, text + "\n")
    assert "attention" in err
    assert "4 steps" in err
    assert json.loads(trace.read_text())["traceEvents"]
    status, out, err = bitnet("generate", PROMPT, "-n", "4", "--profile", str(trace), "--json")
    assert json.loads(out)["profile"]["steps"] == 4
    (tmp_path / "file").touch()
    status, out, err = bitnet("generate", PROMPT, "--profile", str(tmp_path / "file" / "none" / "trace.json"))
    assert (status, out) == (1, "")
    assert err.endswith(f"trace.json: {tmp_path / 'file'} is not a directory\n")


def test_chat_takes_the_options_of_generate(bitnet: Terminal, shakespeare: BitNetModel, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("{{ messages[-1]['content'] }}")
    given: dict[str, Any] = {
        "typical_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.25, "prompt_lookup_num_tokens": 3, "seed": 3,
        "max_new_tokens": 12, "ignore_eos": True,
    }  # fmt: skip
    text = shakespeare.generate(PROMPT, add_special_tokens=False, logit_bias={5: 2.0}, stop_token_ids=[9], **given)
    options = [
        part
        for name, value in given.items()
        for part in [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    ]
    options += ["--logit-bias", "5=2", "--stop-token-ids", "9"]
    chat = ("chat", "-m", "bitnet-shakespeare", "--chat-template", str(tmp_path / "t"))
    assert bitnet(*chat, *options, stdin=PROMPT + "\n") == (0, text + "\n", "")
    assistant = ("--assistant-model", "bitnet-shakespeare", "--num-assistant-tokens", "3")
    assert bitnet(*chat, *options, *assistant, stdin=PROMPT + "\n") == (0, text + "\n", "")


def test_an_assistant_guesses_what_would_be_said(bitnet: Terminal, shakespeare: BitNetModel) -> None:
    text = shakespeare.generate(PROMPT, max_new_tokens=20)
    guesses = ("--num-assistant-tokens", "3")
    assert bitnet("generate", PROMPT, "-n", "20", "--assistant-model", "bitnet-shakespeare", *guesses) == (
        0,
        text + "\n",
        "",
    )


def test_generate_json_has_ids_and_log_probabilities(bitnet: Terminal, shakespeare: BitNetModel) -> None:
    status, out, err = bitnet("generate", PROMPT, "-n", "5", "--logprobs", "2", "--json")
    result = json.loads(out)
    assert (status, err) == (0, "")
    assert result["text"] == shakespeare.generate(PROMPT, max_new_tokens=5)
    assert len(result["token_ids"]) == len(result["logprobs"]) == len(result["top_logprobs"]) == 5
    assert result["finish_reason"] == "length"


def test_chat_answers_line_by_line(bitnet: Terminal, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    options = ("-m", "bitnet-shakespeare", "-n", "8", "--chat-template", str(template), "--system", "Be brief.")
    once = bitnet("chat", *options, stdin="First Citizen:\n")
    twice = bitnet("chat", *options, stdin="First Citizen:\n\n/reset\nFirst Citizen:\n/exit\nnot read\n")
    assert once[0] == twice[0] == 0
    assert once[1]
    assert twice[1] == 2 * once[1]
    remembered = bitnet("chat", *options, stdin="First Citizen:\nFirst Citizen:\n")
    assert remembered[1].startswith(once[1])


def test_chat_without_a_template_says_so_before_anything_is_typed(bitnet: Terminal) -> None:
    status, out, err = bitnet("chat", "-m", "bitnet-shakespeare", stdin="")
    assert (status, out) == (1, "")
    assert "--chat-template" in err


class Keyboard(io.StringIO):
    """A terminal with somebody at it."""

    def isatty(self) -> bool:
        return True


def test_an_interrupt_of_a_reply_leaves_the_conversation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Ctrl-C in the first reply; a second message that does not fit; then the end of input."""
    said, canceled = [], []

    class Reply:
        def __init__(self, number: int) -> None:
            self.number = number

        def __iter__(self) -> Iterator[Piece]:
            if self.number == 1:
                yield Piece(0, "Speak", 1)
                raise KeyboardInterrupt
            yield Piece(0, "Speak, speak.", 1, "stop")

        def cancel(self) -> None:
            canceled.append(self.number)

    def chat(self: bitnet_rust.Engine, messages: list[dict[str, str]], **options: Any) -> Reply:
        said.append([m["content"] for m in messages])
        if len(said) == 2:
            raise bitnet_rust.ArgumentError("prompt = 300 tokens: too long")
        return Reply(len(said))

    (tmp_path / "t").write_text("{{ messages }}")
    monkeypatch.setattr(bitnet_rust.Engine, "chat", chat)
    monkeypatch.setattr(
        sys, "argv", ["bitnet", "chat", "-m", "bitnet-shakespeare", "--chat-template", str(tmp_path / "t")]
    )
    monkeypatch.setattr(sys, "stdin", Keyboard("one\ntwo\nthree\n"))
    assert cli.run() == 0
    out, err = capsys.readouterr()
    assert said == [["one"], ["one", "Speak", "two"], ["one", "Speak", "three"]]
    assert canceled == [1]
    assert out == "> Speak\n> > Speak, speak.\n> \n"
    assert err == "bitnet: prompt = 300 tokens: too long (/reset forgets the conversation)\n"


def test_a_conversation_is_not_read_again_at_every_turn(
    bitnet: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures: list[dict[str, Any]] = []
    close = bitnet_rust.Engine.close

    def closing(self: bitnet_rust.Engine, *, cancel: bool = False) -> None:
        close(self, cancel=cancel)
        figures.append(self.metrics())

    monkeypatch.setattr(bitnet_rust.Engine, "close", closing)
    (tmp_path / "t").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    options = ("chat", "-m", "bitnet-shakespeare", "--chat-template", str(tmp_path / "t"), "-n", "2")
    first = "First Citizen: speak. " * 16
    assert bitnet(*options, stdin=f"{first}\nSpeak!\n")[0] == 0
    assert figures[0]["prefix_hit_tokens"] >= 64  # a page
    with BitNetModel.from_pretrained("bitnet-shakespeare") as model:
        pages = -(-model.config.max_position_embeddings // 64)
    assert figures[0]["kv_pages_limit"] == pages  # no more than the longest conversation takes


def test_lines_of_a_file_end_at_the_first_error(bitnet: Terminal, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("{{ messages[-1]['content'] }}")
    options = ("chat", "-m", "bitnet-shakespeare", "--chat-template", str(tmp_path / "t"), "-n", "2")
    status, out, err = bitnet(*options, stdin=f"{'word ' * 300}\nnot read\n")
    assert (status, out) == (1, "")
    assert "max_position_embeddings" in err


def test_inspect_shows_what_a_model_is(bitnet: Terminal, tiny_dir: Path) -> None:
    status, out, _ = bitnet("inspect", str(tiny_dir))
    assert status == 0
    for text in ("BitNetForCausalLM", "2,364,672", "bfloat16", "hidden_size"):
        assert text in out
    facts = json.loads(bitnet("inspect", str(tiny_dir), "--json", "--head-dtype", "int8")[1])
    assert facts["head_dtype"] == "int8"
    assert facts["packing"] == "2bit"
    assert facts["config"]["num_hidden_layers"] == 4
    assert facts["tokenizer_vocab"] == 512


def test_inspect_of_a_model_without_tokenizer(bitnet: Terminal, tmp_path: Path) -> None:
    BitNetModel.from_config("char").save_pretrained(tmp_path / "char.bitnet")
    facts = json.loads(bitnet("inspect", str(tmp_path / "char.bitnet"), "--json")[1])
    assert facts["tokenizer_vocab"] is None
    assert facts["format"] == "native"


def test_perplexity_of_a_file_and_of_stdin(bitnet: Terminal, shakespeare: BitNetModel, tmp_path: Path) -> None:
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
    (tmp_path / "text").write_text(text)
    wanted = shakespeare.perplexity(text, window=16, stride=8)
    options = ("--window", "16", "--stride", "8")
    assert bitnet("perplexity", str(tmp_path / "text"), *options) == (0, f"{wanted:.4f}\n", "")
    status, out, _ = bitnet("perplexity", "-", "--json", *options, stdin=text)
    assert status == 0
    assert json.loads(out)["perplexity"] == pytest.approx(wanted)


def test_models_lists_the_registry(bitnet: Terminal) -> None:
    status, out, _ = bitnet("models")
    assert status == 0
    assert "microsoft/bitnet-b1.58-2B-4T" in out
    entries = json.loads(bitnet("models", "--json")[1])
    assert {"name", "aliases", "hub_id", "parameters", "memory", "embedded"} == set(entries[0])
    assert [e["name"] for e in entries if e["embedded"]] == ["bitnet-shakespeare"]


def test_info_and_version(bitnet: Terminal) -> None:
    assert json.loads(bitnet("info", "--json")[1]) == bitnet_rust.build_info()
    assert bitnet_rust.build_info()["isa"] in bitnet("info")[1]
    assert bitnet("--version") == (0, f"bitnet-rust {bitnet_rust.__version__}\n", "")


def test_bench_is_there(bitnet: Terminal) -> None:
    status, out, _ = bitnet("bench", "--help")
    assert status == 0
    assert "decode" in out


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("generate", "x", "-m", "no-such-model"), 1, "no-such-model"),
        (("generate", "x", "--temperature", "nan"), 1, "temperature"),
        (("generate", "", "-m", "bitnet-shakespeare"), 1, "at least one"),
        (("generate", "x", "--threads", "0"), 1, "1 to 1024"),
        (("perplexity", "/no/such/file"), 1, "/no/such/file cannot be read"),
        (("perplexity", "/"), 1, "directory"),
        (("chat", "-m", "bitnet-shakespeare", "--chat-template", "/no/such/file"), 1, "/no/such/file cannot be read"),
        (("chat", "-m", "no-such-model"), 1, "no-such-model"),
        (("generate", "x", "-m", "no-such/model", "--offline"), 1, "there is no directory 'no-such/model' here"),
        (("inspect", "no-such/model.gguf"), 1, "there is no no-such/model.gguf: pass"),
        (("generate", "caf\udce9"), 1, "text[3]"),
        (("generate", "x", "--logprobs", "2"), 2, "--json"),
        (("diff", "bitnet-shakespeare", "bitnet-shakespeare", "--revision-b", "v1"), 2, "--revision-b v1: "),
        (("generate", "x", "--no-such-option"), 2, "no-such-option"),
        (("no-such-command",), 2, "no-such-command"),
        (("generate",), 2, "Usage: bitnet generate"),
    ],
)
def test_errors_are_short_and_have_a_status(
    bitnet: Terminal, arguments: tuple[str, ...], status: int, says: str
) -> None:
    found, out, err = bitnet(*arguments)
    assert (found, out) == (status, "")
    assert says in err
    assert "Traceback" not in err
    if status == 1:
        assert err.startswith("bitnet: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "kind", "says"),
    [
        (("generate", "x", "-m", "no-such-model", "--json"), 1, "ModelNotFoundError", "no-such-model"),
        (("generate", "x", "-m", "no-such-model", "--log-format", "json"), 1, "ModelNotFoundError", "no-such-model"),
        (("--log-format", "json", "chat", "-m", "no-such-model"), 1, "ModelNotFoundError", "no-such-model"),
        (("generate", "x", "--top-k", "many", "--json"), 2, "BadParameter", "'--top-k'"),
        (("generate", "--json"), 2, "MissingParameter", "Missing argument"),
        (("generate", "x", "--json", "--no-such-option"), 2, "NoSuchOption", "--no-such-option"),
        (("generate", "x", "--logprobs", "1", "--log-format", "json"), 2, "BadParameter", "add --json"),
        (("no-such-command", "--json"), 2, "UsageError", "No such command 'no-such-command'"),
        (("config", "no-such-command", "--json"), 2, "UsageError", "No such command 'no-such-command'"),
        (("bench", "--no-such-option", "--json"), 2, "NoSuchOption", "--no-such-option"),
        (("diff", "no-such-model", "bitnet-shakespeare", "--json"), 2, "ModelNotFoundError", "no-such-model"),
        (("verify", "no-such-model", "--json"), 1, "ModelNotFoundError", "no-such-model"),
        (("serve", "--kv-bytes", "0"), 1, "ArgumentError", "--kv-bytes 0"),  # its log is JSON
    ],
)
def test_errors_are_json_where_the_result_or_the_log_is(
    bitnet: Terminal, arguments: tuple[str, ...], status: int, kind: str, says: str
) -> None:
    found, out, err = bitnet(*arguments)
    assert (found, out) == (status, "")
    told = json.loads(err)
    assert {"time", "level", "logger", "event", "type", "error", "status"} == set(told)
    assert (told["level"], told["event"], told["type"], told["status"]) == ("error", "failed", kind, status)
    assert says in told["error"]
    assert bitnet("perplexity", "/no/such/file")[2].startswith("bitnet: ")  # the next command speaks as it is told


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("generate x --temperature -1", "--temperature -1: expected a finite number >= 0 (0 is greedy)"),
        ("generate x --stop ''", "--stop '': expected texts of at least one character"),
        ("generate x --threads 0", "--threads 0: expected a whole number from 1 to 1024"),
        ("generate x --threads=-3", "--threads -3: expected a whole number from 1 to 1024"),
        ("perplexity text.txt --window 8 --stride 9", "--stride 9: expected 1 <= stride < --window 8"),
        ("perplexity text.txt --stride 0", "--stride 0: expected 1 <= stride < window = 256"),
        ("eval --data none", "--data: there is no none"),
        ("eval --data ids.bin", "such as \"uint16\" for nanoGPT's files; pass --dtype"),
        ("bench serve --url http://127.0.0.1:9", "--model is missing: expected the name that the server gives its model"),
        ("bench decode --model bitnet-shakespeare --shape 2b", "--shape 2b: expected 'from-model', or none, with --model bitnet-shakespeare"),
        ("convert bitnet-shakespeare x", "x may be of several formats: expected --to one of native, hf, "),
        ("convert bitnet-shakespeare x.gguf --to native", "x.gguf is the name of a gguf file: expected a directory for --to native"),
        ("convert bitnet-shakespeare x.gguf --derive-masters", "--derive-masters: expected --to hf-master with it"),
        ("convert bitnet-shakespeare x.gguf --no-cache", "--no-cache: expected --to onnx with it"),
        ("convert bitnet-shakespeare x.gguf --max-shard-size 5GB", "x.gguf is the name of one gguf file: expected a directory with --max-shard-size"),
        ("convert bitnet-shakespeare x --to hf-master", "(--derive-masters of a conversion makes others"),
        ("train --out o", "--data is missing: expected a file or a directory"),
        ("train --out o --data none", "--data: there is no none"),
        ("train --out o --resume", "--resume: there is no run in o: expected its directory, or --data"),
        ("finetune --out o --model m --resume", "--resume: there is no run in o: expected its directory, or --data"),
        ("convert bitnet-shakespeare x --to gguf --max-shard-size 0", "--max-shard-size 0: expected a positive number of bytes"),
        ("tokenize --data text.txt --out x.txt --bytes", "--out x.txt: expected a name that ends in .bin"),
        ("tokenize --data empty.txt --out x.bin --characters", "--data empty.txt: there is no text in it"),
        ("train --out o --data text.txt --max-steps 2 --epochs 1", "--max-steps 2 and --epochs 1.0: expected one of them"),
        ("train --out o --data text.txt --batch-size 0", "--batch-size 0: expected a whole number from 1 to "),
        ("train --out o --data text.txt --set training.batch_size=0", "batch_size = 0: expected a whole number from 1 to "),
        ("train --out . --data text.txt", "--out .: the directory has files; choose another, or pass --overwrite or --resume"),
        ("finetune --out o", "--model is missing: expected the model to begin with"),
        ("finetune --out o --model m --data three.jsonl", 'line 1 of three.jsonl: record: expected "messages", "conversations", "prompt" and '),
        ("finetune --out o --model m --data three.jsonl", "found {'prompt': 3}"),
        ("generate x --assistant-model bitnet-shakespeare --assistant-revision v1", "--assistant-revision v1: bitnet-shakespeare is here, and only"),
        ("finetune --out o --model m --data talks.jsonl --export pdf", "--export pdf: expected a list of hf, hf-master, gguf"),
        ("tokenize --data text.txt --out x.bin --train-bpe 1", "--train-bpe 1: expected at least 256"),
        ("tokenize --data none --out text.txt/x.bin --characters", "cannot write text.txt/x.bin: text.txt is not a directory"),
        ("generate x --profile ~nobody-has-this-name/x.json", "cannot write ~nobody-has-this-name/x.json: Could not determine home"),
        ("convert bitnet-shakespeare ~nobody-has-this-name/x.gguf", "cannot write ~nobody-has-this-name/x.gguf: Could not determine home"),
        ("convert bitnet-shakespeare text.txt/x.gguf --dry-run", "cannot write text.txt/x.gguf: text.txt is not a directory"),
    ],
)  # fmt: skip
def test_errors_name_the_options_that_were_typed(
    bitnet: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("First Citizen: speak. " * 60)
    Path("ids.bin").write_bytes(bytes(4096))
    Path("empty.txt").touch()
    Path("three.jsonl").write_text('{"prompt": 3}\n')
    Path("talks.jsonl").write_text('{"prompt": "Who is there?", "completion": "A friend."}\n' * 20)
    status, out, err = bitnet(*shlex.split(command))
    assert (status, out) == (1, "")
    assert says in err
    assert err.startswith("bitnet: ")
    assert json.loads(bitnet(*shlex.split(command), "--json")[2])["error"] == err.removeprefix("bitnet: ").rstrip()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--cors-origin foo", "--cors-origin foo: expected scheme, name and port"),
        ("--allowed-host http://x", "--allowed-host http://x: expected a name or an address"),
        ("--api-key-file none", "the API keys in none cannot be read: No such file or directory"),
    ],
)
def test_errors_of_serve_name_its_options(bitnet: Terminal, options: str, says: str) -> None:
    status, out, err = bitnet("serve", "--log-format", "text", *options.split())
    assert (status, out) == (1, "")
    assert err.startswith(f"bitnet: {says}")


def test_errors_name_the_variable_and_the_file_where_an_option_was_given_there(
    bitnet: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITNET_GENERATE_TOP_P", "3")
    assert bitnet("generate", "x")[2] == "bitnet: BITNET_GENERATE_TOP_P = 3: expected a number in (0, 1] (1 is off)\n"
    assert bitnet("generate", "x", "--top-p", "2")[2] == "bitnet: --top-p 2: expected a number in (0, 1] (1 is off)\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_said_in_words(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bitnet_rust", "models"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "bitnet: No space left on device\n")


def test_values_that_are_none_are_refused_in_words(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command, says in (
        ("generate x --top-k many", "'--top-k': 'many': expected a whole number "),
        ("serve --port 65536", "'--port': '65536': expected a whole number from 0 to 65535 "),
        ("bench batch --size 0", "'--size': '0': expected a whole number of at least 1 "),
        ("--log-level loud models", "'--log-level': 'loud' is not one of 'debug'"),
    ):
        status, out, err = bitnet(*command.split())
        assert (status, out, says in err) == (2, "", True), err


def test_an_unknown_model_brings_near_names_to_mind_or_the_command_that_has_them(bitnet: Terminal) -> None:
    assert "(did you mean bitnet-shakespeare?)" in bitnet("generate", "x", "-m", "bitnet-shakespear")[2]
    err = bitnet("generate", "x", "-m", "no-such-model")[2]
    assert "(`bitnet models` lists the names)" in err
    assert "falcon" not in err


def test_at_a_terminal_a_server_says_in_words_why_it_does_not_start(
    bitnet: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert bitnet("serve", "--kv-bytes", "0")[2].startswith("bitnet: --kv-bytes 0")
    assert json.loads(bitnet("serve", "--kv-bytes", "0", "--log-format", "json")[2])["status"] == 1
    monkeypatch.setenv("BITNET_LOG_FORMAT", "json")
    assert json.loads(bitnet("serve", "--kv-bytes", "0")[2])["status"] == 1


def test_quiet_commands_say_nothing_but_their_results(bitnet: Terminal, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("First Citizen: speak. " * 60)
    train = ("train", "--data", str(tmp_path / "text"), "--set", "model.num_hidden_layers=1", "--max-steps", "2")
    train += ("--batch-size", "1", "--context-length", "16", "--out", str(tmp_path / "out"))
    status, out, err = bitnet(*train, "--quiet")
    assert (status, err) == (0, "")
    assert f"saved {tmp_path / 'out'}" in out
    assert "training: " in bitnet(*train, "--overwrite")[2]
    bench = ("bench", "decode", "--shape", "tiny", "--tokens", "2", "--repeat", "1", "--no-cache", "--json")
    status, out, err = bitnet(*bench, "--quiet")
    assert (status, err) == (0, "")
    assert json.loads(out)


def test_an_interrupt_has_its_status(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BitNetModel, "generate", interrupt)
    assert bitnet("generate", "x") == (130, "", "bitnet: interrupted\n")


def test_an_interrupt_of_code_from_a_text_has_its_status(tmp_path: Path) -> None:
    """As a dataclass or a named tuple is made, in whose midst Ctrl-C may come: a process that Python ends by the signal has another status."""
    program = """
from bitnet_rust import cli
cli.app = lambda **options: exec("raise KeyboardInterrupt")
cli.main()
"""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-m", "program"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (130, "bitnet: interrupted\n")


@pytest.mark.parametrize("module", ["typer", "bitnet_rust.generation", "bitnet_rust.cli.text", "bitnet_rust.cli"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_interrupt_while_modules_are_imported_is_as_a_later_one(module: str, options: list[str]) -> None:
    """Python says when it has imported which; the command would wait for its input."""
    command = [sys.executable, "-X", "importtime", "-m", "bitnet_rust", "perplexity", "-", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stderr:
            if line.split()[-1] == module:
                process.send_signal(signal.SIGINT)
                break
        assert process.stdin
        process.stdin.close()  # it ends, whatever it has heard
        said = [line for line in process.stderr if not line.startswith("import time:")]
        assert (process.stdout.read(), process.wait()) == ("", 130)
    if options:
        (record,) = map(json.loads, said)
        assert datetime.fromisoformat(record.pop("time")).tzinfo
        assert record == {
            "level": "error", "logger": "bitnet_rust.cli", "event": "failed", "error": "interrupted", "status": 130
        }  # fmt: skip
    else:
        assert said == ["bitnet: interrupted\n"]


def test_an_interrupt_before_the_commands_run_has_its_words(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)
    assert bitnet("info") == (130, "", "bitnet: interrupted\n")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert bitnet("info") == (130, "", "\nbitnet: interrupted\n")


def test_the_environment_is_checked_by_info(monkeypatch: pytest.MonkeyPatch) -> None:
    env = dict(os.environ, BITNET_NUM_THREADS="many", BITNET_MEMORY_BUDGET="much")
    command = [sys.executable, "-m", "bitnet_rust", "info", "--json"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 1
    assert len(json.loads(result.stdout)["environment_errors"]) == 2
    told = json.loads(result.stderr)["error"]
    for word in ("BITNET_NUM_THREADS", "many", "BITNET_MEMORY_BUDGET", "much"):
        assert word in told
    env = dict(os.environ, BITNET_MEMORY_BUDGET="3GiB")
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0
    assert json.loads(result.stdout)["memory_budget"] == 3 << 30


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bitnet", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("bitnet_rust", run_name="__main__")
    assert end.value.code == 0
    assert bitnet_rust.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams_are_empty_ones(closed: str, tiny_dir: Path) -> None:
    command = f"{sys.executable} -m bitnet_rust generate '{PROMPT}' -m '{tiny_dir}' -n 2 {closed}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=600)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == ("" if closed == ">&-" else "\nB\n")


def test_characters_that_the_output_cannot_show_are_escaped() -> None:
    env = dict(os.environ, PYTHONIOENCODING="ascii")
    command = [sys.executable, "-m", "bitnet_rust", "generate", "é", "-n", "1", "--echo"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0
    assert result.stdout.startswith("\\u00e9")


def test_tables_have_no_blanks_at_line_ends(bitnet: Terminal) -> None:
    lines = bitnet("models")[1].splitlines()
    assert len(lines) > 10
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_model_gives_a_terminal_no_orders(tmp_path: Path) -> None:
    shape = {
        "vocab_size": 3,
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    with BitNetModel.from_config(shape) as model:
        model.tokenizer = Tokenizer.characters("\x1b\x9b\n")
        model.save_pretrained(tmp_path / "m.bitnet")
    command = [
        sys.executable,
        "-m",
        "bitnet_rust",
        "generate",
        "\n",
        "--model",
        str(tmp_path / "m.bitnet"),
        "--seed",
        "1",
    ]
    command += ["--temperature", "1", "--max-new-tokens", "40"]
    main, terminal = os.openpty()
    seen = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, timeout=600)
    os.close(terminal)
    text = os.read(main, 4096).decode()
    os.close(main)
    assert (seen.returncode, seen.stderr) == (0, b"")
    assert {r"\x1b", r"\x9b"} <= set(re.findall(r"\\x..", text))
    assert not set(text) & {"\x1b", "\x9b"}
    piped = subprocess.run(command, capture_output=True, timeout=600).stdout.decode()
    assert {"\x1b", "\x9b"} <= set(piped)


def test_defects_show_all_they_say(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise bitnet_rust.InternalError("index out of range\n\nstack")

    monkeypatch.setattr(BitNetModel, "generate", fail)
    assert bitnet("generate", "x") == (1, "", "bitnet: index out of range\n\nstack\n")


def test_json_is_json_in_every_encoding(tmp_path: Path) -> None:
    text = "caf\u00e9 \U0001f600\x9b"
    with BitNetModel.from_config({"preset": "tiny", "vocab_size": 7, "num_hidden_layers": 1}) as model:
        model.tokenizer = Tokenizer.characters(text)
        model.save_pretrained(tmp_path / "m.bitnet")
    for encoding in ("ascii", "latin-1", "utf-8"):
        done = subprocess.run(
            [sys.executable, "-m", "bitnet_rust", "generate", text[-4:], "--echo", "-n", "1", "--json", "-m", str(tmp_path / "m.bitnet")],
            capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, timeout=600,
        )  # fmt: skip
        assert json.loads(done.stdout.decode(encoding))["text"].startswith(text[-4:]), encoding


def test_a_closed_pipe_is_no_error_message() -> None:
    command = f"{sys.executable} -m bitnet_rust generate '{PROMPT}' -n 200 | head -c 5"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=600)
    assert result.stderr == ""
    assert len(result.stdout) == 5


def test_progress_is_drawn_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Under a terminal, loading draws a bar and waiting a spinner, on stderr."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Bar("loading a-model") as bar:
        for done in range(0, 1000, 100):
            bar(done, 1000)
    with Bar("loading a-model") as bar:
        bar(1000, 1000)
    with working("reading"):
        pass
    assert "a-model" in capsys.readouterr().err
    assert capsys.readouterr().out == ""


def test_an_interrupt_while_the_spinner_appears_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Status.start

    def interrupted(self: Status) -> None:
        start(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Status, "start", interrupted)
    monkeypatch.setattr(sys, "stderr", Keyboard())
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), working("reading the prompt"):
        pass
    for thread in set(threading.enumerate()) - before:
        thread.join(60)  # it looks some times a second whether it is to end
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("name", "content", "options", "says"),
    [
        ("empty.txt", b"", (), "there is no text in it"),
        ("latin.txt", b"caf\xe9 " * 99, (), "is not a UTF-8 text"),
        ("missing.txt", None, (), "there is no"),
        ("ids.bin", bytes(4096), (), "as data.dtype (on the command line --set data.dtype=uint16)"),
        ("ids.bin", bytes(4096), ("--set", "data.dtype=uint16"), "data are token ids: expected tokenizer.path"),
        ("ids.bin", bytes(4096), ("--set", "data.dtype=int8"), "as data.dtype"),
        ("a.txt", b"To be. " * 400, ("--set", "data.eval=a.txt", "--eval-fraction", "0.1"), "expected one of them"),
        ("a.txt", b"To be. " * 400, ("--out", "/dev/null/out"), "expected a directory, found a file /dev/null"),
    ],
)  # fmt: skip
def test_data_and_places_that_cannot_be_used_are_named(
    bitnet: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes | None,
    options: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    run = ("train", "--data", name, "--out", "out", "--preset", "tiny", "--max-steps", "1", "--context-length", "8")
    status, _, err = bitnet(*run, *options)
    assert status == 1, err
    assert says in err
    assert not Path("out").exists()
