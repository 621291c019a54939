"""What the commands have in common: loading under a progress bar, tables, JSON, errors on one line."""

import codecs
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..configuration import settings
from ..errors import ArgumentError, BitNetError, FileSystemError, json_without_orders, printable
from ..hub import is_local, refuse_revision
from ..runtime import set_num_threads

if TYPE_CHECKING:
    from ..model import BitNetModel


@contextmanager
def load_model(name: str, *, threads: int | None = None, offline: bool, **options: Any) -> "Iterator[BitNetModel]":
    """The model, loaded under a progress bar when that takes long enough to see one; options are those of from_pretrained."""
    from ..model import BitNetModel

    if "verify" in options:
        options["verify"] = {"now": True, "never": False}.get(options["verify"], "background")
    if threads is not None:
        set_num_threads(threads)
    model = BitNetModel.from_pretrained(name, local_files_only=offline, progress=watched(), **options)
    with model:
        yield model


def load_assistant(
    stack: ExitStack, name: str | None, revision: str | None, *, offline: bool, kv_dtype: str
) -> "BitNetModel | None":
    """The model that guesses, if one is named; closed with the stack."""
    if name is None:
        return None
    if is_local(name):
        refuse_revision(revision, f"{name} is here", "assistant_revision")
    return stack.enter_context(load_model(name, offline=offline, kv_dtype=kv_dtype, revision=revision))


def check_assistant(name: str | None, **others: Any) -> None:
    """Refuses options about the model that guesses where none is named; before the other one is loaded."""
    for option, value in others.items():
        if name is None and value is not None:
            raise ArgumentError(f"--{option.replace('_', '-')} {value}: expected an --assistant-model with it")


def quiet() -> bool:
    """Whether nothing but errors is to be said on stderr."""
    return bool(settings.look("quiet", strict=False).value)


def watched() -> bool:
    """Whether somebody looks at stderr and wants to see progress there."""
    return sys.stderr.isatty() and not quiet()


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner on stderr, for people."""
    if not watched():
        yield
        return
    from rich.console import Console

    console = Console(stderr=True)
    status = console.status(what, spinner="line" if console.options.ascii_only else "dots")
    try:
        status.start()  # here, as Ctrl-C during a `with` statement's beginning would leave its thread drawing
        yield
    finally:
        status.stop()


def read_text(path: Path) -> str:
    """The text of a file; FileSystemError says why it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FileSystemError(f"{path} cannot be read as text: {reason}") from error


def cell(value: Any) -> str:
    """A value as people read it: yes and no, thousands apart, lists with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        value = [f"{name}: {part}" for name, part in value.items()]
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Prints rows under a header, or without one where all of it is empty.

    What files have in them gives a terminal no orders; what is too wide for it goes on below, as a name without its end is none.
    """
    from rich.console import Console
    from rich.table import Column, Table

    columns = (Column(name, overflow="fold") for name in header)
    table = Table(*columns, box=None, pad_edge=False, show_header=any(header))
    for row in rows:
        table.add_row(*map(printable, row))
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 1000)
    with console.capture() as text:
        console.print(table, markup=False, highlight=False)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))


ESCAPED = "bitnet.escaped"  # how streams write what their encoding does not have


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """As JSON has it, in which Python's own escapes, of two and of eight digits, are mistakes."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)), error.end


codecs.register_error(ESCAPED, _escaped)


def print_json(value: Any) -> None:
    """Null stands for NaN and infinities, which JSON does not have."""
    from ..callbacks import plain_numbers

    text = json.dumps(plain_numbers(value), indent=2, ensure_ascii=False, allow_nan=False)
    print(json_without_orders(text), flush=True)


def one_line(error: BaseException) -> str:
    """An error's message on one line, with the options in it that its argument names stand for."""
    if isinstance(error, OSError) and error.strerror:  # the system's own, less its number
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = printable(" ".join(str(error).split()))
    return _wording(text) if isinstance(error, BitNetError) else text


_wording: Callable[[str], str] = str


def speak_of_options(wording: Callable[[str], str]) -> None:
    """How messages of errors are said from now on; `str` leaves them as they are."""
    global _wording
    _wording = wording


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning on one line of stderr, without the place in our code: a `warnings.showwarning`."""
    if not quiet():
        text = printable(" ".join(str(message).split()))
        _say(f"bitnet: warning: {text}", "warning", "warned", type=category.__name__, warning=text)


def fail(message: str, status: int, error: BaseException | None = None) -> int:
    """Says on stderr why the command ends, and gives the exit status."""
    _say(
        f"bitnet: {message}",
        "error",
        "failed",
        type=type(error).__name__ if error else None,
        error=message,
        status=status,
    )
    return status


_as_json = False


def speak_json(asked: bool) -> None:
    """Whether errors and warnings are lines of JSON, of the form of log records, from now on."""
    global _as_json
    _as_json = asked


def fail_usage(error: Any) -> int:
    """`fail` for a command that was used wrongly: for people with what its usage is."""
    if _as_json:
        return fail(" ".join(error.format_message().split()), 2, error)
    from typer.rich_utils import rich_format_error

    rich_format_error(error)
    return 2


def _say(text: str, level: str, event: str, **fields: Any) -> None:
    if _as_json:
        from ..logs import LOGGER, JSONFormatter

        number = logging.getLevelNamesMapping()[level.upper()]
        record = logging.makeLogRecord({"name": f"{LOGGER}.cli", "levelno": number, "levelname": level.upper()})
        record.event, record.fields = event, {name: value for name, value in fields.items() if value is not None}
        text = JSONFormatter().format(record)
    print(text, file=sys.stderr)
