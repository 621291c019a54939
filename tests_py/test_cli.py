"""The bitnet command: what it prints, where, and its exit status."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bitnet_rust
from bitnet_rust import BitNetModel, cli

PROMPT = "First Citizen:"


class Terminal:
    """Runs the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["bitnet", *arguments])
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = cli.run()
        out, err = self._capsys.readouterr()
        return status, out, err


@pytest.fixture
def bitnet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


def test_generate_prints_the_text(bitnet: Terminal, tiny: BitNetModel) -> None:
    text = tiny.generate(PROMPT, max_new_tokens=20)
    assert bitnet("generate", PROMPT, "-n", "20") == (0, text + "\n", "")
    assert bitnet("generate", "-", "-n", "20", stdin=PROMPT) == (0, text + "\n", "")
    assert bitnet("generate", PROMPT, "-n", "20", "--echo") == (0, PROMPT + text + "\n", "")


def test_generate_takes_sampling_options(bitnet: Terminal, tiny: BitNetModel) -> None:
    text = tiny.generate(PROMPT, max_new_tokens=20, temperature=2.0, top_k=9, seed=5, stop=["zz", "e"])
    options = ("--temperature", "2", "--top-k", "9", "--seed", "5", "--stop", "zz", "--stop", "e")
    assert bitnet("generate", PROMPT, "-n", "20", *options) == (0, text + "\n", "")


def test_generate_json_has_ids_and_log_probabilities(bitnet: Terminal, tiny: BitNetModel) -> None:
    status, out, err = bitnet("generate", PROMPT, "-n", "5", "--logprobs", "2", "--json")
    result = json.loads(out)
    assert (status, err) == (0, "")
    assert result["text"] == tiny.generate(PROMPT, max_new_tokens=5)
    assert len(result["token_ids"]) == len(result["logprobs"]) == len(result["top_logprobs"]) == 5
    assert result["finish_reason"] == "length"


def test_chat_answers_line_by_line(bitnet: Terminal, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    options = ("-m", "bitnet-tiny", "-n", "8", "--chat-template", str(template), "--system", "Be brief.")
    once = bitnet("chat", *options, stdin="First Citizen:\n")
    twice = bitnet("chat", *options, stdin="First Citizen:\n\n/reset\nFirst Citizen:\n/exit\nnot read\n")
    assert once[0] == twice[0] == 0
    assert once[1]
    assert twice[1] == 2 * once[1]
    remembered = bitnet("chat", *options, stdin="First Citizen:\nFirst Citizen:\n")
    assert remembered[1].startswith(once[1])


def test_chat_without_a_template_says_so(bitnet: Terminal) -> None:
    status, out, err = bitnet("chat", "-m", "bitnet-tiny", stdin="Hello\n")
    assert (status, out) == (1, "")
    assert "chat template" in err


def test_inspect_shows_what_a_model_is(bitnet: Terminal) -> None:
    status, out, _ = bitnet("inspect", "bitnet-tiny")
    assert status == 0
    for text in ("BitNetForCausalLM", "2,364,672", "bfloat16", "hidden_size"):
        assert text in out
    facts = json.loads(bitnet("inspect", "bitnet-tiny", "--json", "--head-dtype", "int8")[1])
    assert facts["head_dtype"] == "int8"
    assert facts["config"]["num_hidden_layers"] == 4
    assert facts["tokenizer_vocab"] == 512


def test_inspect_of_a_model_without_tokenizer(bitnet: Terminal, tmp_path: Path) -> None:
    BitNetModel.from_config("char").save_pretrained(tmp_path / "char.bitnet")
    facts = json.loads(bitnet("inspect", str(tmp_path / "char.bitnet"), "--json")[1])
    assert facts["tokenizer_vocab"] is None
    assert facts["format"] == "native"


def test_perplexity_of_a_file_and_of_stdin(bitnet: Terminal, tiny: BitNetModel, tmp_path: Path) -> None:
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
    (tmp_path / "text").write_text(text)
    wanted = tiny.perplexity(text, window=16, stride=8)
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
    assert [e["name"] for e in entries if e["embedded"]] == ["tiny"]


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
        (("generate", "", "-m", "bitnet-tiny"), 1, "at least one"),
        (("generate", "x", "--threads", "0"), 1, "1 to 1024"),
        (("perplexity", "/no/such/file"), 1, "/no/such/file"),
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


def test_an_interrupt_has_its_status(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BitNetModel, "generate", interrupt)
    status, _, err = bitnet("generate", "x")
    assert status in (1, 130)
    assert "Traceback" not in err


def test_defects_show_all_they_say(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise bitnet_rust.InternalError("index out of range\n\nstack")

    monkeypatch.setattr(BitNetModel, "generate", fail)
    assert bitnet("generate", "x") == (1, "", "bitnet: index out of range\n\nstack\n")


def test_a_closed_pipe_is_no_error_message() -> None:
    command = f"{sys.executable} -m bitnet_rust generate '{PROMPT}' -n 200 | head -c 5"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert result.stderr == ""
    assert len(result.stdout) == 5


def test_progress_is_drawn_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Under a terminal, loading draws a bar and waiting a spinner, on stderr."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with cli._LoadBar("a-model") as bar:
        for done in range(0, 1000, 100):
            bar(done, 1000)
    with cli._LoadBar("a-model") as bar:
        bar(1000, 1000)
    with cli._working("reading"):
        pass
    assert "a-model" in capsys.readouterr().err
    assert capsys.readouterr().out == ""
