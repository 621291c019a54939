"""What all commands have: options for how they speak, defaults from the environment and the settings file, examples, tracebacks."""

import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from .. import logs
from ..configuration import settings
from ..errors import ArgumentError, without_orders
from .defaults import choices, defaults_of, option_names
from .examples import EXAMPLES
from .options import COMMON
from .output import speak_json, speak_of_options
from .wording import in_options

# Commands that have to work when the settings file is wrong, as they show what is.
_TOLERANT = ("config", "info", "doctor")


def said(**options: Any) -> dict[str, Any]:
    """Those of the common options that were given."""
    return {name: value for name, value in options.items() if value not in (None, False)}


class _Help:
    """Flags take no value, so that help shows no type of it; between words that others take lines may break."""

    callback: Callable[..., Any] | None

    def get_params(self, ctx: Any) -> Any:
        parameters = super().get_params(ctx)  # type: ignore[misc]
        arguments = inspect.signature(self.callback).parameters if self.callback else {}
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
            elif parameter.name in arguments and (words := choices(arguments[parameter.name].annotation)):
                parameter.metavar = f"<{' | '.join(words)}>"
        return parameters


class Group(_Help, TyperGroup):
    """The command itself, and those that have commands."""


class Command(_Help, TyperCommand):
    """A command whose options have defaults in the environment, BITNET_GENERATE_TOP_K, and in the file, [generate] top_k."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Gives the options the variables and the lines of the file that are their defaults; ArgumentError where these are wrong.

        Who asks for help, and the commands that show what is wrong, have the right ones.
        """
        path = (*(parent.command_path.split()[1:] if parent else ()), info_name)
        found = defaults_of(parent.find_root().command, path)
        wrong = [default.error for default in found if default.error]
        if not (path[0] in _TOLERANT or "--help" in args or extra.get("resilient_parsing")):
            settings.check()
            if wrong:
                raise ArgumentError("; ".join(wrong))
        named = option_names(self)
        file = {
            named[default.option].name: default.value
            for default in found
            if not default.error and default.place == settings.path
        }
        return super().make_context(info_name, args, parent, default_map=file, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; its errors name the options that were given."""
        speak_of_options(in_options(ctx))
        return super().invoke(ctx)


def prepare(app: typer.Typer, path: tuple[str, ...] = ()) -> None:
    """Gives all commands of an app what this file is about."""
    app.info.cls = Group
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
        common = said(**{name: options.pop(name) for name in COMMON})
        with settings.override(**common), log_on_stderr(command_name):
            speak_json(_errors_are_json(command_name, bool(options.get("as_json"))))
            try:
                return function(**options)
            except Exception:
                if settings.look("debug", strict=False).value:
                    print(without_orders(traceback.format_exc()), end="", file=sys.stderr)
                raise

    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters.values()
    parameters = [parameter.replace(annotation=hints.get(parameter.name, parameter.annotation)) for parameter in own]
    for name, (annotation, default) in COMMON.items():
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return command


def log_on_stderr(command: str, logger: str | None = None) -> AbstractContextManager[None]:
    """Log records on standard error, as the settings say; of another logger than the package's from warnings on."""
    level, form = (_log_setting(name, command) for name in ("log_level", "log_format"))
    if logger is None:
        return logs.to_stderr(level, form)
    return logs.to_stderr("error" if level in ("error", "critical") else "warning", form, logger)


def _errors_are_json(command: str, as_json: bool) -> bool:
    """Whether what goes wrong is said in JSON: where the result is, or the log."""
    return as_json or _log_setting("log_format", command) == "json"


def _log_setting(name: str, command: str) -> str:
    return logs.chosen(name, service=command == "serve", strict=command not in _TOLERANT)
