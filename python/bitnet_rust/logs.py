"""Log records of the package and of its Go core, in Python's ``logging`` under ``bitnet_rust``.

The core's come from threads of its own. They wait in a queue there, from which a thread here hands them to the logger that is named after
their place: ``bitnet_rust.core.model``, ``bitnet_rust.core.pool``.
"""

import atexit
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from . import _bitnet
from .configuration import settings
from .errors import json_without_orders, without_orders

LOGGER = "bitnet_rust"
_MODULE = "github.com/bitnet-rust/bitnet_rust/"
_OFF = 100  # above every level of the core

_process = os.getpid()
_emitting = threading.RLock()  # a handler may call the package
_thread: threading.Thread | None = None
_starting = threading.Lock()


# --- from the core ---------------------------------------------------------------------------------------------------


def refresh() -> None:
    """Tells the core which levels are wanted. Loading, saving, training and engines do; call it after changing levels later than that."""
    if os.getpid() != _process:
        return  # made by fork(): the core is not there
    level = _least_level()
    _bitnet.log_level(_OFF if level > logging.CRITICAL else (level - logging.INFO) * 4 // 10)
    _start()


def flush() -> None:
    """Hands on the records that are waiting, before it returns."""
    if os.getpid() != _process:
        return
    with _emitting:
        taken = _bitnet.log_take()
        if taken is None:
            return
        batch = json.loads(taken)
        for fields in batch["records"] or ():
            _emit(fields)
        if batch["dropped"]:
            logging.getLogger(LOGGER).warning(
                "%d log records of the core were lost: too many at once", batch["dropped"]
            )


@contextmanager
def delivered() -> Iterator[None]:
    """A call of the core whose log records are there when it has returned."""
    refresh()
    try:
        yield
    finally:
        flush()


def _least_level() -> int:
    """The lowest level that a logger of ours has."""
    names = [name for name in list(logging.root.manager.loggerDict) if name.startswith(LOGGER + ".")]
    levels = [logging.getLogger(name).getEffectiveLevel() for name in (LOGGER, *names)]
    return max(min(levels), logging.root.manager.disable + 1)


def _start() -> None:
    global _thread
    with _starting:
        if _thread is None:
            _thread = threading.Thread(target=_run, name="bitnet-log", daemon=True)
            _thread.start()
            atexit.register(_end, _thread)


def _run() -> None:
    while _bitnet.log_wait():
        try:
            flush()
        except Exception:  # of a handler; those of logging print theirs
            sys.excepthook(*sys.exc_info())


def _end(thread: threading.Thread) -> None:
    """At the end of the interpreter: the last records, while logging still works."""
    if os.getpid() != _process:
        return
    flush()
    _bitnet.log_close()
    thread.join(1)


def _emit(fields: dict[str, Any]) -> None:
    """A record of the core's as one of Python's."""
    room, function = _place(fields["function"])
    logger = logging.getLogger(f"{LOGGER}.{room}")
    level = fields["level"] * 10 // 4 + logging.INFO
    if not logger.isEnabledFor(level):
        return
    attributes = dict(fields["attributes"])
    extra = _extra(fields["message"], attributes)
    message = _Readable(fields["message"], attributes)
    record = logger.makeRecord(logger.name, level, fields["file"], fields["line"], message, (), None, function, extra)
    record.created, record.msecs = fields["time"], fields["time"] % 1 * 1000
    logger.handle(record)


def _place(function: str) -> tuple[str, str]:
    """The room and the function in it of Go's name of a function, as core.model and (*Model).Load."""
    above, _, name = function.removeprefix(_MODULE).rpartition("/")
    room, _, name = name.partition(".")
    return ("bindings" if room == "main" else ".".join([*above.split("/"), room]).strip(".")), name


def event(
    logger: logging.Logger, level: int, what: str, failure: BaseException | None = None, /, **fields: Any
) -> None:
    """Logs an event: its fields stand behind the message and are attributes of the record; failure is shown with its traceback."""
    if logger.isEnabledFor(level):
        message = _Readable(what, fields)
        logger.log(level, "%s", message, extra=_extra(what, fields), exc_info=failure, stacklevel=2)


def _extra(what: str, fields: dict[str, Any]) -> dict[str, Any]:
    own = {name + "_" if name in _STANDARD else name: value for name, value in fields.items()}
    return {"event": what, "fields": fields} | own


class _Readable:
    """An event as a line for people, which is put together when somebody reads it: a line of JSON has no use for it."""

    def __init__(self, what: str, fields: dict[str, Any]) -> None:
        self._what, self._fields = what, fields

    def __str__(self) -> str:
        words = [f"{name}={_short(value)}" for name, value in self._fields.items() if value is not None]
        return " ".join([self._what, *words])


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return repr(text) if any(c.isspace() or not c.isprintable() for c in text) else text


# --- to a stream -----------------------------------------------------------------------------------------------------

# What every record has; anything else was given by who logged.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "event", "fields", "taskName"}


# json.dumps would make an encoder for each line.
_encoded = json.JSONEncoder(ensure_ascii=False, default=str).encode


class JSONFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, event, then its fields, and a traceback if there is an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, Any] = getattr(record, "fields", None) or {
            name: value for name, value in vars(record).items() if name not in _STANDARD
        }
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", None) or record.getMessage(),
            **fields,
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["traceback"] = self.formatException(record.exc_info)
        return json_without_orders(_encoded(entry))


class TextFormatter(logging.Formatter):
    """A record as a line for people: time, level, logger, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback if there is an exception; what a terminal would obey is escaped."""
        return without_orders(super().format(record))


class _Stderr(logging.StreamHandler[Any]):
    """A handler to what sys.stderr is when a record comes."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def chosen(name: str, *, service: bool, strict: bool = True) -> str:
    """log_level or log_format, as ``to_stderr`` takes them: what the settings say, else the default of a command or of a service.

    A service says what it does without being asked: to people where standard error is a terminal, to programs elsewhere.
    Raises ArgumentError with strict for a setting that cannot be used.
    """
    found = settings.look(name, strict=strict)
    if found.source == "default":
        if name == "log_level" and settings.look("quiet", strict=strict).value:
            return "error"
        if service:
            return "info" if name == "log_level" else "text" if sys.stderr.isatty() else "json"
    return str(found.value)


@contextmanager
def to_stderr(level: str, format: str = "text", logger: str = LOGGER) -> Iterator[None]:
    """Prints log records on standard error while a with statement lasts.

    level: the least one, as "info". format: "text" or "json", a line each. logger: whose records, by default the package's.
    """
    target = logging.getLogger(logger)
    handler = _Stderr()
    handler.setFormatter(JSONFormatter() if format == "json" else TextFormatter())
    before = target.level
    target.addHandler(handler)
    target.setLevel(level.upper())
    try:
        yield
    finally:
        flush()
        target.removeHandler(handler)
        target.setLevel(before)
