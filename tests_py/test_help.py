"""What --help shows works, and shells complete commands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bitnet_rust import cli
from bitnet_rust.cli.examples import EXAMPLES
from conftest import Terminal

# They need a model that is downloaded, or a run that the page about fine-tuning shows.
NOT_RUN = ("bitnet chat --model bitnet-2b", "bitnet finetune", "bitnet serve")


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


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not name.startswith("bench")])
def test_the_examples_run(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("First Citizen:\nBefore we proceed any further, hear me speak.\n" * 40)
    (tmp_path / "template.jinja").write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for example in EXAMPLES[name]:
        if not example.startswith(NOT_RUN):
            done = subprocess.run(
                example, shell=True, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{example}\n{done.stdout}{done.stderr}"


COMMAND = [sys.executable, "-c", "from bitnet_rust.cli import run; raise SystemExit(run())"]


def complete(shell: str, words: str) -> list[str]:
    """What the command answers the shell's script when Tab is pressed after these words."""
    asked = {
        "bash": {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": words},
        "fish": {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    env = os.environ | {"_BITNET_COMPLETE": f"complete_{shell}"} | asked
    answer = subprocess.run(COMMAND, env=env, capture_output=True, text=True).stdout
    if shell == "zsh":  # _arguments '*: :(("word":"help"
        return re.findall(r'^(?:_arguments .*\(\()?"([^"]+)"', answer, re.MULTILINE)
    return [line.partition("\t")[0] for line in answer.splitlines() if line]  # fish: word, tab, help


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_options_and_choices(shell: str) -> None:
    assert complete(shell, "bitnet gen") == ["generate"]
    assert complete(shell, "bitnet generate --temp") == ["--temperature"]
    assert complete(shell, "bitnet config p") == ["path"]
    assert complete(shell, "bitnet serve --mode l") == ["latency"]
    assert complete(shell, "bitnet no-such-command x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_completes_is_a_script_of_the_shell(shell: str, tmp_path: Path) -> None:
    shown = subprocess.run(
        COMMAND, env=os.environ | {"_BITNET_COMPLETE": f"source_{shell}"}, capture_output=True, text=True
    )
    assert shown.returncode == 0
    for word in ("bitnet", f"complete_{shell}"):
        assert word in shown.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TESTED: whether {shell} reads its script. It is not installed")
    (tmp_path / "script").write_text(shown.stdout)
    parsed = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True)
    assert (parsed.returncode, parsed.stderr) == (0, "")
