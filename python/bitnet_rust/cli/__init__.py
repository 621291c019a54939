"""The ``bitnet`` command.

Exit status: 0 done, 1 the model or the input cannot be used (one line on stderr says why), 2 wrong usage,
130 interrupted, 143 terminated by SIGTERM. Results go to stdout, progress and errors to stderr; ``--json`` gives one JSON object (or list),
and what goes wrong as one, too, on stderr.
``--debug`` shows an error's traceback, ``--quiet`` errors alone.
"""

import io
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from .. import bench
from ..configuration import settings
from ..errors import BitNetError, InternalError
from . import config
from .about import doctor, info, models
from .common import prepare, said
from .defaults import UsageError
from .files import convert, diff, inspect, verify
from .options import Debug, LogFormat, LogLevel, Quiet
from .output import ESCAPED, fail, fail_usage, one_line, show_warning, speak_json, speak_of_options
from .serving import serve
from .text import chat, evaluate, generate, perplexity
from .training import finetune, tokenize, train
from .wording import in_words

app = typer.Typer(
    name="bitnet",
    help="BitNet b1.58 language models on the CPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "generate": generate, "chat": chat, "serve": serve, "inspect": inspect, "verify": verify, "convert": convert, "diff": diff,
    "perplexity": perplexity, "train": train, "finetune": finetune, "tokenize": tokenize, "eval": evaluate,
    "models": models, "info": info, "doctor": doctor,
}  # fmt: skip
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(config.app, name="config")
app.add_typer(bench.app, name="bench")
prepare(app)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"bitnet-rust {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """BitNet b1.58 language models on the CPU."""
    given = said(quiet=quiet, debug=debug, log_level=log_level, log_format=log_format)
    context.with_resource(settings.override(**given))


def _interrupted() -> int:
    if sys.stderr.isatty():
        print(file=sys.stderr)  # the terminal shows ^C at the end of a line
    return fail("interrupted", 130)


def _terminate(number: int, frame: object) -> None:
    """SIGTERM, from batch systems and services: ends as Ctrl-C does, so that training is saved and no half file stays."""
    raise SystemExit(128 + number)


def run() -> int:
    """The command; returns the exit status."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)  # an encoding without the character is no reason to stop
    speak_json("--json" in sys.argv)  # also of what comes before the command
    speak_of_options(str)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            status = app(prog_name="bitnet", standalone_mode=False) or 0
            sys.stdout.flush()  # here an error has its words
            return _interrupted() if status == 130 else int(status)
    except UsageError as error:
        return fail_usage(in_words(error))
    except InternalError as defect:
        return fail(str(defect), 1, defect)  # all its lines: they belong in the report
    except (BitNetError, OSError, UnicodeDecodeError, MemoryError) as error:
        try:
            sys.stdout.flush()
        except OSError:  # it would be tried again, in vain, when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone
            return 1
        return fail(one_line(error), 1, error)
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as defect:
        return fail(
            f"{type(defect).__name__}: {one_line(defect)}: this is a defect of bitnet_rust; please report it with what --debug shows",
            1,
            defect,
        )
    except SystemExit as end:
        if end.code == 128 + signal.SIGTERM:
            return fail("terminated", end.code)
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1


def main() -> None:
    """The command in a process of its own; ends it with the exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    status = run()
    if status == 130:
        # Python itself would end by SIGINT if the last exec() was interrupted, as one that makes a dataclass while modules are imported.
        exec("")
    sys.exit(status)
