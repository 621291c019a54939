"""What all commands have: options for how they speak, defaults from the environment and the settings file, examples, tracebacks."""

import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from ..configuration import PREFIX, Format, Level, near, settings
from ..errors import ArgumentError
from .examples import EXAMPLES
from .output import fail, speak_json

Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing on standard error but errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
LogLevel = Annotated[
    Level | None,
    typer.Option(
        "--log-level", help="Print log records from that level on.", show_default="warning", case_sensitive=False
    ),
]
LogFormat = Annotated[
    Format | None,
    typer.Option("--log-format", help="How log records are printed.", show_default="text", case_sensitive=False),
]
_UsageError: Any = typer.BadParameter.__base__  # typer has it under no name of its own
_COMMON = {
    "quiet": (Quiet, False),
    "debug": (Debug, False),
    "log_level": (LogLevel, None),
    "log_format": (LogFormat, None),
}

# Commands that have to work when the settings file is wrong, as they show what is.
_TOLERANT = ("config", "info", "doctor")


def said(**options: Any) -> dict[str, Any]:
    """Those of the common options that were given."""
    return {name: value for name, value in options.items() if value not in (None, False)}


class Command(TyperCommand):
    """A command whose options have defaults in the environment, BITNET_GENERATE_TOP_K, and in the file, [generate] top_k."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Gives the options the variables and the lines of the file that are their defaults."""
        speak_json("--json" in args)
        path = [*(parent.command_path.split()[1:] if parent else ()), info_name]
        named = option_names(self)
        for name, option in named.items():
            option.envvar, option.show_envvar = option.envvar or variable(path, name), False
        table = settings.command(*path)
        for name in table:
            if name not in named:
                raise ArgumentError(
                    f"{settings.path}: [{'.'.join(path)}] {name}: bitnet {' '.join(path)} has no such option{near(name, list(named))}"
                )
        defaults = {named[name].name: value for name, value in table.items()}
        self._path = path
        return super().make_context(info_name, args, parent, default_map=defaults, **extra)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Says of a value that was not typed where it stands."""
        as_json = "--json" in args  # which parsing empties
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            error.message = error.message.removeprefix(
                "Value error, "
            )  # pydantic's, by which newer typers check choices
            parameter = getattr(error, "param", None)
            source = ctx.get_parameter_source(parameter.name) if parameter is not None else None
            place = {
                "DEFAULT_MAP": f"in [{'.'.join(self._path)}] of {settings.path}",
                "ENVIRONMENT": f"in the environment, {variable(self._path, _long(parameter))}" if parameter else "",
            }
            if source is not None and source.name in place:
                error.message = f"{error.message} ({place[source.name]})"
            if as_json:
                raise _ended(error) from error
            raise

    def invoke(self, ctx: Any) -> Any:
        """Runs the command, unless the settings file is wrong."""
        if self._path[0] not in _TOLERANT:
            settings.check()
        return super().invoke(ctx)


def _ended(error: Any) -> typer.Exit:
    """The end of a command that was used wrongly, where its errors are JSON."""
    return typer.Exit(fail(" ".join(error.format_message().split()), 2, error))


def option_names(command: Any) -> dict[str, Any]:
    """A command's own options by the name that the settings file has for them: the long one, with underscores."""
    names = {_long(parameter): parameter for parameter in command.params if parameter.name not in ("help", *_COMMON)}
    names.pop("", None)  # arguments
    return names


def _long(parameter: Any) -> str:
    """An option's long name, with underscores."""
    return next((option[2:].replace("-", "_") for option in parameter.opts if option.startswith("--")), "")


def variable(path: list[str], option: str) -> str:
    """The environment variable of a command's option."""
    return PREFIX + "_".join([*path, option]).upper().replace("-", "_")


def variables(group: Any, path: tuple[str, ...] = ()) -> list[str]:
    """Those of all options of a group's commands."""
    found = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += variables(command, (*path, name))
        else:
            found += [variable([*path, name], option) for option in option_names(command)]
    return found


def prepare(app: typer.Typer, path: tuple[str, ...] = ()) -> None:
    """Gives all commands of an app what this file is about."""
    for registered in app.registered_commands:
        function = registered.callback
        if function is None or registered.cls is Command:
            continue
        name = registered.name or function.__name__
        registered.cls, registered.callback = Command, _with_common_options(function, [*path, name][0])
        examples = EXAMPLES.get(" ".join([*path, name]), ())
        registered.epilog = "\n\n".join(["Examples:", *examples]) if examples else None
    for group in app.registered_groups:
        if group.typer_instance is not None:
            prepare(group.typer_instance, (*path, str(group.name)))


def _with_common_options(function: Callable[..., Any], command_name: str) -> Callable[..., Any]:
    """The function of a command with the common options after its own."""

    @functools.wraps(function)
    def command(**options: Any) -> Any:
        common = said(**{name: options.pop(name) for name in _COMMON})
        with settings.override(**common), logging(command_name):
            in_json = _errors_are_json(command_name, bool(options.get("as_json")))
            speak_json(in_json)
            try:
                return function(**options)
            except Exception as error:
                if in_json and isinstance(error, _UsageError):
                    raise _ended(error) from error
                if settings.look("debug", strict=False).value:
                    traceback.print_exc()
                raise

    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters.values()
    parameters = [parameter.replace(annotation=hints.get(parameter.name, parameter.annotation)) for parameter in own]
    for name, (annotation, default) in _COMMON.items():
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return command


# What a server says without being asked.
_SERVICE = {"log_level": "info", "log_format": "json"}


def logging(command: str, logger: str | None = None) -> AbstractContextManager[None]:
    """Log records on standard error, as the settings say; of another logger than the package's from warnings on."""
    from .. import logs

    level, form = (_log_setting(name, command) for name in ("log_level", "log_format"))
    if logger is None:
        return logs.to_stderr(level, form)
    return logs.to_stderr("error" if level in ("error", "critical") else "warning", form, logger)


def _errors_are_json(command: str, as_json: bool) -> bool:
    """Whether what goes wrong is said in JSON: where the result is, or the log."""
    chosen = settings.look("log_format", strict=False)
    if chosen.source == "default" and command == "serve" and sys.stderr.isatty():
        return as_json  # somebody looks
    return as_json or _log_setting("log_format", command) == "json"


def _log_setting(name: str, command: str) -> str:
    chosen = settings.look(name, strict=command not in _TOLERANT)
    if chosen.source != "default":
        return str(chosen.value)
    if name == "log_level" and settings.look("quiet", strict=command not in _TOLERANT).value:
        return "error"
    return _SERVICE[name] if command == "serve" else str(chosen.value)
