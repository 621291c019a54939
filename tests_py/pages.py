"""The pages of the documentation and their blocks of code, and what a block of each language has to be."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import typer.main
import yaml

from bitnet_rust import BitNetConfig, cli
from bitnet_rust.cli.defaults import variables
from conftest import REPO

PAGES = sorted(
    [*REPO.glob("*.md"), *(page for part in (".github", "bench", "docs", "python") for page in (REPO / part).rglob("*.md"))]
)  # fmt: skip

# Blocks that nothing here reads, by their language. Those without one are words, and how many there are is said beside them.
EXCEPTIONS = {
    "go": "tests in Go run them: tests_go/embed_test.go and core/pool/example_test.go",
    "nginx": "its own program alone can tell whether they are right",
}
WITHOUT_A_LANGUAGE = {"docs/architecture.md": 2}  # pictures made of letters
# Programs of other people whose command lines nothing here reads; those of a `make`, a `pip` or a `docker` are, as far as they name what is ours.
OTHER_PROGRAMS = (
    "go",
    "huggingface-cli",
    "jupyter",
    "python setup_env.py",
    "python run_inference.py",
    "python -m venv",
)

_BLOCK = re.compile(
    r"^(?:<!-- (not run|run with|in the background): ([^\n]+) -->\n)?```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of a page. `how` is what the comment before it says, if there is one, and `why` the rest of that comment."""

    page: Path
    language: str
    text: str
    line: int  # of the first line of text in the page
    title: str | None
    how: str | None
    why: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPO)}:{self.line}"

    def run(self, text: str, namespace: dict[str, object]) -> None:
        """Runs Python, its text as it stands or with other ports."""
        padded = "\n" * (self.line - 1) + text  # so that tracebacks name the page's own lines
        exec(compile(padded, str(self.page), "exec"), namespace)


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, m[3], m[5], text.count("\n", 0, m.start(5)) + 1, m[4], m[1], m[2]) for m in _BLOCK.finditer(text)
    ]


def lines(text: str) -> list[str]:
    """The commands of a block of a shell, without what follows a #."""
    joined = text.replace("\\\n", " ").splitlines()
    return [line for line in (line.split(" #")[0].strip() for line in joined) if line and not line.startswith("#")]


def ours(line: str) -> list[str] | None:
    """A command line of this package, as arguments that run it."""
    if line.startswith("bitnet "):
        return [sys.executable, "-m", "bitnet_rust", *shlex.split(line)[1:]]
    if line.startswith("python -m bench "):
        return [sys.executable, *shlex.split(line)[1:]]
    return None


def succeed(command: list[str], where: str, **environment: str) -> str:
    """What a command prints, whose exit status has to be 0."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, f"{where}: {shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


# --- blocks that do not run ------------------------------------------------------------------------------------------


def hold(block: Block) -> None:
    """Fails unless a block that does not run is right as far as this package can tell."""
    if block.language not in EXCEPTIONS:
        assert block.language in _HELD, f"{block}: no test knows what a block of {block.language} has to be"
        _HELD[block.language](block)


def _python(block: Block) -> None:
    compile(block.text, str(block), "exec")


def _sh(block: Block) -> None:
    for line in lines(block.text):
        for command in line.split(" && "):
            hold_command(command, str(block))


def hold_command(line: str, where: str) -> None:
    """Fails unless a command line that is not run names commands, options, targets and files that there are."""
    words = shlex.split(line.split(" < ")[0])
    if Path(words[0]).name == "opentelemetry-instrument" or "=" in words[0]:
        hold_command(shlex.join(words[1:]), where)  # a program that starts another one, a variable before it
        return
    program, arguments = Path(words[0]).name, words[1:]
    if program == "bitnet":
        parse(arguments, where)
    elif words[:3] == ["python", "-m", "bench"]:
        parse(["bench", *words[3:]], where)
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (REPO / "Makefile").read_text(), re.MULTILINE), f"{where}: {line}"
    elif program == "pip":
        for extra in re.findall(r"(?:bitnet-rust|\.)\[([^\]]+)\]", line):
            assert set(extra.split(",")) <= set(project()["optional-dependencies"]), f"{where}: {line}"
    elif program == "docker":
        _docker(arguments, where)
    elif words[:3] == ["serve", "run", "bitnet_rust.integrations.ray:application"]:
        pass  # test_what_the_page_says_of_ray_runs has it
    else:
        known = any(line == other or line.startswith(f"{other} ") for other in (*OTHER_PROGRAMS, "."))
        assert known, f"{where}: no test knows what this is: {line}"


def parse(arguments: list[str], where: str) -> None:
    """Fails unless these are arguments that `bitnet`, or `python -m bench`, would take."""
    from bench.__main__ import COMMANDS

    command: Any = typer.main.get_command(cli.app)
    path, context = ["bitnet"], None
    while hasattr(command, "commands"):
        context = command.context_class(command, parent=context, info_name=path[-1])
        name, *arguments = arguments
        if path[1:] == ["bench"] and name in COMMANDS:
            app = typer.Typer()
            app.command(name)(COMMANDS[name])
            command = typer.main.get_command(app)
        else:
            assert name in command.commands, f"{where}: {' '.join(path)} has no command {name}"
            command = command.commands[name]
        path.append(name)
    try:
        command.make_context(path[-1], list(arguments), context)
    except Exception as error:
        raise AssertionError(f"{where}: {shlex.join([*path, *arguments])}: {error}") from error


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    return found


def _docker(arguments: list[str], where: str) -> None:
    dockerfile = (REPO / "Dockerfile").read_text()
    if arguments[0] == "build":
        for i, word in enumerate(arguments):
            if word == "--build-arg":
                assert f"\nARG {arguments[i + 1].partition('=')[0]}" in dockerfile, f"{where}: {arguments[i + 1]}"
    else:
        assert arguments[0] == "run"
        _container(arguments[arguments.index("bitnet") + 1 :], where)


def _container(arguments: list[str], where: str) -> None:
    """Arguments after an image's name, which go to its entry point."""
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", (REPO / "Dockerfile").read_text(), re.MULTILINE)
    parse([*json.loads(entry)[1:], *arguments], where)


def _yaml(block: Block) -> None:
    """A recipe, a model's configuration, or a part of a pod: its fields say which."""
    fields = yaml.safe_load(block.text)
    path = Path("read.yaml")
    path.write_text(block.text)
    if "applications" in fields:
        assert fields["applications"], str(block)  # test_what_the_page_says_of_ray_runs reads them
    elif "spec" in fields:
        for container in fields["spec"]["containers"]:
            _container(container["args"], str(block))
            known = [*variables(typer.main.get_command(cli.app)), "BITNET_API_KEYS"]
            assert {variable["name"] for variable in container["env"]} <= set(known), str(block)
    elif "preset" in fields:
        BitNetConfig.from_file(path)
    else:
        command = "finetune" if "pretrained" in fields["model"] else "train"
        small = (
            "--max-steps",
            "1",
            "--set",
            "training.batch_size=1",
            "--set",
            "training.warmup_steps=0",
            "--out",
            "read",
        )
        succeed([sys.executable, "-m", "bitnet_rust", command, "--config", str(path), *small], str(block))


def _toml(block: Block) -> None:
    """A settings file, with tables for commands."""
    Path("read.toml").write_text(block.text)

    def tables(fields: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        below = {name: value for name, value in fields.items() if isinstance(value, dict)}
        for name, value in below.items():
            yield from tables(value, (*path, name))
        if path and len(below) < len(fields):
            yield path

    for command in [("config", "show"), *((*table, "--help") for table in tables(tomllib.loads(block.text)))]:
        succeed([sys.executable, "-m", "bitnet_rust", *command], str(block), BITNET_CONFIG="read.toml")


def _json(block: Block) -> None:
    """A line of the log of the server that the page has started: what a request says, in its fields."""
    shown = json.loads(block.text)
    logged = [json.loads(line) for line in Path("server.log").read_text().splitlines() if line.startswith("{")]
    like = [line for line in logged if all(line.get(name) == shown[name] for name in ("event", "path", "status"))]
    assert [line for line in like if line.keys() == shown.keys()], f"{block}: the server logs {like[:1]}"
    assert all(type(line[name]) is type(value) for line in like for name, value in shown.items() if name in line)


def _ini(block: Block) -> None:
    """A unit of systemd that starts the server."""
    unit = configparser.ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#", strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block.text.replace("\\\n", " "))
    program, *arguments = unit["Service"]["ExecStart"].split()
    assert Path(program).name == "bitnet"
    parse(arguments, str(block))
    drain = float(arguments[arguments.index("--drain-timeout") + 1])
    assert float(unit["Service"]["TimeoutStopSec"]) > drain, str(block)


_HELD: dict[str, Callable[[Block], None]] = {
    "python": _python, "sh": _sh, "yaml": _yaml, "toml": _toml, "json": _json, "ini": _ini,
}  # fmt: skip
