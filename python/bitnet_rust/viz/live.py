"""A training plot that grows while the run goes on."""

import time
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ..arrays import seconds
from ..callbacks import Callback, Record
from ..errors import ArgumentError
from ..files import check_place
from ..notebook import Display, in_notebook
from .curves import loss_chart
from .svg import SVG

if TYPE_CHECKING:
    from ..training import History, Trainer


class LivePlot(Callback):
    """Draws the losses of a run as it goes on, in the notebook's cell; with a path, anywhere, as an SVG file that is written anew.

    >>> Trainer(model, callbacks=[LivePlot()]).train(text)  # in a notebook

    path: a file that ends in .svg, which a browser shows; without it ArgumentError outside of a notebook.
    every: seconds between two pictures, at least.

    No other package is needed. The last picture, of the whole run, stays.
    """

    def __init__(self, path: str | PathLike[str] | None = None, *, every: float = 0.5) -> None:
        if path is None and not in_notebook():
            raise ArgumentError("LivePlot() draws in notebooks: expected path='losses.svg' outside of one")
        self._path = None if path is None else Path(path).expanduser()
        if self._path is not None:
            if self._path.suffix.lower() != ".svg":
                raise ArgumentError(f"path = {str(path)!r}: expected a name that ends in .svg")
            check_place(self._path)
        self._every = seconds(every, "every")

    def on_run_start(self, trainer: "Trainer") -> None:
        """Shows an empty picture, or that of what a resumed run did before."""
        self._records: list[Record] = []
        self._last = time.monotonic()
        self._display = Display() if self._path is None else None
        self._show(trainer)

    def on_step(self, trainer: "Trainer", record: Record) -> None:
        """Takes the record in, and shows it when it is time."""
        self._records.append(record)
        if time.monotonic() - self._last >= self._every:
            self._show(trainer)

    def on_run_end(self, trainer: "Trainer", history: "History") -> None:
        """Shows the whole run."""
        if hasattr(self, "_records"):
            self._show(trainer)

    def _show(self, trainer: "Trainer") -> None:
        self._last = time.monotonic()
        chart = loss_chart(self._records)
        if self._display is None:
            assert self._path is not None
            SVG(chart).save(self._path)
            return
        said = f"step {trainer.step}/{trainer.total_steps}"
        if self._records:
            said += f", loss {self._records[-1]['loss']:.4f}, {self._records[-1]['tokens_per_second']:,.0f} tokens/s"
        self._display.show(f"<div><code>{escape(said)}</code><br>{chart}</div>", said)
