"""What the documentation shows works: its Python blocks run, its `bitnet` commands succeed, its links lead somewhere.

The blocks of one page run in order, in a directory that has a text in shakespeare.txt, and where a checkout has it. ```python blocks
share one namespace. Of ```sh blocks the lines that start with `bitnet ` or `python -m bench ` run. A block with title="NAME" is written to that file. A block that
cannot run here is preceded by the line `<!-- not run: why -->`, a server by `<!-- in the background: until the page ends -->`: it gets
a free port, which later blocks have in place of the one shown.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

import bitnet_rust
from bitnet_rust import cli
from conftest import no_tracer_provider
from hub_server import HubServer

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "bench").glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_BLOCK = re.compile(
    r"^(?:<!-- (not run|in the background): [^\n]+ -->\n)?```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int  # of the first line of text in the page
    title: str | None = None
    background: bool = False


def runnable(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(m[2], m[4], text.count("\n", 0, m.start(4)) + 1, m[3], m[1] == "in the background")
        for m in _BLOCK.finditer(text)
        if m[1] != "not run" and (m[2] in ("python", "sh") or m[3])
    ]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    no_tracer_provider(monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # python -m bench
    text = (ROOT / "recipes" / "data" / "tinyshakespeare.txt").read_text()[:40_000]
    Path("recipes/data").mkdir(parents=True)
    for place in ("shakespeare.txt", "recipes/data/tinyshakespeare.txt"):
        Path(place).write_text(text)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_run(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    with ExitStack() as stack:
        ports: dict[str, str] = {}  # as shown, and as they are
        for block in runnable(page):
            text = block.text
            for shown, real in ports.items():
                text = text.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{real}")
            if block.title:
                Path(block.title).write_text(text)
            elif block.language == "python":
                padded = "\n" * (block.line - 1) + text  # so that tracebacks name the page's own lines
                exec(compile(padded, str(page), "exec"), namespace)
            elif block.background:
                ports |= started(text, stack)
            else:
                for command in commands(text):
                    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
                    where = f"{page.name}:{block.line}: {shlex.join(command)}"
                    assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a block that are ours, as arguments."""
    for command in text.replace("\\\n", " ").splitlines():
        command = command.split(" #")[0].strip()
        if command.startswith("bitnet "):
            yield [sys.executable, "-m", "bitnet_rust", *shlex.split(command)[1:]]
        elif command.startswith("python -m bench "):
            yield [sys.executable, *shlex.split(command)[1:]]


def started(text: str, stack: ExitStack) -> dict[str, str]:
    """Starts the server of a block on a free port; gives the port that it is shown with, and its own."""
    (command,) = commands(text)
    at = command.index("--port") + 1
    shown, command[at] = command[at], "0"
    with Path("server.log").open("w") as log:
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True))
    stack.callback(server.terminate)
    assert server.stdout is not None
    address = server.stdout.readline().strip()  # which it prints when it listens
    assert address, Path("server.log").read_text()
    return {shown: address.rpartition(":")[2].rstrip("/")}


@pytest.mark.full
def test_the_python_blocks_of_the_page_about_pytorch_run(hub: HubServer) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    hub.repositories["openai-community/gpt2"] = ROOT / "tests_go" / "testdata" / "parity" / "gpt2_float32"
    page = ROOT / "docs" / "how-to" / "pytorch.md"
    shown = page.read_text().replace("<!-- not run: without PyTorch -->\n", "")
    namespace: dict[str, object] = {"__name__": "__main__"}
    blocks = [m[4] for m in _BLOCK.finditer(shown)]
    assert len(blocks) >= 4
    for text in blocks:
        exec(compile(text, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_of_code_is_known(page: Path) -> None:
    """One whose fence or comment is written in another way would not run, and nobody would know."""
    text = page.read_text()
    assert len(_BLOCK.findall(text)) == len(re.findall(r"^[ >]*```+ *(?:\w|\{)", text, re.MULTILINE))
    comments = re.findall(r"^(<!-- [^\n]+ -->)\n```", text, re.MULTILINE)
    assert [c for c in comments if not re.match(r"<!-- (not run|in the background): ", c)] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files(page: Path) -> None:
    broken = [
        target
        for target, _ in _LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_the_messages_of_the_troubleshooting_page_exist() -> None:
    code = [
        *(ROOT / "python").rglob("*.py"),
        ROOT / "setup.py",
        *(ROOT / "core").rglob("*.go"),
        *(ROOT / "accel").rglob("*.go"),
        *(ROOT / "bindings").glob("*.c"),
    ]
    text = "".join(path.read_text() for path in code if not path.name.endswith("_test.go"))
    headings = re.findall(r"^### `.+", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    messages = [message for heading in headings for message in re.findall(r"`(.+?)`", heading)]
    assert len(messages) > 20
    parts = [part.strip() for message in messages for part in message.split("...")]
    assert [part for part in parts if part not in text] == []


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
    sources = [
        *(ROOT / "accel").rglob("*.go"),
        *(ROOT / "bindings").glob("*.c"),
        *(ROOT / "core").rglob("*.go"),
        *(ROOT / "python").rglob("*.py"),
    ]
    used = {
        name
        for path in sources
        if not path.name.endswith("_test.go")
        for name in re.findall(r"\"(BITNET_[A-Z_]+)\"", path.read_text())
    }
    assert used
    text = (ROOT / "README.md").read_text()
    assert [name for name in sorted(used) if f"`{name}`" not in text] == []
