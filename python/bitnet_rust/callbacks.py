"""What hears of a training run: callbacks of users, the progress bar, the log, TensorBoard."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import ArgumentError, FileSystemError, missing_extra
from .files import write_text
from .progress import Bar

if TYPE_CHECKING:
    from .training import History, Trainer

Record: TypeAlias = dict[str, Any]


class Callback:
    """Hears what happens in a run. Override what is of interest; ``trainer.stop()`` ends the run after the update.

    Callbacks run between updates, in their order, on the thread of ``Trainer.train``; they may use the model. An exception
    ends the run and is raised.
    """

    def on_run_start(self, trainer: "Trainer") -> None:
        """Before the first update, and before the first of a resumed run."""

    def on_evaluation(self, trainer: "Trainer", record: Record) -> None:
        """After an evaluation, whose results and metrics are in the update's record."""

    def on_step(self, trainer: "Trainer", record: Record) -> None:
        """After an update, and its evaluation if there is one."""

    def on_checkpoint(self, trainer: "Trainer", path: str) -> None:
        """After a checkpoint was written."""

    def on_run_end(self, trainer: "Trainer", history: "History") -> None:
        """Last, however the run ended; ``sys.exception()`` says with what error."""


class OnStep(Callback):
    """A function that takes the record of every update."""

    def __init__(self, function: Callable[[Record], object]) -> None:
        self._function = function

    def on_step(self, trainer: "Trainer", record: Record) -> None:
        """Calls it."""
        self._function(record)


_EVENTS = ("on_run_start", "on_evaluation", "on_step", "on_checkpoint", "on_run_end")


class _Partial(Callback):
    """An object that has some of a Callback's methods."""

    def __init__(self, listener: object) -> None:
        for name in _EVENTS:
            if callable(method := getattr(listener, name, None)):
                setattr(self, name, method)


def as_callback(callback: Any) -> Callback:
    """A Callback, an object with some of its methods, or a function of a record, as a Callback."""
    if isinstance(callback, Callback):
        return callback
    if not isinstance(callback, type) and any(hasattr(callback, name) for name in _EVENTS):
        return _Partial(callback)
    if callable(callback) and not (isinstance(callback, type) and issubclass(callback, Callback)):
        return OnStep(callback)
    raise TypeError(
        f"callbacks: expected bitnet_rust.Callback objects or functions that take a record, found {callback!r}"
    )


def check_callbacks(callbacks: Sequence[Any]) -> list[Any]:
    """The callbacks as a list, all of a kind that as_callback takes."""
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks: expected a list of them, found {callbacks!r}")
    for callback in callbacks:
        as_callback(callback)
    return list(callbacks)


class ProgressBar(Callback):
    """Draws a bar with the loss and tokens a second: on stderr, or in the cell of a notebook."""

    def on_run_start(self, trainer: "Trainer") -> None:
        self._bar = Bar("", "count", stay=True)
        self._bar(trainer.step, trainer.total_steps, "training")
        self._evaluation = ""

    def on_evaluation(self, trainer: "Trainer", record: Record) -> None:
        self._evaluation = f"  eval {record['eval_loss']:.4f}"

    def on_step(self, trainer: "Trainer", record: Record) -> None:
        text = f"loss {record['loss']:.4f}{self._evaluation}  {record['tokens_per_second']:,.0f} tokens/s"
        self._bar(record["step"], trainer.total_steps, text)

    def on_run_end(self, trainer: "Trainer", history: "History") -> None:
        if hasattr(self, "_bar"):
            self._bar.close()


class PrintProgress(Callback):
    """Prints a line on stderr now and then: for logs of runs that nobody watches."""

    def __init__(self, lines: int = 20) -> None:
        self._lines = lines

    def on_step(self, trainer: "Trainer", record: Record) -> None:
        total = trainer.total_steps
        if record["step"] % max(total // self._lines, 1) == 0 or "eval_loss" in record:
            evaluation = f"  validation {record['eval_loss']:.4f}" if "eval_loss" in record else ""
            speed = f"{record['tokens_per_second']:,.0f} tokens/s"
            line = f"step {record['step']}/{total}  loss {record['loss']:.4f}{evaluation}  {speed}"
            print(line, file=sys.stderr, flush=True)


class JSONLog(Callback):
    """Writes every record as a line of JSON. A resumed run continues the file: what it is about to do again is taken out."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path).expanduser()

    def on_run_start(self, trainer: "Trainer") -> None:
        resumed = trainer.history.resumed_from is not None
        kept = self._lines_before(trainer.next_record) if resumed and self._path.exists() else []
        try:
            write_text(self._path, "".join(kept))
        except OSError as error:
            raise FileSystemError(f"log_file = {self._path}: {error.strerror or error}") from error
        self._file = self._path.open("a", encoding="utf-8", buffering=1)  # a line is written when it is whole
        if resumed or trainer.history.skipped:
            event = {"event": "resumed", "step": trainer.step, "path": trainer.history.resumed_from}
            self._write(event | {"damaged_checkpoints": trainer.history.skipped})

    def _lines_before(self, step: int) -> list[str]:
        kept = []
        for line in self._path.read_text("utf-8", errors="replace").splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:  # cut short when the process was killed
                continue
            if (
                isinstance(entry, dict)
                and isinstance(entry.get("step"), int)
                and ("event" in entry or entry["step"] < step)
            ):
                kept.append(line if line.endswith("\n") else line + "\n")
        return kept

    def on_step(self, trainer: "Trainer", record: Record) -> None:
        self._write(record)

    def _write(self, entry: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(plain_numbers(entry), ensure_ascii=False) + "\n")
        except OSError as error:
            raise FileSystemError(f"log_file = {self._path}: {error.strerror}") from error

    def on_run_end(self, trainer: "Trainer", history: "History") -> None:
        if hasattr(self, "_file"):
            self._file.close()


def plain_numbers(value: Any) -> Any:
    """None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: plain_numbers(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorBoard(Callback):
    """Writes the numbers of every record as TensorBoard's scalars; needs the package tensorboardX."""

    def __init__(self, directory: str | PathLike[str]) -> None:
        try:
            import tensorboardX
        except ImportError as missing:
            raise missing_extra("tensorboard_dir", "tensorboardX", "tensorboard") from missing
        self._module = tensorboardX
        self._directory = fspath(Path(directory).expanduser())

    def on_run_start(self, trainer: "Trainer") -> None:
        purge = trainer.next_record if trainer.history.resumed_from else None
        try:
            self._writer = self._module.SummaryWriter(self._directory, purge_step=purge)
        except OSError as error:
            raise FileSystemError(f"tensorboard_dir = {self._directory}: {error.strerror}") from error

    def on_step(self, trainer: "Trainer", record: Record) -> None:
        for name, value in record.items():
            if name == "step" or isinstance(value, bool):
                continue
            if isinstance(value, Mapping):
                for group, number in value.items():
                    self._writer.add_scalar(f"{name}/{group}", number, record["step"])
            elif isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])

    def on_run_end(self, trainer: "Trainer", history: "History") -> None:
        if hasattr(self, "_writer"):
            self._writer.close()


def check_metrics(
    metrics: Mapping[str, Callable[..., Any]] | None, taken: Sequence[str]
) -> dict[str, Callable[..., Any]]:
    """Metrics by name: callables whose names are those of no field of a record."""
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"metrics: expected a dictionary of functions of the model by name, found {metrics!r}")
    checked = dict(metrics or {})
    for name, function in checked.items():
        if not isinstance(name, str) or not callable(function):
            raise TypeError(f"metrics: expected functions of the model by name, found {name!r}: {function!r}")
        if name in taken:
            raise ArgumentError(f"metrics: {name!r} is already a field of every record: expected another name")
    return checked
