"""Defaults of commands' options in the environment, BITNET_GENERATE_TOP_K, and in the settings file, [generate] top_k."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import typer

from ..configuration import PREFIX, in_environment, near, settings
from .options import COMMON

UsageError: Any = typer.BadParameter.__base__  # typer has it under no name of its own


class Default(NamedTuple):
    """Another default of an option than the command's own, or a line of the file that was meant to be one.

    path: names of group and command, ("bench", "decode").
    option: its name in the file, "top_k".
    value: as it stands there.
    place: the variable or the file.
    error: what is wrong with it, or None.
    secret: the value is not shown.
    """

    path: tuple[str, ...]
    option: str
    value: Any
    place: str
    error: str | None = None
    secret: bool = False


def option_names(command: Any) -> dict[str, Any]:
    """A command's own options by the name that the settings file has for them: the long one, with underscores."""
    names = {_long(parameter): parameter for parameter in command.params if parameter.name not in ("help", *COMMON)}
    names.pop("", None)  # arguments
    return names


def _long(parameter: Any) -> str:
    return next((option[2:].replace("-", "_") for option in parameter.opts if option.startswith("--")), "")


def variable(path: tuple[str, ...], option: str) -> str:
    """The environment variable of a command's option."""
    return PREFIX + "_".join([*path, option]).upper().replace("-", "_")


def variables(root: Any) -> list[str]:
    """Those of all options of all commands."""
    return [
        variable(path, option)
        for path, command in _commands(root)
        if not hasattr(command, "commands")
        for option in option_names(command)
    ]


def defaults(root: Any) -> list[Default]:
    """All that the environment and the file say about the options of commands."""
    return [default for path, command in _commands(root) for default in _of(command, path)]


def errors(root: Any) -> list[str]:
    """What is wrong with them, a sentence each."""
    return [default.error for default in defaults(root) if default.error]


def defaults_of(root: Any, path: tuple[str, ...]) -> list[Default]:
    """Those of one command, and what the file has in the tables of the groups it is in and no command is."""
    found, command = _of(root, ()), root
    for depth, name in enumerate(path):
        command = command.commands[name]
        found += _of(command, path[: depth + 1])
    return found


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and those in it, if it is a group, with their names."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


def _of(command: Any, path: tuple[str, ...]) -> list[Default]:
    return _of_group(command, path) if hasattr(command, "commands") else _of_command(command, path)


def _of_group(group: Any, path: tuple[str, ...]) -> list[Default]:
    """What the file has in the group's table and is no table of a command."""
    found, names = [], list(group.commands)
    for name, value in settings.command(*path).items():
        table = ".".join((*path, name))
        if isinstance(value, dict) and name not in names:
            wrong = f"[{table}] is no command of {' '.join(('bitnet', *path))}{near(name, names)}"
        elif path and not isinstance(value, dict):  # at the top it is a setting
            wrong = f"[{'.'.join(path)}] {name} = {value!r}: expected tables of its commands, {', '.join(names)}"
        else:
            continue
        found.append(Default(path, name, value, str(settings.path), f"{settings.path}: {wrong}"))
    return found


def _of_command(command: Any, path: tuple[str, ...]) -> list[Default]:
    """What the environment and the file say about a command's options. Each also gets the name of its variable, which typer reads."""
    table, named, file = settings.command(*path), option_names(command), str(settings.path)
    hints = {name: parameter.annotation for name, parameter in inspect.signature(command.callback).parameters.items()}
    context: Any = command.context_class(command, info_name=path[-1])
    found = []
    for name, option in named.items():
        ours, hint, secret = variable(path, name), hints[option.name], option.hide_input
        own = [option.envvar] if isinstance(option.envvar, str) else [v for v in option.envvar or () if v != ours]
        option.envvar, option.show_envvar = [ours, *own], False
        if text := in_environment(ours):
            value, place, said = text, ours, f"{ours} = {'...' if secret else repr(text)} in the environment"
            unusable = _refused(option, context, option.value_from_envvar(context))
            option.envvar = own if unusable else option.envvar
        elif name in table:
            value, place = table[name], file
            said = f"{file}: [{'.'.join(path)}] {name} = {'...' if secret else repr(value)}"
            unusable = not _fits(value, hint) or _refused(option, context, value)
        else:
            continue
        found.append(
            Default(path, name, value, place, f"{said}: expected {_expected(hint)}" if unusable else None, secret)
        )
    for name, value in table.items():
        if name not in named:
            wrong = f"bitnet {' '.join(path)} has no such option{near(name, list(named))}"
            found.append(Default(path, name, value, file, f"{file}: [{'.'.join(path)}] {name} = {value!r}: {wrong}"))
    return found


def _refused(option: Any, context: Any, value: Any) -> bool:
    """Whether typer does not take the value, of the right type or a variable's text."""
    try:
        option.process_value(context, value)
    except UsageError:
        return True
    return False


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of the file has an option's type; typer alone would take true for 1."""
    kind, _ = _kind(hint)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    types: dict[Any, Any] = {int: int, float: (int, float)}
    return isinstance(value, types.get(kind, str))


def expected(command: Any, option: Any) -> str:
    """What an option of a command takes each time it is typed, in words."""
    kind, info = _kind(inspect.signature(command.callback).parameters[option.name].annotation)
    return _words(get_args(kind)[0] if get_origin(kind) is list else kind, info)


def _expected(hint: Any) -> str:
    """What the file and the environment have to have, in words."""
    kind, info = _kind(hint)
    return f"a list of {_words(get_args(kind)[0], info, 1)}" if get_origin(kind) is list else _words(kind, info)


def _words(kind: Any, info: Any, many: int = 0) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    least, most = getattr(info, "min", None), getattr(info, "max", None)
    bounds = f" from {least} to {most}" if most is not None else f" of at least {least}" if least is not None else ""
    words = {
        bool: ("true or false", ""),
        int: (f"a whole number{bounds}", f"whole numbers{bounds}"),
        float: (f"a number{bounds}", f"numbers{bounds}"),
        Path: ("a path", "paths"),
    }
    return words.get(kind, ("a text", "texts"))[many]


def choices(hint: Any) -> tuple[str, ...]:
    """The words that an option takes, if it takes no others."""
    kind, _ = _kind(hint)
    return get_args(kind) if get_origin(kind) is Literal else ()


def _kind(hint: Any) -> tuple[Any, Any]:
    """An option's type, less None, and what typer was told about it."""
    info = None
    if get_origin(hint) is Annotated:
        hint, info, *_ = get_args(hint)
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if get_origin(hint) not in (list, Literal) and kinds:
        hint = kinds[0]
    return hint, info
