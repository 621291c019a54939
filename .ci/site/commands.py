"""The reference of the `bitnet` command, made of what `--help` is made of."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

from bitnet_rust import cli
from bitnet_rust.cli.examples import EXAMPLES


def command_pages() -> str:
    """A section for each command."""
    root = typer.main.get_command(cli.app)
    return "\n".join(part for path, command in _leaves(root, ("bitnet",)) for part in _section(path, command))


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands below one that are no groups, with their words."""
    for name, part in command.commands.items():
        if part.hidden:
            continue
        if hasattr(part, "commands"):
            yield from _leaves(part, (*path, name))
        else:
            yield (*path, name), part


def _section(path: tuple[str, ...], command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=" ".join(path))
    yield f"### {' '.join(path)} {{#{'-'.join(path)}}}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ').strip()}\n```\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    records = [parameter.get_help_record(context) for parameter in command.params]
    shown = [record for record in records if record is not None]  # the others are hidden
    if shown:
        yield "| argument or option | |\n| --- | --- |"
        yield from (f"| `{names}` | {_cell(text)} |" for names, text in shown)
        yield ""
    if examples := EXAMPLES.get(" ".join(path[1:])):
        yield "Examples:\n\n```sh\n" + "\n".join(examples) + "\n```\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")
