"""Curves of a training run."""

import json
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, FileSystemError
from .figures import finished, new_figure
from .svg import SVG, line_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Records = Sequence[dict[str, Any]]

# Panels below the losses, each for fields that some record has: title, and fields with their labels.
_PANELS = (
    ("learning rate", (("learning_rate", "learning rate"),)),
    ("gradient norm", (("gradient_norm", "gradient norm"),)),
    ("share of the weights", (("weights_flipped", "changed sign"), ("weights_zeroed", "became zero"))),
)


def training_curves(
    history: "Records | str | PathLike[str]", *, panels: bool = True, path: str | PathLike[str] | None = None
) -> "Figure":
    """Draws a training run over its steps: the losses and, below, learning rate, gradient norm and changes of ternary weights.

    history: a History, a list of its records, the "records" of a model's metadata, or the path of a ``log_file``.
    panels: draw what is below the losses, too.
    path: where to write the figure.

    ArgumentError without a record, MissingExtraError without matplotlib.
    """
    records = _records(history)
    shown = [panel for panel in _PANELS if panels and any(name in r for r in records for name, _ in panel[1])]
    figure = new_figure(7, 4 + 1.5 * len(shown))
    axes: Any = figure.subplots(1 + len(shown), 1, sharex=True, squeeze=False, height_ratios=[3] + [1] * len(shown))[
        :, 0
    ]
    for (name, points), marker in zip(losses(records).items(), ("", "."), strict=True):
        if points:
            axes[0].plot(*zip(*points, strict=True), label=name, linewidth=1, marker=marker)
    axes[0].set(ylabel="loss (nats)")
    axes[0].legend()
    for below, (title, fields) in zip(axes[1:], shown, strict=True):
        for name, text in fields:
            points = column(records, name)
            if points:
                below.plot(*zip(*points, strict=True), label=text, linewidth=1)
        below.set_title(title, fontsize=9, loc="left")
        if len(fields) > 1:
            below.legend(fontsize=8)
    axes[-1].set(xlabel="step")
    return finished(figure, path)


def loss_chart(records: Records, *, width: int = 560, height: int = 240) -> SVG:
    """The losses as an SVG, for which no library is needed."""
    lines = {name: points for name, points in losses(records).items() if points}
    return line_chart(lines, x_label="step", y_label="loss (nats)", width=width, height=height)


def losses(records: Records) -> dict[str, list[tuple[float, float]]]:
    """Loss over steps in training and in evaluation."""
    return {"training": column(records, "loss"), "evaluation": column(records, "eval_loss")}


def column(records: Records, name: str) -> list[tuple[float, float]]:
    """A field over steps, where it is."""
    return [(r["step"], r[name]) for r in records if r.get(name) is not None]


def _records(history: Any) -> Records:
    where = "history"
    if isinstance(history, str | PathLike):
        where = fspath(history)
        history = _read_log(Path(history).expanduser())
    records = [r for r in history if isinstance(r, dict) and "step" in r and "loss" in r]
    if not records:
        raise ArgumentError(
            f"{where}: found no record of an update: expected a History that a run gave, or its log_file"
        )
    return records


def _read_log(path: Path) -> list[Any]:
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise FileSystemError(f"{path}: {error.strerror}") from error
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:  # the last one of a run that goes on
            continue
    return entries
