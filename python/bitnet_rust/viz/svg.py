"""SVG pictures without a library: elements, and charts of a few lines."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from os import PathLike
from typing import Any

from ..files import write_text

COLORS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#66ccee", "#ccbb44")
"""Of lines, in their order; told apart by the colour-blind too (Paul Tol's "bright")."""

Points = Sequence[tuple[float, float]]


class SVG(str):
    """An SVG document, a text that a notebook shows as a picture."""

    __slots__ = ()

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the document. FileSystemError if it cannot be written."""
        write_text(path, self)

    def _repr_svg_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"SVG({len(self):,} characters)"

    def __str__(self) -> str:
        return str.__str__(self)


def element(tag: str, content: str | Iterable[str] = "", **attributes: Any) -> str:
    """An element; content is markup. Of attribute names underscores become hyphens, and one at the end goes away."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_text(value))}"' for name, value in attributes.items()
    )
    inner = content if isinstance(content, str) else "".join(content)
    return f"<{tag}{named}>{inner}</{tag}>" if inner else f"<{tag}{named}/>"


def label(x: float, y: float, text: str, **attributes: Any) -> str:
    """A text at a place."""
    return element("text", escape(text), x=x, y=y, **attributes)


def document(width: float, height: float, parts: Iterable[str], title: str) -> SVG:
    """A picture of a size, with a title that screen readers read."""
    head = element("title", escape(title))
    style = "max-width:100%;height:auto;font-family:system-ui,sans-serif"
    size: dict[str, Any] = {"viewBox": f"0 0 {_text(width)} {_text(height)}", "width": width, "height": height}
    return SVG(element("svg", [head, *parts], xmlns="http://www.w3.org/2000/svg", role="img", style=style, **size))


def line_chart(
    series: Mapping[str, Points], *, x_label: str, y_label: str, width: int = 560, height: int = 240, title: str = ""
) -> SVG:
    """Lines over common axes, in the text's own colour so that it reads on dark pages too. Points that are not finite are left out."""
    lines = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)] for name, points in series.items()
    }
    every = [point for points in lines.values() for point in points]
    left, right, top, bottom = 58, 12, 22, 36
    if not every:
        empty = label(width / 2, height / 2, "no data yet", text_anchor="middle", font_size=12, fill="currentColor")
        return document(width, height, [empty], title or y_label)
    x_ticks = ticks(min(x for x, _ in every), max(x for x, _ in every))
    y_ticks = ticks(min(y for _, y in every), max(y for _, y in every))

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - right) * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]),
            height - bottom - (height - top - bottom) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]),
        )

    parts = []
    for y in y_ticks:
        _, place = at(x_ticks[0], y)
        parts.append(
            element("line", x1=left, x2=width - right, y1=place, y2=place, stroke="currentColor", stroke_opacity=0.15)
        )
        parts.append(label(left - 6, place + 4, f"{y:g}", text_anchor="end", font_size=11, fill="currentColor"))
    for x in x_ticks:
        place, _ = at(x, y_ticks[0])
        parts.append(
            label(place, height - bottom + 15, f"{x:g}", text_anchor="middle", font_size=11, fill="currentColor")
        )
    parts.append(
        label((left + width - right) / 2, height - 4, x_label, text_anchor="middle", font_size=11, fill="currentColor")
    )
    parts.append(label(4, 13, y_label, font_size=11, fill="currentColor"))
    place = width - right
    for (name, points), color in reversed(list(zip(lines.items(), COLORS, strict=False))):
        corners = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in _thinned(points, width))
        parts.append(element("polyline", points=corners, fill="none", stroke=color, stroke_width=1.5))
        if len(points) < 40:
            for x, y in points:
                cx, cy = at(x, y)
                parts.append(element("circle", cx=cx, cy=cy, r=2.5, fill=color))
        parts.append(label(place, 13, name, text_anchor="end", font_size=11, fill=color))
        place -= 7 * len(name) + 14
    return document(width, height, parts, title or f"{y_label} over {x_label}")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from one that is at most low to one that is at least high, two or more."""
    if not high > low:
        spread = abs(low) / 2 or 1.0
        low, high = low - spread, high + spread
    rough = (high - low) / (most - 1)
    power: float = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * i:.12g}") for i in range(first, last + 1)]


def _thinned(points: Points, most: int) -> Points:
    """So many points of a long line that nobody sees what is missing: of each stretch the lowest and the highest."""
    if len(points) <= 2 * most:
        return points
    kept: list[tuple[float, float]] = []
    for i in range(most):
        stretch = points[i * len(points) // most : (i + 1) * len(points) // most]
        ends = min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])
        kept += sorted(set(ends))
    return kept


def _text(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
