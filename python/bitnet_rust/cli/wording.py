"""Errors as the user of the command has it: with the option that was typed, where the package names its argument."""

import ast
import re
import shlex
from collections.abc import Callable
from typing import Any

from .defaults import expected, option_names, variable

# Arguments and fields of recipes whose options have other names.
_OTHER_NAMES = {
    "num_threads": "threads", "vocab_size": "train_bpe", "path": "plot", "use_cache": "no_cache",
    "cors_origins": "cors_origin", "allowed_hosts": "allowed_host",
    "model.pretrained": "model", "data.train": "data", "data.eval": "eval_data",
    "export.formats": "export", "export.gguf_type": "type",
}  # fmt: skip
_SECTIONS = ("model", "data", "training", "export")
_HINT = re.compile(r" \(on the command line:? --[\w-]+\)")
_CALL = re.compile(r'TokenFile\("[^"]*", dtype=\.\.\.\)')  # where a command has --dtype
_VALUE = r"""'[^']*'(?: or '[^']*')*|"[^"]*"|\[[^\]]*\]|\S+?(?=[:;,)]*(?:\s|$))"""


def in_options(context: Any) -> Callable[[str], str]:
    """What puts a command's options, and the places where others were given, for the arguments that a message names.

    An argument that nobody gave stays as it is, as its value is that of a file, unless the message asks for it.
    """
    named = option_names(context.command)
    known = {option.name: name for name, option in named.items()} | {name: name for name in named}
    known |= {argument: name for argument, name in _OTHER_NAMES.items() if name in named and argument not in known}
    known |= {f"{section}.{name}": name for section in _SECTIONS for name in named}
    known |= {argument: name for argument, name in _OTHER_NAMES.items() if "." in argument and name in named}
    path = tuple(context.command_path.split()[1:])

    def replaced(found: re.Match[str]) -> str:
        argument, equals, value = found["argument"], found["equals"] or "", found["value"] or ""
        name = known[argument]
        option, flag = f"--{name.replace('_', '-')}", _is_flag(named[name])
        source = getattr(context.get_parameter_source(named[name].name), "name", "DEFAULT")
        if equals == "=" or value == "None" or found["missing"]:  # the message asks for it
            asked = value not in ("", "None") and not flag
            return option + (
                f" {_shown(value)}" if asked else " is missing" if value == "None" else found["missing"] or ""
            )
        begins = found["colon"] and (not found.start() or found.string[: found.start()].endswith(": "))
        if source == "DEFAULT" or not (equals or begins or "_" in argument or "." in argument):
            named_alone = not equals and "_" in argument and "." not in argument
            return option if named_alone and "set" not in named else found[0]  # of recipes they are fields
        if source == "ENVIRONMENT":
            return f"{variable(path, name)}{equals}{value}"
        if source == "DEFAULT_MAP":
            return f"[{'.'.join(path)}] {name}{equals}{value}"
        return option + (f" {_shown(value)}" if equals and not flag else "") + (found["colon"] or "")

    names = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    pattern = re.compile(
        rf"(?<![\w.\-/'\"`])(?P<argument>{names})(?![\w./\-'`])"
        rf"(?:(?P<equals> = |=)(?P<value>{_VALUE})?|(?P<missing> is missing)|(?P<colon>: ))?"
    )
    return lambda text: pattern.sub(replaced, _CALL.sub("--dtype", _HINT.sub("", text)))


def _is_flag(option: Any) -> bool:
    return bool(getattr(option, "is_flag", False))


def _shown(value: str) -> str:
    """A value of Python as one types it."""
    if value[0] not in "'\"[":
        return value
    try:
        some = [ast.literal_eval(part) for part in (value.split(" or ") if "' or '" in value else [value])]
    except (SyntaxError, ValueError):
        return value
    return " or ".join(shlex.quote(part if isinstance(part, str) else ",".join(map(str, part))) for part in some)


def in_words(error: Any) -> Any:
    """A usage error that says what an option takes in our words, not in those of who checks it."""
    message, parameter = error.message.removeprefix("Value error, "), getattr(error, "param", None)
    cause = getattr(error.__cause__, "errors", None)
    if parameter is not None and cause is not None and " is not one of " not in message:
        message = f"{cause()[0]['input']!r}: expected {expected(error.ctx.command, parameter)}"
    error.message = message
    return error
