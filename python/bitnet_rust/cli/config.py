"""bitnet config: what is set, where, and in which file it would be."""

import os
from typing import Any

import typer

from ..configuration import Value, settings, unknown_variables
from ..errors import ArgumentError
from .defaults import Default, defaults, variables
from .options import AsJSON
from .output import cell, print_json, print_table

app = typer.Typer(help="Show the settings in force.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Show the settings in force and where they come from."""


@app.command("show")
def show(context: typer.Context, as_json: AsJSON = False) -> None:
    """Show each setting, its value and what said so: an argument, the environment, the file or the default.

    Defaults of commands' options that the environment or the file changes follow. Exit status 1 when something there cannot be honoured.
    """
    found = settings.show()
    root = context.find_root().command
    options, unknown = defaults(root), unknown_variables(variables(root))
    usable = [default for default in options if not default.error]
    errors = [value.error for value in found if value.error] + settings.errors + _core_errors()
    errors += [default.error for default in options if default.error]
    if as_json:
        print_json(
            {
                "path": settings.path,
                "settings": {value.setting.name: _fields(value) for value in found},
                "options": {_title(d): {"value": _value(d), "source": d.place} for d in usable},
                "unknown_variables": unknown,
                "errors": errors,
            }
        )
    else:
        print_table(
            ["setting", "value", "source", ""],
            [[value.setting.name, _shown(value), value.source, value.place or ""] for value in found],
        )
        if usable:
            print()
            print_table(["option", "value", "source"], [[_title(d), str(_value(d)), d.place] for d in usable])
        for name in unknown:
            print(f"\n{name} in the environment is not known")
    if errors:
        raise ArgumentError("; ".join(errors))


@app.command("path")
def path(as_json: AsJSON = False) -> None:
    """Print where the settings file is, be there one or not."""
    if settings.path is None:
        raise ArgumentError("there is no home directory for a settings file: name one with BITNET_CONFIG")
    if as_json:
        print_json({"path": settings.path, "exists": os.path.exists(settings.path)})
    else:
        print(settings.path)


def _core_errors() -> list[str]:
    from ..runtime import build_info

    return [error for error in build_info()["environment_errors"] if error not in settings.errors]


def _fields(value: Value) -> dict[str, Any]:
    return {
        "value": _hidden(value),
        "source": value.source,
        "place": value.place,
        "variable": value.setting.variable,
        "error": value.error,
        "help": value.setting.help,
    }


def _hidden(value: Value) -> Any:
    return "(secret)" if value.setting.secret and value.value is not None else value.value


def _shown(value: Value) -> str:
    hidden = _hidden(value)
    return "" if hidden is None else cell(hidden)


def _title(default: Default) -> str:
    return f"{' '.join(default.path)} --{default.option.replace('_', '-')}"


def _value(default: Default) -> Any:
    return "(secret)" if default.secret else default.value
