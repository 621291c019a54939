"""What make_parity needs for GPT-2: its names and shapes, and ternary layers, which transformers does not have for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers.integrations.bitnet import AutoBitLinear
from transformers.pytorch_utils import Conv1D

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "layer_norm_epsilon": 2e-3,
    "activation_function": "gelu_new",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "float32",
}

Draw = Callable[..., torch.Tensor]


def tensors(c: dict[str, Any], prefix: str, normal: Draw, near_one: Draw) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a checkpoint, but for a head of its own."""
    d = c["n_embd"]
    inner = c.get("n_inner") or 4 * d
    yield prefix + "wte.weight", normal(0.2, c["vocab_size"], d)
    yield prefix + "wpe.weight", normal(0.2, c["n_positions"], d)
    for i in range(c["n_layer"]):
        for name, rows, cols in [
            ("attn.c_attn", d, 3 * d),
            ("attn.c_proj", d, d),
            ("mlp.c_fc", d, inner),
            ("mlp.c_proj", inner, d),
        ]:
            yield f"{prefix}h.{i}.{name}.weight", normal(0.15, rows, cols)
            yield f"{prefix}h.{i}.{name}.bias", normal(0.3, cols)
    for norm in [f"h.{i}.{name}" for i in range(c["n_layer"]) for name in ("ln_1", "ln_2")] + ["ln_f"]:
        yield f"{prefix}{norm}.weight", near_one(d)
        yield f"{prefix}{norm}.bias", normal(0.2, d)


def ternarize(model: Any) -> None:
    """Makes the projections of a GPT2LMHeadModel transformers' own ternary layers for master weights, q, k and v each for itself."""
    for block in model.transformer.h:
        block.attn.c_attn = Beside(split(block.attn.c_attn, 3))
        block.attn.c_proj = Beside(split(block.attn.c_proj, 1))
        block.mlp.c_fc = Beside(split(block.mlp.c_fc, 1))
        block.mlp.c_proj = Beside(split(block.mlp.c_proj, 1))


def split(conv: Conv1D, parts: int) -> list[AutoBitLinear]:
    """The columns of a layer as ternary layers."""
    layers = []
    for weight, bias in zip(conv.weight.chunk(parts, 1), conv.bias.chunk(parts), strict=True):
        layer = AutoBitLinear(weight.shape[0], weight.shape[1], bias=True, online_quant=True)
        layer.weight = torch.nn.Parameter(weight.T.contiguous())
        layer.bias = torch.nn.Parameter(bias.clone())
        layers.append(layer)
    return layers


class Beside(torch.nn.Module):
    """Layers of one input, their outputs side by side."""

    def __init__(self, layers: list[AutoBitLinear]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(x) for layer in self.layers], -1)
