"""Modules in the layout of GPT-2, whose parts get the names that those of a Llama have."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError

# What GPT-2 calls its modules, and what a BitNetModel does. c_attn is q_proj, k_proj and v_proj in one.
_TOP = {"wte": "model.embed_tokens", "wpe": "model.embed_positions", "ln_f": "model.norm"}
_LAYER = {
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
_FUSED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_MODULE = re.compile(r"h\.(\d+)\.(.+)")
_MASK = re.compile(r"\.attn\.(masked_)?bias$")  # of older versions, not a weight

State = dict[str, torch.Tensor]


def prefix_of(names: Mapping[str, Any]) -> str | None:
    """What stands before "wte" and "h" in the names of a GPT-2, None for other layouts."""
    found = [name.removesuffix("wpe.weight") for name in names if re.search(r"(^|\.)wpe\.weight$", name)]
    if len(found) != 1 or f"{found[0]}wte.weight" not in names or f"{found[0]}h.0.attn.c_attn.weight" not in names:
        return None
    return found[0]


def rename(state: State, layers: Mapping[str, nn.Module], prefix: str) -> tuple[State, dict[str, nn.Module]]:
    """The tensors, matrices as [out, in], and modules of a GPT-2 under the names of a BitNetModel."""
    turned = _fused_is_turned(state, layers, prefix)
    if name := next((name for name in state if "crossattention" in name or "ln_cross_attn" in name), None):
        raise ArgumentError(f"{name}: expected a GPT-2 without cross attention, a language model alone")
    found: State = {}
    for name, value in state.items():
        if _MASK.search(name):
            continue
        if not name.startswith(prefix):  # beside the decoder: a head, or what the core refuses
            found[re.sub(r"^(.+\.)?lm_head\.", "lm_head.", name)] = value
            continue
        module, _, part = name.removeprefix(prefix).rpartition(".")
        if _MODULE.fullmatch(module) and value.ndim == 2 and _is_turned(layers.get(prefix + module), turned):
            value = value.detach().T
        targets = _names(module)
        pieces = value.detach().chunk(len(targets)) if len(targets) > 1 else [value]
        found |= {f"{target}.{part}": piece for target, piece in zip(targets, pieces, strict=True)}
    modules = {target: part for name, part in layers.items() for target in _names(name.removeprefix(prefix))}
    return found, modules


def _names(module: str) -> tuple[str, ...]:
    """What a BitNetModel calls a module of GPT-2, or its parts."""
    match = _MODULE.fullmatch(module)
    if not match:
        return (_TOP.get(module, module),)
    layer, rest = f"model.layers.{match[1]}.", match[2]
    if rest == "attn.c_attn":
        return tuple(layer + name for name in _FUSED)
    return (layer + _LAYER.get(rest, rest),)


def _is_turned(part: nn.Module | None, otherwise: bool) -> bool:
    """Whether a layer's matrix is [in, out], as transformers' Conv1D has it, and not [out, in] as a Linear: by its class, where that says it."""
    if hasattr(part, "in_features"):
        return False
    return otherwise if part is None or not is_conv1d(part) else True


def is_conv1d(part: nn.Module) -> bool:
    """Whether a layer is transformers' Conv1D, a Linear whose matrix is [in, out]."""
    return any(kind.__name__ == "Conv1D" for kind in type(part).__mro__)


def _fused_is_turned(state: State, layers: Mapping[str, nn.Module], prefix: str) -> bool:
    """Whether the first c_attn is [in, out], which goes for the layers whose class does not say it. Refuses shapes of any that no GPT-2 has."""
    turned = []
    for name in [name for name in state if name.startswith(f"{prefix}h.") and name.endswith(".attn.c_attn.weight")]:
        weight = state[name]
        if weight.dtype == torch.uint8:
            raise ArgumentError(
                f"{name} is packed: expected master weights, as a GPT-2's queries, keys and values are ternary each by its own mean"
            )
        rows, cols = weight.shape
        turned.append(_is_turned(layers.get(name.removesuffix(".weight")), cols == 3 * rows))
        if (rows, cols) != ((cols // 3, 3 * rows) if turned[-1] else (3 * cols, cols)):
            raise ArgumentError(
                f"{name} has shape ({rows}, {cols}): expected queries, keys and values of equal size, (d, 3 * d) or (3 * d, d)"
            )
    return turned[0]


def config_fields(config: Any) -> Any:
    """What a config that is a dataclass, as nanoGPT's, says in the names of a config.json."""
    if hasattr(config, "to_dict") or not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    fields = dataclasses.asdict(config)
    return {name: fields[name] for name in ("vocab_size", "n_layer", "n_head", "n_embd") if name in fields}


def same_codes(weight: torch.Tensor, parts: int) -> list[torch.Tensor]:
    """Master weights [out, in] for the parts of a ternary layer of fused parts. Each part quantizes, by a mean of its own, to the codes and to the scale that it has in
    the whole."""
    whole = weight.detach().float()
    scale = whole.abs().mean().clamp_min(1e-5)
    codes = (whole / scale).round().clamp(-1, 1)
    return [part * (scale * part.numel() / part.abs().sum().clamp_min(1)) for part in codes.chunk(parts)]
