"""What objects look like in a notebook. Every text that is not ours is escaped: names come from files."""

from html import escape
from typing import TYPE_CHECKING, Any

from ..inspection import Branch, branches

if TYPE_CHECKING:
    from ..model import BitNetModel
    from ..tensor import Tensor
    from ..training import History

_CELL = "padding:1px 8px;text-align:right"
_MOST_ROWS, _MOST_COLUMNS = 6, 8


def model_html(model: "BitNetModel") -> str:
    """What a model is, and its modules as a tree that unfolds: shapes, numbers of weights, bytes."""
    if model.closed:
        return f"<code>{escape(repr(model))}</code>"
    listed = [
        {"name": one.name, "dtype": one.dtype, "shape": list(one.shape), "bytes": one.bytes} for one in model.weights()
    ]
    facts = {
        "architecture": model.config.architectures[0],
        "parameters": f"{model.num_parameters():,}",
        "weights in memory": size(model.memory_footprint()),
        "head": model.head_dtype,
        "packing": model.packing,
        "context": f"{model.config.max_position_embeddings:,} tokens",
        "trainable": "yes" if model.trainable else "no",
    }
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th><td>{escape(text)}</td></tr>" for name, text in facts.items()
    )
    tree = "".join(_branch(one, unfolded=True) for one in branches(listed))
    title = escape(model._path.name if model._path else "BitNetModel")
    return (
        f"<div><b>{title}</b><table>{rows}</table><div style='font-family:monospace;font-size:90%'>{tree}</div></div>"
    )


def _branch(branch: Branch, unfolded: bool = False) -> str:
    name = escape(branch.label)
    parts = []
    if branch.tensor is not None:
        shape = " x ".join(f"{n:,}" for n in branch.tensor["shape"])
        held = size(branch.tensor["bytes"])
        parts.append(
            f"<div style='padding-left:1.2em'>{name} <span style='opacity:.65'>{escape(branch.tensor['dtype'])} {shape}, {held}</span></div>"
        )
    if branch.children:
        each = f"{branch.times} x " if branch.times > 1 else ""
        said = f"<span style='opacity:.65'>{each}{branch.weights:,} weights, {size(branch.bytes)}</span>"
        inside = "".join(_branch(child) for child in branch.children)
        parts.append(
            f"<details{' open' * unfolded} style='padding-left:1.2em'><summary>{name} {said}</summary>{inside}</details>"
        )
    return "".join(parts)


def history_html(history: "History") -> str:
    """What a run came to, and its losses."""
    from .curves import loss_chart

    line = f"<code>{escape(repr(history))}</code>"
    return f"<div>{line}<br>{loss_chart(history)}</div>" if history else line


def tensor_html(tensor: "Tensor") -> str:
    """Shape, dtype and range, and the first numbers of a tensor as a table: of more than two axes, of the first matrix."""
    import numpy as np

    shape = " x ".join(f"{n:,}" for n in tensor.shape) or "scalar"
    facts = [f"<b>Tensor</b> {shape}", tensor.dtype]
    if tensor.requires_grad:
        facts.append("requires_grad")
    if not tensor.size:
        return f"<div>{', '.join(facts)}, empty</div>"
    plain = tensor.detach()
    if tensor.dtype not in ("bool",):
        low, high = (float(x.astype("float32").item()) for x in (plain.min(), plain.max()))
        facts.append(f"{low:.4g} to {high:.4g}")
    first = plain
    while first.ndim > 2:
        first = first[0]
    if tensor.ndim > 2:
        facts.append("the first matrix:")
    corner = first if first.ndim == 2 else first.reshape(1, -1)
    some = np.asarray(corner[:_MOST_ROWS, :_MOST_COLUMNS].numpy())
    more_rows, more_columns = (n > most for n, most in zip(corner.shape, (_MOST_ROWS, _MOST_COLUMNS), strict=True))
    lines = [[_number(x) for x in row] + ["…"] * more_columns for row in some.tolist()]
    if more_rows:
        lines.append(["…"] * len(lines[0]))
    table = "".join(
        "<tr>" + "".join(f"<td style='{_CELL}'>{escape(text)}</td>" for text in line) + "</tr>" for line in lines
    )
    return f"<div>{', '.join(facts)}<table style='font-family:monospace;font-size:90%'>{table}</table></div>"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def size(n: int) -> str:
    """Bytes for people."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n >= factor:
            return f"{n / factor:,.1f} {unit}"
    return f"{n} bytes"
