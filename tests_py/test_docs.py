"""What the documentation shows works: its Python blocks run, its `bitnet` commands succeed, its links lead somewhere.

The ```python blocks of one page run in order in one namespace, in an empty directory. Of ```sh blocks the lines that start with
`bitnet ` or `python -m bench ` run. A block that cannot run here is preceded by the line `<!-- not run: why -->`.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

import bitnet_rust
from bitnet_rust import cli
from hub_server import HubServer

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "bench").glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int  # of the first line of text in the page


def runnable(page: Path, language: str) -> list[Block]:
    text = page.read_text()
    return [
        Block(m[2], m[3], text.count("\n", 0, m.start(3)) + 1)
        for m in _BLOCK.finditer(text)
        if m[2] == language and not m[1]
    ]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_blocks_run(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in runnable(page, "python"):
        padded = "\n" * (block.line - 1) + block.text  # so that tracebacks name the page's own lines
        exec(compile(padded, str(page), "exec"), namespace)


@pytest.mark.full
def test_the_python_blocks_of_the_page_about_pytorch_run(hub: HubServer) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    hub.repositories["openai-community/gpt2"] = ROOT / "tests_go" / "testdata" / "parity" / "gpt2_float32"
    page = ROOT / "docs" / "how-to" / "pytorch.md"
    shown = page.read_text().replace("<!-- not run: without PyTorch -->\n", "")
    namespace: dict[str, object] = {"__name__": "__main__"}
    blocks = [m[3] for m in _BLOCK.finditer(shown)]
    assert len(blocks) >= 4
    for text in blocks:
        exec(compile(text, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_succeed(page: Path) -> None:
    env = dict(os.environ, NO_COLOR="1", PYTHONPATH=str(ROOT))
    for block in runnable(page, "sh"):
        for command in block.text.replace("\\\n", " ").splitlines():
            command = command.split(" #")[0].strip()
            if command.startswith("bitnet "):
                argv = [sys.executable, "-m", "bitnet_rust", *shlex.split(command)[1:]]
            elif command.startswith("python -m bench "):
                argv = [sys.executable, *shlex.split(command)[1:]]
            else:
                continue
            done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            assert done.returncode == 0, f"{page.name}:{block.line}: {command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files(page: Path) -> None:
    broken = [
        target
        for target, _ in _LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def reference(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text()


def test_the_command_line_reference_has_every_command() -> None:
    text = reference("cli.md")
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"`bitnet {name}" not in text] == []
    listed = re.search(r"`bitnet (\w+( \| \w+)+)`", (ROOT / "README.md").read_text())
    assert listed is not None
    assert set(listed[1].split(" | ")) == set(commands)


def test_every_option_says_what_it_is() -> None:
    """The site's reference of options is made of these texts."""

    def parameters(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, part in getattr(command, "commands", {}).items():
            yield from parameters(part, f"{path} {name}")
        yield from ((f"{path} {parameter.name}", parameter) for parameter in command.params)

    everything = list(parameters(typer.main.get_command(cli.app), "bitnet"))
    assert len(everything) > 100
    assert [name for name, p in everything if not p.hidden and not p.help] == []


def test_the_sampling_reference_has_every_option() -> None:
    text = reference("sampling.md")
    assert [name for name in bitnet_rust.SamplingOptions.__annotations__ if f"`{name}" not in text] == []


def test_every_environment_variable_is_in_the_readme() -> None:
    sources = [*(ROOT / "accel").rglob("*.go"), *(ROOT / "core").rglob("*.go"), *(ROOT / "python").rglob("*.py")]
    used = {
        name
        for path in sources
        if not path.name.endswith("_test.go")
        for name in re.findall(r"\"(BITNET_[A-Z_]+)\"", path.read_text())
    }
    assert used
    text = (ROOT / "README.md").read_text()
    assert [name for name in sorted(used) if f"`{name}`" not in text] == []
