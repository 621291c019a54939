"""What --help shows works, and shells complete commands."""

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bitnet_rust import cli
from bitnet_rust.cli.defaults import UsageError
from bitnet_rust.cli.examples import EXAMPLES
from conftest import Terminal
from serving import Served

# It needs a model that is downloaded.
NOT_RUN = "bitnet chat --model bitnet-2b"
RECIPE = """\
model: {pretrained: bitnet-shakespeare}
data: {eval_fraction: 0}
training: {max_steps: 1, batch_size: 1, context_length: 32}
"""


def commands(group: Any, path: tuple[str, ...] = ()) -> list[str]:
    found = []
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if hasattr(command, "commands") else [" ".join([*path, name])]
    return found


def test_every_command_has_examples_in_its_help(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    names = commands(typer.main.get_command(cli.app))
    assert set(names) == set(EXAMPLES)
    for name in names:
        status, out, _ = bitnet(*name.split(), "--help")
        assert status == 0
        assert [example for example in EXAMPLES[name] if example not in out] == []


def test_words_that_options_take_stay_whole_at_a_terminal(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = [
        ("bench decode", "--head-dtype", "auto exact float32 bfloat16 float16 int8 int4"),
        ("convert", "--type", "i2_s tq1_0 tq2_0 f16 bf16 f32 int8 int2"),
        ("", "--log-level", "debug info warning error critical"),
        ("generate", "--log-level", "debug info warning error critical"),
        ("generate", "--verify", "background now never"),
    ]
    for command, option, words in options:
        status, out, _ = bitnet(*command.split(), "--help")
        lines = out[out.rindex("\n", 0, out.index(f" {option} ")) + 1 :].splitlines()
        lines = [line[lines[0].index("<") :] for line in lines]
        shown = " ".join(line.split("  ")[0] for line in lines).partition(">")[0]
        assert (status, shown.removeprefix("<").replace("|", " ").split()) == (0, words.split())


def invocations(example: str) -> list[list[str]]:
    """The arguments of each bitnet in a line for a shell."""
    lexer = shlex.shlex(example, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    found: list[list[str]] = []
    for line in itertools.groupby(words, lambda word: word not in ("|", "&&")):
        part = list(line[1])
        if "bitnet" in part:
            found.append(part[part.index("bitnet") + 1 :])
    return found


def parse(words: list[str]) -> Any:
    """What typer makes of the arguments of bitnet, without running the command."""
    command: Any = typer.main.get_command(cli.app)
    context = command.make_context("bitnet", list(words))
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
        context = command.make_context(name, list(words), parent=context)
    return context


@pytest.mark.parametrize("example", [example for examples in EXAMPLES.values() for example in examples])
def test_every_example_is_parsed(example: str) -> None:
    for words in invocations(example):
        assert parse(words).params
        with pytest.raises(UsageError, match="no-such-option"):
            parse([*words, "--no-such-option"])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the files that examples name."""
    (tmp_path / "text.txt").write_text("First Citizen:\nBefore we proceed any further, hear me speak.\n" * 40)
    (tmp_path / "template.jinja").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    (tmp_path / "talks.jsonl").write_text('{"prompt": "Who is there?", "completion": "A friend."}\n' * 4)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "keys.txt").write_text("sesame\n")
    return tmp_path


def run_example(example: str, place: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        example, shell=True, cwd=place, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{example}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in ("serve", "bench serve")])
def test_the_examples_run(name: str, place: Path) -> None:
    for example in EXAMPLES[name]:
        if example != NOT_RUN:
            run_example(example, place)


@pytest.mark.parametrize("example", EXAMPLES["serve"])
def test_the_examples_of_serve_answer(example: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a free port, with the model that comes with the package."""
    monkeypatch.chdir(place)
    words = invocations(example.replace("bitnet-2b", "bitnet-shakespeare"))[0]
    headers = {"Authorization": "Bearer sesame"} if "--api-key-file" in words else {}
    with Served(*words[1:], "--port", "0") as server:
        assert server.http.get("/v1/models", headers=headers).json()["data"][0]["id"] == "bitnet-shakespeare"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.full
def test_the_examples_of_bench_serve_run(place: Path) -> None:
    alone, beside = EXAMPLES["bench serve"]
    run_example(alone, place)
    with Served("--model", "bitnet-shakespeare", "--served-model-name", "my-model") as server:
        assert "http://127.0.0.1:8000" in beside
        run_example(f"{beside.replace('http://127.0.0.1:8000', server.url)} --seconds 1 --rounds 1", place)


SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
COMMAND = [sys.executable, "-c", "from bitnet_rust.cli import run; raise SystemExit(run())"]


def complete(shell: str, words: str) -> list[str]:
    """What the command answers the shell's script when Tab is pressed after these words."""
    asked = {
        "bash": {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": words},
        "fish": {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        "powershell": {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_WORD_TO_COMPLETE": words.split()[-1]},
    }[shell.replace("pwsh", "powershell")]
    env = os.environ | {"_BITNET_COMPLETE": f"complete_{shell}"} | asked
    answer = subprocess.run(COMMAND, env=env, capture_output=True, text=True).stdout
    if shell == "zsh":  # _arguments '*: :(("word":"help"
        return re.findall(r'^(?:_arguments .*\(\()?"([^"]+)"', answer, re.MULTILINE)
    words_and_help = ":::" if shell in ("powershell", "pwsh") else "\t"  # of fish a tab
    return [line.partition(words_and_help)[0] for line in answer.splitlines() if line]


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete_commands_options_and_choices(shell: str) -> None:
    assert complete(shell, "bitnet gen") == ["generate"]
    assert complete(shell, "bitnet generate --temp") == ["--temperature"]
    assert complete(shell, "bitnet config p") == ["path"]
    assert complete(shell, "bitnet serve --mode l") == ["latency"]
    assert complete(shell, "bitnet no-such-command x") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_what_completes_is_a_script_of_the_shell(shell: str, tmp_path: Path) -> None:
    shown = subprocess.run(
        COMMAND, env=os.environ | {"_BITNET_COMPLETE": f"source_{shell}"}, capture_output=True, text=True
    )
    assert shown.returncode == 0
    if shell == "pwsh":
        shown.stdout = shown.stdout.replace("complete_powershell", "complete_pwsh")  # one is the other
    for word in ("bitnet", f"complete_{shell}"):
        assert word in shown.stdout
    if shell in ("powershell", "pwsh"):
        assert re.search(r"^Register-ArgumentCompleter .*-CommandName bitnet\b", shown.stdout, re.MULTILINE)
        if shutil.which(shell) is None:
            pytest.skip(f"NOT TESTED: whether {shell} reads its script. It is not installed")
        script = f"[ScriptBlock]::Create((Get-Content -Raw {tmp_path / 'script'})) | Out-Null"
        (tmp_path / "script").write_text(shown.stdout)
        read = subprocess.run([shell, "-NoProfile", "-Command", script], capture_output=True, text=True)
        assert (read.returncode, read.stderr) == (0, "")
        return
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TESTED: whether {shell} reads its script. It is not installed")
    (tmp_path / "script").write_text(shown.stdout)
    parsed = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True)
    assert (parsed.returncode, parsed.stderr) == (0, "")
