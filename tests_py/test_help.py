"""What --help shows works, and shells complete commands."""

import os
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


def test_bash_completes_commands_and_options() -> None:
    def complete(words: str) -> list[str]:
        env = os.environ | {
            "_BITNET_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        command = [sys.executable, "-c", "from bitnet_rust.cli import run; run()"]
        return subprocess.run(command, env=env, capture_output=True, text=True).stdout.split()

    assert complete("bitnet gen") == ["generate"]
    assert complete("bitnet generate --temp") == ["--temperature"]
