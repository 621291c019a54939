"""The diagram of a model's architecture."""

from os import PathLike
from typing import TYPE_CHECKING, Any

from .svg import SVG, document, element, label

if TYPE_CHECKING:
    from ..config import BitNetConfig
    from ..model import BitNetModel

_TERNARY, _FLOAT, _PLAIN = "#cfe3f5", "#f7ddc3", "#eeeeee"
_INK = "#222222"
_WIDTH, _BOX, _GAP = 460, 30, 16


def architecture(model: "BitNetModel | BitNetConfig", *, path: str | PathLike[str] | None = None) -> SVG:
    """Draws the layers of a model from tokens to logits, with the shapes of their weights: blue ones are ternary, orange ones floats.

    model: a model or a config.
    path: where to write the SVG too.
    """
    config: Any = getattr(model, "config", model)
    held = {one.name for one in model.weights() if one.dtype == "ternary"} if hasattr(model, "weights") else None
    picture = _Drawing(config, held).draw()
    if path is not None:
        picture.save(path)
    return picture


class _Drawing:
    """Boxes from top to bottom, those of a layer within a frame."""

    def __init__(self, config: "BitNetConfig", held: set[str] | None) -> None:
        """held: the names of a model's ternary weights, which a config may say in patterns."""
        self.config, self.held = config, held
        self.parts: list[str] = []
        self.y = 14.0
        quantized = config.get("quantization_config")
        self.kept = tuple((quantized or {}).get("modules_to_not_convert") or ())
        self.ternary = quantized is not None
        self.gpt2 = config.architectures[0].startswith("GPT2")

    def draw(self) -> SVG:
        c = self.config
        hidden, inner = c.hidden_size, c.intermediate_size
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        dim = c.head_dim
        norm = "LayerNorm" if self.gpt2 else "RMSNorm"
        self.box("token ids", _PLAIN)
        self.box(f"embedding   {c.vocab_size:,} x {hidden:,}", _FLOAT)
        if self.gpt2:
            self.box(f"+ learned positions   {c.max_position_embeddings:,} x {hidden:,}", _FLOAT)
        top = self.y + 4
        self.line(self.y, self.y + 34)
        self.y += 34
        skip = self.y - _GAP / 2
        self.box(norm, _PLAIN)
        self.row(
            [
                ("q", heads * dim, hidden, "self_attn.q_proj"),
                ("k", kv_heads * dim, hidden, "self_attn.k_proj"),
                ("v", kv_heads * dim, hidden, "self_attn.v_proj"),
            ]
        )
        shared = "" if heads == kv_heads else f", {kv_heads} of keys and values"
        turned = "" if self.gpt2 else "rotary positions, "
        self.box(f"{turned}attention: {heads} heads of {dim}{shared}", _PLAIN)
        sub_norms = c.architectures[0] in ("BitNetForCausalLM", "BitnetForCausalLM")
        if sub_norms:
            self.box(f"{norm} (sub-norm)", _PLAIN)
        self.row([("output", hidden, heads * dim, "self_attn.o_proj")])
        skip = self.plus(skip)
        self.box(norm, _PLAIN)
        act = c.get("hidden_act", "relu2")
        if self.gpt2:
            self.row([("up", inner, hidden, "mlp.up_proj")])
            self.box(act, _PLAIN)
        else:
            self.row([("gate", inner, hidden, "mlp.gate_proj"), ("up", inner, hidden, "mlp.up_proj")])
            self.box(f"{'ReLU²' if act == 'relu2' else act}(gate) x up", _PLAIN)
        if sub_norms:
            self.box(f"{norm} (sub-norm)", _PLAIN)
        self.row([("down", hidden, inner, "mlp.down_proj")])
        self.plus(skip)
        frame = element(
            "rect", x=16, y=top, width=_WIDTH - 32, height=self.y - top - _GAP + 8, rx=10, fill="none", stroke=_INK,
            stroke_dasharray="5 4",
        )  # fmt: skip
        times = label(30, top + 20, f"{c.num_hidden_layers} layers", font_size=13, font_weight="bold", fill=_INK)
        self.line(self.y, self.y + 14)
        self.y += 14
        self.box(norm, _PLAIN)
        tied = "the embedding's table" if c.get("tie_word_embeddings", False) else f"{c.vocab_size:,} x {hidden:,}"
        self.box(f"head   {tied}", _FLOAT)
        self.box("logits", _PLAIN, last=True)
        legend = self.legend()
        height = self.y + 4
        paper = element("rect", x=0, y=0, width=_WIDTH, height=height, rx=8, fill="#ffffff")
        title = f"{c.architectures[0]}, {c.num_hidden_layers} layers, hidden size {hidden}"
        return document(_WIDTH, height, [paper, frame, times, *self.parts, legend], title)

    def box(self, text: str, fill: str, last: bool = False) -> None:
        self.place(text, fill, 90, _WIDTH - 180)
        self.y += _BOX
        self.arrow(last)

    def row(self, projections: list[tuple[str, int, int, str]]) -> None:
        """Projections that read the same input, side by side."""
        width = (_WIDTH - 110 - 8 * (len(projections) - 1)) / len(projections)
        for i, (name, rows, columns, module) in enumerate(projections):
            fill = _TERNARY if self.is_ternary(f"model.layers.0.{module}") else _FLOAT
            self.place(f"{name}   {rows:,} x {columns:,}", fill, 55 + i * (width + 8), width)
        self.y += _BOX
        self.arrow(False)

    def is_ternary(self, module: str) -> bool:
        """Of the first layer's projections, for which the others stand."""
        if self.held is not None:
            return f"{module}.weight" in self.held
        return self.ternary and not module.endswith(self.kept)

    def plus(self, skip: float) -> float:
        """The sum with what came in, by a line around the boxes; gives where the next such line begins."""
        x, right = _WIDTH / 2, _WIDTH - 34
        y = self.y + 9
        line = f"M{x},{skip} H{right} V{y} H{x + 9}"
        self.parts.append(element("path", d=line, fill="none", stroke=_INK, stroke_opacity=0.6))
        self.parts.append(element("circle", cx=x, cy=y, r=9, fill="#ffffff", stroke=_INK))
        self.parts.append(label(x, y + 4.5, "+", text_anchor="middle", font_size=14, fill=_INK))
        self.y += 18
        self.arrow(False)
        return self.y - _GAP / 2

    def place(self, text: str, fill: str, x: float, width: float) -> None:
        self.parts.append(
            element("rect", x=x, y=self.y, width=width, height=_BOX, rx=5, fill=fill, stroke=_INK, stroke_opacity=0.5)
        )
        size = 12 if len(text) * 6.5 < width else 12 * width / (len(text) * 6.5)
        self.parts.append(
            label(x + width / 2, self.y + 19.5, text, text_anchor="middle", font_size=float(size), fill=_INK)
        )

    def arrow(self, last: bool) -> None:
        if not last:
            self.line(self.y, self.y + _GAP)
        self.y += _GAP

    def line(self, top: float, bottom: float) -> None:
        x = _WIDTH / 2
        self.parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, stroke=_INK, stroke_opacity=0.6))

    def legend(self) -> str:
        kinds: list[tuple[str, str]] = [(_TERNARY, "ternary weights, int8 inputs"), (_FLOAT, "floats or int8 tables")]
        parts: list[Any] = []
        for i, (fill, text) in enumerate(kinds if self.ternary else kinds[1:]):
            x = 60 + 200 * i
            parts.append(
                element("rect", x=x, y=self.y, width=14, height=14, rx=3, fill=fill, stroke=_INK, stroke_opacity=0.5)
            )
            parts.append(label(x + 20, self.y + 11.5, text, font_size=11, fill=_INK))
        self.y += 20
        return "".join(parts)
