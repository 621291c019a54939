"""Pictures of weights: ternary codes, distributions, errors of quantization, changes in training."""

import re
from os import PathLike
from typing import TYPE_CHECKING, Any

from ..arrays import whole_number
from ..callbacks import Callback, Record
from ..errors import ArgumentError
from .figures import finished, new_figure

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ..model import BitNetModel
    from ..training import Trainer
    from ..weights import Weight

Path = str | PathLike[str] | None

_CODES = {-1: "#4477aa", 0: "#f2f2f2", 1: "#ee6677"}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def ternary_map(
    model: "BitNetModel", name: str, *, row: int = 0, column: int = 0, size: int = 128, path: Path = None
) -> "Figure":
    """Draws codes of a ternary weight, a square for each: -1 blue, 0 grey, 1 red.

    name: a ternary one of ``model.weights()``, such as "model.layers.0.mlp.up_proj.weight".
    row, column, size: the corner and the edge, in weights, of the part that is drawn, as far as the matrix goes.
    path: where to write the figure.
    """
    weight = _found(model, name)
    if weight.dtype != "ternary":
        raise ArgumentError(f"name = {name!r}: expected a ternary weight, found {weight.dtype}")
    rows, columns = weight.shape
    first, left = whole_number(row, "row", range(rows)), whole_number(column, "column", range(columns))
    edge = whole_number(size, "size", range(1, 4097))
    codes = model.weight(name)[first : first + edge, left : left + edge].numpy()
    from matplotlib.colors import ListedColormap

    figure = new_figure(6, 6)
    axes: Any = figure.add_subplot(xlabel="input", ylabel="output")
    height, width = codes.shape
    axes.imshow(
        codes, cmap=ListedColormap(list(_CODES.values())), vmin=-1, vmax=1, interpolation="nearest",
        extent=(left - 0.5, left + width - 0.5, first + height - 0.5, first - 0.5),
    )  # fmt: skip
    shares = ", ".join(f"{code}: {100 * float((codes == code).mean()):.1f} %" for code in _CODES)
    axes.set_title(f"{name}\n{shares}", fontsize=9)
    return finished(figure, path)


def weight_histogram(model: "BitNetModel", name: str, *, bins: int = 101, path: Path = None) -> "Figure":
    """Draws how the numbers of a weight are distributed.

    Of a ternary weight of a trainable model its master weights, in units of the scale, coloured by the code that each becomes; of
    another ternary weight the shares of the codes; of floats their values.
    """
    weight = _found(model, name)
    count = whole_number(bins, "bins", range(1, 10001))
    figure = new_figure()
    axes: Any = figure.add_subplot(ylabel="weights")
    axes.set_title(name, fontsize=9)
    values = model.weight(name).numpy().ravel()
    masters = dict(model.named_parameters()) if weight.dtype == "ternary" and model.trainable else {}
    if name in masters:
        scaled = masters[name].numpy().ravel() / (weight.scale or 1)
        parts = [scaled[values == code] for code in _CODES]
        axes.hist(
            parts, bins=count, stacked=True, color=list(_CODES.values()), label=[f"becomes {code}" for code in _CODES]
        )
        for edge in (-0.5, 0.5):
            axes.axvline(edge, color="gray", linestyle=":", linewidth=1)
        axes.set(xlabel=f"master weight / scale of {weight.scale:.4g}")
        axes.legend()
    elif weight.dtype == "ternary":
        heights = [int((values == code).sum()) for code in _CODES]
        bars = axes.bar([str(code) for code in _CODES], heights, color=list(_CODES.values()), edgecolor="gray")
        axes.bar_label(bars, [f"{100 * n / max(values.size, 1):.1f} %" for n in heights])
        axes.set(xlabel=f"code, times {weight.scale:.4g}")
        axes.margins(y=0.1)  # room for the highest label
    else:
        axes.hist(values, bins=count, color=_CODES[-1])
        axes.set(xlabel="value")
    return finished(figure, path)


def ternary_shares(model: "BitNetModel", *, path: Path = None) -> "Figure":
    """Draws which share of each ternary weight is zero: a row for each kind of projection, a column for each layer."""
    table = {one.name: float((model.weight(one.name).numpy() == 0).mean()) for one in _ternary(model)}
    figure = _grid(table, "share of zeros", percent=True)
    return finished(figure, path)


def quantization_errors(model: "BitNetModel", *, path: Path = None) -> "Figure":
    """Draws how far each ternary weight is from its master weight: signal to noise in dB, of which more is better.

    ArgumentError for a model that was loaded without trainable=True, whose master weights are not there.
    """
    table = {one.name: model.quantization_error(one.name).sqnr for one in _ternary(model)}
    figure = _grid(table, "signal to quantization noise, dB")
    return finished(figure, path)


class TernaryChanges(Callback):
    """A callback that notes, now and then in a run, which share of each ternary weight has changed since it looked last.

    >>> changes = TernaryChanges(every=10)  # then Trainer(model, callbacks=[changes]).train(text)

    It keeps the codes it saw last, a byte for each weight. A run that begins or is resumed starts anew.

    every: updates between two looks.
    steps: the updates after which it looked.
    changed: shares by the name of the weight, one for each of ``steps``; ``viz.ternary_changes`` draws them.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = whole_number(every, "every", range(1, 2**31))
        self.steps: list[int] = []
        self.changed: dict[str, list[float]] = {}
        self._codes: dict[str, NDArray[np.int8]] = {}

    def on_run_start(self, trainer: "Trainer") -> None:
        """Looks at the weights that the run begins with."""
        self.steps, self.changed = [], {}
        self._codes = {one.name: trainer.model.weight(one.name).numpy() for one in _ternary(trainer.model)}

    def on_step(self, trainer: "Trainer", record: Record) -> None:
        """Compares, after every so many updates."""
        if record["step"] % self.every:
            return
        self.steps.append(record["step"])
        for name, before in self._codes.items():
            after = trainer.model.weight(name).numpy()
            self.changed.setdefault(name, []).append(float((before != after).mean()))
            self._codes[name] = after


def ternary_changes(changes: TernaryChanges, *, path: Path = None) -> "Figure":
    """Draws what a TernaryChanges has noted: a row for each ternary weight, and how much of it changed over the steps."""
    if not changes.steps:
        raise ArgumentError(
            f"changes: found none; expected a TernaryChanges that was a callback of a run of at least {changes.every} updates"
        )
    names = list(changes.changed)
    figure = new_figure(8, max(3.0, 0.22 * len(names) + 1))
    axes: Any = figure.add_subplot(xlabel="step")
    shown = axes.imshow(
        [[100 * share for share in changes.changed[name]] for name in names], aspect="auto", interpolation="nearest", cmap="viridis", vmin=0
    )  # fmt: skip
    axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=7)
    marks = range(0, len(changes.steps), max(1, len(changes.steps) // 8))
    axes.set_xticks(list(marks), [str(changes.steps[i]) for i in marks])
    figure.colorbar(shown, label=f"% of the codes that changed in {changes.every} updates")
    return finished(figure, path)


def _found(model: "BitNetModel", name: str) -> "Weight":
    for one in model.weights():
        if one.name == name:
            return one
    raise ArgumentError(f"name = {name!r}: expected one of the names that model.weights() lists")


def _ternary(model: "BitNetModel") -> "list[Weight]":
    found = [one for one in model.weights() if one.dtype == "ternary"]
    if not found:
        raise ArgumentError(f"{model!r} has no ternary weight")
    return found


def _short(name: str) -> str:
    """ "3 up_proj" for model.layers.3.mlp.up_proj.weight."""
    found = re.fullmatch(r"model\.layers\.(\d+)\.\w+\.(\w+)\.weight", name)
    return f"{found[1]} {found[2]}" if found else name


def _grid(table: dict[str, float], title: str, percent: bool = False) -> "Figure":
    """A number for each projection of each layer, as colours, and in figures where there is room."""
    placed: dict[tuple[str, int], float] = {}
    for name, value in table.items():
        layer, _, kind = _short(name).partition(" ")
        placed[kind, int(layer)] = value
    kinds = [kind for kind in _PROJECTIONS if any(kind == one for one, _ in placed)]
    layers = sorted({layer for _, layer in placed})
    unit = 100 if percent else 1
    cells = [[unit * placed.get((kind, layer), float("nan")) for layer in layers] for kind in kinds]
    figure = new_figure(min(14, 2.5 + 0.55 * len(layers)) if len(layers) > 6 else 6, 0.4 * len(kinds) + 1.4)
    axes: Any = figure.add_subplot(xlabel="layer")
    shown = axes.imshow(cells, aspect="auto", interpolation="nearest", cmap="viridis")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set_title(f"{title}{', %' if percent else ''}", fontsize=10)
    if len(layers) <= 16:
        low, high = shown.get_clim()
        digits = 1 if high - low >= 1 else 2  # fresh weights have all but the same errors
        for y, line in enumerate(cells):
            for x, value in enumerate(line):
                color = "black" if shown.norm(value) > 0.6 else "white"  # the high colours of viridis are light
                axes.text(x, y, f"{value:.{digits}f}", ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(shown)
    return figure
