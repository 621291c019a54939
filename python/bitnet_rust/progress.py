"""Progress bars: of rich in a terminal, of HTML in a notebook."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Literal, TypeAlias

from .notebook import Display, in_notebook

Progress: TypeAlias = Callable[[int, int], object]
Unit: TypeAlias = Literal["bytes", "count"]


class Bar:
    """A bar that appears with the first thing it is told: a ``progress(done, total)`` callback, to be closed or used with ``with``.

    In a terminal it is on stderr; with stay it is left there when it ends.
    """

    def __init__(self, text: str, unit: Unit = "bytes", *, stay: bool = False) -> None:
        self._text, self._unit, self._stay = text, unit, stay
        self._drawn: _Terminal | _Notebook | None = None

    def __call__(self, done: int, total: int, text: str | None = None) -> None:
        if text is not None:
            self._text = text
        if self._drawn is None:
            if done >= total:
                return
            self._drawn = (_Notebook if in_notebook() else _Terminal)(self._unit, self._stay)
        self._drawn.update(self._text, done, total)

    def close(self) -> None:
        """Ends the drawing."""
        if self._drawn is not None:
            self._drawn.close()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def progress_of(progress: Progress | bool | None, text: str, unit: Unit = "bytes") -> Iterator[Progress | None]:
    """What an option progress=... asks for: a function of the caller's, a bar for True, or nothing."""
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        with Bar(text, unit) as bar:
            yield bar
    else:
        yield None


_REST = 60  # columns of a terminal that text and numbers have before the bar gets some


class _Terminal:
    """rich's bar on stderr. It is one line whatever the terminal: what does not fit is cut from its text."""

    def __init__(self, unit: Unit, stay: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column
        from rich.text import Text

        console = Console(stderr=True)

        class Said(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(task.description, no_wrap=True, overflow="crop")  # an ellipsis is no ASCII

        class Drawn(BarColumn):
            def render(self, task: Task) -> Any:
                self.bar_width = min(40, console.width - _REST)
                return super().render(task) if self.bar_width > 0 else Text("")

        numbers = (
            (DownloadColumn, TransferSpeedColumn) if unit == "bytes" else (MofNCompleteColumn, TimeRemainingColumn)
        )
        whole = [column(table_column=Column(no_wrap=True, overflow="crop")) for column in numbers]
        self._bar = Progress(
            Said(table_column=Column()),
            Drawn(),
            *whole,
            console=console,
            transient=not stay,
            disable=not stay and not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def update(self, text: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=text, completed=done, total=total)
        self._bar.start()  # with the first; nothing afterwards

    def close(self) -> None:
        self._bar.stop()


_EVERY = 0.1  # seconds between two pictures


class _Notebook:
    """A bar in the cell's output; it stays, with what it came to, and needs no widgets."""

    def __init__(self, unit: Unit, stay: bool) -> None:
        self._unit = unit
        self._display = Display()
        self._began = time.monotonic()
        self._shown = float("-inf")
        self._last = ("", 0, 0)

    def update(self, text: str, done: int, total: int) -> None:
        self._last = text, done, total
        if time.monotonic() - self._shown >= _EVERY:
            self._draw()

    def close(self) -> None:
        self._draw()

    def _draw(self) -> None:
        self._shown = time.monotonic()
        text, done, total = self._last
        passed = self._shown - self._began
        if self._unit == "bytes":
            count = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
        else:
            count = f"{done:,} of {total:,}"
        said = f"{text}  {count}, {passed:.1f} s"
        bar = f"<progress value='{done}' max='{max(total, 1)}' style='width:16em;vertical-align:middle'></progress>"
        self._display.show(f"<div>{bar} <code style='white-space:pre'>{escape(said)}</code></div>", said)
