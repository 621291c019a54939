"""Draws the pictures of docs/explanation: `python .ci/site/pictures.py` writes them into docs/images."""

import math
from html import escape
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"

INK, PALE, GRID = "#263238", "#607d8b", "#cfd8dc"
MINUS, ZERO, PLUS = "#d9705b", "#eceff1", "#5b8fd9"


class Drawing:
    """A picture of shapes and texts, in pixels from the top left."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._open = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="sans-serif" font-size="13"><title>{escape(title)}</title>'
        )
        self._parts: list[str] = []
        self.box(0, 0, width, height, fill="#fcfcfc", stroke=GRID, round=8)

    def box(
        self, x: float, y: float, w: float, h: float, *, fill: str = "none", stroke: str = INK, round: int = 0
    ) -> None:
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{round}" fill="{fill}" stroke="{stroke}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        anchor: str = "middle",
        color: str = INK,
        size: int = 13,
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{color}" font-size="{size}"{weight}>{escape(words)}</text>'
        )

    def line(self, *points: tuple[float, float], color: str = INK, width: float = 1.5, dash: str = "") -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{dashes}/>')

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        self.line((x, y), (to_x, to_y))
        angle = math.atan2(to_y - y, to_x - x)
        ends = [(to_x - 8 * math.cos(angle + turn), to_y - 8 * math.sin(angle + turn)) for turn in (0.45, -0.45)]
        self.line(ends[0], (to_x, to_y), ends[1])

    def dot(self, x: float, y: float, *, fill: str = INK) -> None:
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="5" fill="{fill}"/>')

    def save(self, name: str) -> None:
        (IMAGES / name).write_text("\n".join([self._open, *self._parts, "</svg>\n"]), "utf-8")


def _cells(
    d: Drawing, x: float, y: float, values: list[str], *, fills: list[str] | None = None, width: int = 46
) -> None:
    for i, value in enumerate(values):
        d.box(x + i * width, y, width, 26, fill=fills[i] if fills else "#ffffff", stroke=PALE)
        d.text(x + i * width + width / 2, y + 18, value)


def ternary_layer() -> None:
    """One output of a ternary layer, in numbers."""
    x = [0.50, -1.27, 0.03, 0.80]
    w = [0.6, -0.1, -0.9, 0.4]
    scale, mean = 127 / max(map(abs, x)), sum(map(abs, w)) / len(w)
    xq = [round(v * scale) for v in x]
    wq = [max(-1, min(1, round(v / mean))) for v in w]
    total = sum(a * b for a, b in zip(xq, wq, strict=True))
    color = {-1: MINUS, 0: ZERO, 1: PLUS}
    d = Drawing(
        760, 300, "One output of a ternary layer: int8 activations, ternary weights, an integer sum, one multiplication"
    )
    d.text(20, 30, "activations of a token, float32", anchor="start", color=PALE)
    _cells(d, 20, 40, [f"{v:.2f}" for v in x])
    d.text(420, 30, "weights of an output, float32 (training)", anchor="start", color=PALE)
    _cells(d, 420, 40, [f"{v:.1f}" for v in w])
    d.arrow(112, 70, 112, 112)
    d.text(124, 96, f"x 127 / max|x| = {scale:.0f}, rounded", anchor="start", size=12)
    d.arrow(512, 70, 512, 112)
    d.text(524, 96, f"/ mean|W| = {mean:.1f}, rounded", anchor="start", size=12)
    _cells(d, 20, 116, [str(v) for v in xq])
    d.text(214, 134, "int8", anchor="start", color=PALE)
    _cells(d, 420, 116, [f"{v:+d}" if v else "0" for v in wq], fills=[color[v] for v in wq])
    d.text(614, 134, "two bits each", anchor="start", color=PALE)
    d.arrow(112, 146, 300, 196)
    d.arrow(512, 146, 440, 196)
    terms = " ".join(f"{'+' if b > 0 else '-'} {a if a >= 0 else f'({a})'}" for a, b in zip(xq, wq, strict=True) if b)
    d.box(210, 200, 340, 34, fill="#fff8e1", round=6)
    d.text(380, 222, f"{terms.removeprefix('+ ')} = {total}   (int32, exact)")
    d.arrow(380, 236, 380, 262)
    d.text(392, 256, "x mean|W| / scale, the only float multiplication", anchor="start", size=12)
    d.text(380, 282, f"{total * mean / scale:.3f}", bold=True)
    d.text(
        420,
        282,
        f"(float weights give {sum(a * b for a, b in zip(x, w, strict=True)):.3f})",
        anchor="start",
        color=PALE,
        size=12,
    )
    d.save("ternary-layer.svg")


def block() -> None:
    """A layer of BitNetForCausalLM: where numbers are float32, and where integers."""
    d = Drawing(
        760, 250, "A transformer layer of BitNet b1.58: norms and attention in float32, projections in integers"
    )
    rows = (
        (40, "attention", ("RMSNorm", "q k v", "RoPE, softmax over pages", "sub-norm", "o")),
        (150, "feed-forward", ("RMSNorm", "gate up", "relu(gate)^2 * up", "sub-norm", "down")),
    )
    widths = (90, 80, 190, 90, 80)
    for y, name, parts in rows:
        d.text(20, y - 10, name, anchor="start", bold=True)
        at = 70.0
        d.arrow(20, y + 20, at - 4, y + 20)
        for part, width in zip(parts, widths, strict=True):
            integer = part in ("q k v", "o", "gate up", "down")
            d.box(at, y, width, 40, fill="#e3edfb" if integer else "#ffffff", round=6)
            d.text(at + width / 2, y + 24, part)
            if part != parts[-1]:
                d.arrow(at + width, y + 20, at + width + 16, y + 20)
            at += width + 20
        d.arrow(at - 20, y + 20, at + 4, y + 20)
        d.text(at + 14, y + 25, "+", size=18)
        d.line((36, y + 20), (36, y + 66), (at + 14, y + 66), (at + 14, y + 30), color=PALE)
        d.text(340, y + 62, "residual stream", color=PALE, size=11)
    d.box(20, 226, 16, 12, fill="#e3edfb")
    d.text(42, 237, "ternary weights times int8 activations; everything else is float32", anchor="start", size=12)
    d.save("layer.svg")


def packing() -> None:
    """How codes lie in memory: a block of 16 rows and 16 columns is 64 bytes."""
    d = Drawing(760, 250, "Packing: sixteen rows and sixteen columns of two-bit codes are 64 bytes")
    d.text(20, 28, "a byte has the codes of columns 0, 4, 8 and 12 of a row ...", anchor="start", color=PALE)
    codes = [1, 0, -1, 1]
    color = {-1: MINUS, 0: ZERO, 1: PLUS}
    _cells(d, 20, 40, [f"{c:+d}" if c else "0" for c in codes], fills=[color[c] for c in codes])
    d.arrow(212, 53, 262, 53)
    _cells(d, 272, 40, [f"{c + 1:02b}" for c in reversed(codes)])
    d.text(470, 58, "code + 1, column 0 in the lowest bits", anchor="start", size=12)
    d.text(
        20,
        100,
        "... four bytes have all 16 columns of a row, and 64 bytes those of 16 rows: one load",
        anchor="start",
        color=PALE,
    )
    for row in range(16):
        x = 20 + row * 45
        d.box(x, 112, 41, 26, fill="#e3edfb", stroke=PALE)
        d.text(x + 20, 129, f"row {row}", size=10)
    d.arrow(380, 142, 380, 182)
    d.text(392, 158, "shifted by 0, 2, 4, 6 bits and masked: 4 columns a lane", anchor="start", size=12)
    d.text(392, 174, "times the int8 of those columns, and summed", anchor="start", size=12)
    for row in range(16):
        x = 20 + row * 45
        d.box(x, 188, 41, 26, fill="#fff8e1", stroke=PALE)
        d.text(x + 20, 205, "int32", size=10)
    d.text(
        20, 236, "sixteen outputs, one in each lane: nothing is ever summed across lanes", anchor="start", color=PALE
    )
    d.save("packing.svg")


def roofline() -> None:
    """Speed against operations for each byte read: the 2B model on two threads of the server of the README."""
    read, vnni, amx = 25.0, 1200.0, 4800.0  # GB/s; 1e9 operations a second, measured for kernels
    per_token, per_prompt_token, bytes_per_step = 4.83, 4.17, 0.72  # 1e9 operations and bytes
    points = (
        ("one sequence: 30 tokens/s", 1, 30.1 * per_token),
        ("16 sequences: 182 tokens/s", 16, 182 * per_token),
        ("prompt of 512: 268 tokens/s", 256, 268 * per_prompt_token),
    )
    left, top, width, height = 80, 20, 640, 300
    x_range, y_range = (1.0, 4000.0), (20.0, 8000.0)

    def at(x: float, y: float) -> tuple[float, float]:
        fx = math.log(x / x_range[0]) / math.log(x_range[1] / x_range[0])
        fy = math.log(y / y_range[0]) / math.log(y_range[1] / y_range[0])
        return round(left + fx * width, 1), round(top + (1 - fy) * height, 1)

    d = Drawing(
        760, 380, "Roofline of the 2B model on two threads: decoding waits for memory, prompts for the multipliers"
    )
    for x in (1, 10, 100, 1000):
        d.line(at(x, y_range[0]), at(x, y_range[1]), color=GRID, width=1)
        d.text(at(x, 20)[0], top + height + 18, f"{x}", size=12)
    for y in (100, 1000):
        d.line(at(x_range[0], y), at(x_range[1], y), color=GRID, width=1)
        d.text(left - 8, at(1, y)[1] + 4, f"{y}", anchor="end", size=12)
    d.line(at(1, read), at(amx / read, amx), at(x_range[1], amx), width=2.5)
    d.line(at(vnni / read, vnni), at(x_range[1], vnni), width=1.5, dash="6 4")
    d.text(at(24, 25 * 24)[0] - 8, at(24, 25 * 24)[1] - 4, "memory: 25 GB/s", anchor="end", size=12)
    d.text(at(3900, amx)[0], at(1, amx)[1] - 8, "AMX: 2 x 2400", anchor="end", size=12)
    d.text(at(3900, vnni)[0], at(1, vnni)[1] - 8, "AVX-512 VNNI: 2 x 600", anchor="end", size=12)
    for label, rows, speed in points:
        ops = per_token if rows < 100 else per_prompt_token
        x, y = at(rows * ops / bytes_per_step, speed)
        d.dot(x, y, fill=MINUS)
        d.text(
            x + (10 if rows < 100 else 60),
            y + (36 if rows == 16 else 22),
            label,
            anchor="start" if rows < 100 else "end",
            size=12,
        )
    d.text(left + width / 2, 360, "integer operations for each byte read (1 weight and 1 activation: 2 operations)")
    d.text(left, 14, "1e9 operations/s", anchor="middle", size=12)
    d.save("roofline.svg")


if __name__ == "__main__":
    for draw in (ternary_layer, block, packing, roofline):
        draw()
