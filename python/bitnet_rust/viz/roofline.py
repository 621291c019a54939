"""The roofline of a profile: how near each kind of work comes to what memory and kernels allow."""

import json
from os import PathLike
from typing import TYPE_CHECKING, Any

from .. import _bitnet
from ..errors import ArgumentError
from .figures import finished, new_figure
from .svg import COLORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..profile import Profile


def roofline(profile: "Profile", *, path: str | PathLike[str] | None = None) -> "Figure":
    """Draws each kind of work of a profile by its multiplications for each byte read and by its speed, below the roofs of this
    machine (Williams et al. 2009, https://doi.org/10.1145/1498765.1498785).

    The sloping roof is the profile's read limit. The level ones are what the kernels reach here and now with their operands in the
    caches: the ternary one for ternary layers, the one of float32 for float layers and heads. A point below the slope waits for
    memory, one below a level roof for arithmetic; what lies above the slope reads from caches.

    profile: of ``model.profile()`` with its read limit; measuring the kernels takes 40 ms more, once.
    path: where to write the figure.
    """
    limit = profile.read_limit_gb_s
    if not limit:
        raise ArgumentError("profile has no read limit: expected one of model.profile(), without read_limit=False")
    peaks: dict[str, float] = json.loads(_bitnet.function("peaks", "", ())[0])
    ops = [one for one in profile.by("op") if one.multiplications and one.bytes and one.seconds]
    if not ops:
        raise ArgumentError("profile has no step: expected one of a model that has generated something")
    places = {one.op: (one.multiplications / one.bytes, one.multiplications / one.seconds / 1e9) for one in ops}
    figure = new_figure()
    axes: Any = figure.add_subplot(
        xlabel="multiplications for each byte read", ylabel="1e9 multiplications/s", xscale="log", yscale="log"
    )
    top = max(peaks.values()) / 1e9
    left = min([x for x, _ in places.values()] + [top / limit]) / 3
    right = max([x for x, _ in places.values()] + [top / limit]) * 3
    axes.plot([left, top / limit], [left * limit, top], color="gray", label=f"memory, {limit:.1f} GB/s")
    for (kind, peak), style in zip(sorted(peaks.items()), ("--", "-"), strict=True):
        axes.plot([peak / 1e9 / limit, right], [peak / 1e9] * 2, style, color="gray", label=f"{kind} kernels")
        axes.annotate(
            f"{kind}: {peak / 1e9:,.0f}", (right, peak / 1e9), fontsize=8, ha="right", va="bottom", color="gray"
        )
    lowest = sorted(places, key=lambda op: places[op][::-1])
    for i, one in enumerate(ops):
        x, y = places[one.op]
        share = one.seconds / profile.seconds
        axes.scatter([x], [y], s=20 + 400 * share, color=COLORS[i % len(COLORS)], alpha=0.8, zorder=3)
        to_left = lowest.index(one.op) % 2 == 1  # neighbours in height have their names on different sides
        axes.annotate(
            one.op, (x, y), xytext=(-9 if to_left else 9, 0), textcoords="offset points", fontsize=8,
            ha="right" if to_left else "left", va="center",
        )  # fmt: skip
    axes.set_title(f"{profile.rows} tokens in {profile.steps} steps; areas are shares of the time", fontsize=10)
    axes.legend(loc="lower right", fontsize=8)
    return finished(figure, path)
