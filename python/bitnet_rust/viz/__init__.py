"""Pictures of models, of their training and of where their time and memory go.

>>> from bitnet_rust import BitNetModel, viz
>>> model = BitNetModel.from_pretrained("bitnet-shakespeare")
>>> diagram = viz.architecture(model)  # an SVG; notebooks show it
>>> figure = viz.ternary_map(model, "model.layers.0.mlp.up_proj.weight")

Figures are matplotlib's (``pip install 'bitnet-rust[viz]'``), which a notebook shows and ``savefig`` writes; with ``path`` they are
written at once, whole or not at all, in the format that the name ends in. ``architecture``, ``LivePlot`` and what models, histories and
tensors look like in a notebook need no other package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .architecture import architecture
    from .attention import attention_map
    from .curves import training_curves
    from .live import LivePlot
    from .memory import MemoryRecorder, memory_timeline
    from .roofline import roofline
    from .svg import SVG
    from .weights import (
        TernaryChanges,
        quantization_errors,
        ternary_changes,
        ternary_map,
        ternary_shares,
        weight_histogram,
    )

_HOMES = {
    "LivePlot": "live",
    "MemoryRecorder": "memory",
    "SVG": "svg",
    "TernaryChanges": "weights",
    "architecture": "architecture",
    "attention_map": "attention",
    "memory_timeline": "memory",
    "quantization_errors": "weights",
    "roofline": "roofline",
    "ternary_changes": "weights",
    "ternary_map": "weights",
    "ternary_shares": "weights",
    "training_curves": "curves",
    "weight_histogram": "weights",
}

__all__ = [
    "LivePlot",
    "MemoryRecorder",
    "SVG",
    "TernaryChanges",
    "architecture",
    "attention_map",
    "memory_timeline",
    "quantization_errors",
    "roofline",
    "ternary_changes",
    "ternary_map",
    "ternary_shares",
    "training_curves",
    "weight_histogram",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # in place of the module of the same name
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
