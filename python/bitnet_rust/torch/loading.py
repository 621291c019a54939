"""A module of torch as a BitNetModel."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from ..errors import ArgumentError, ConfigError
from ..model import BitNetModel
from . import gpt2
from .bridge import tensor
from .layers import BitLinear

# What a layer's projections are called, the linears of a Llama.
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
_PROJECTION = re.compile(r"model\.layers\.(\d+)\.(self_attn|mlp)\.(\w+_proj)")

# The classes whose names a config.json has, by model_type.
_CLASSES = {"llama": "LlamaForCausalLM", "bitnet": "BitNetForCausalLM", "gpt2": "GPT2LMHeadModel"}

# Families of transformers that compute what a Llama does, when their windows are off.
_FAMILIES = ("llama", "bitnet", "mistral", "qwen2")

# What a config calls the activations of torch and transformers, by class. A ReLU may be squared behind.
_GELU_NEW, _SILU = ("gelu_new", "gelu_pytorch_tanh"), ("silu", "swish")
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "ReLU": ("relu", "relu2"),
    "ReLUSquaredActivation": ("relu2",),
    "SiLU": _SILU,
    "SiLUActivation": _SILU,
    "GELUActivation": ("gelu",),
    "NewGELU": _GELU_NEW,
    "NewGELUActivation": _GELU_NEW,
    "GELUTanh": _GELU_NEW,
    "PytorchGELUTanh": _GELU_NEW,
}
_ACTIVATION_NAMES = ("relu2", "relu", *_SILU, "gelu", *_GELU_NEW)

# Prefixes that torch.compile, data parallelism and others put before a name.
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|module|_checkpoint_wrapped_module)\.")

Rule = Literal["auto", "all", "none"]


def from_torch(
    module: nn.Module,
    *,
    config: Any = None,
    ternary: Rule | Callable[[str, nn.Module], bool] = "auto",
    trainable: bool = False,
    head_dtype: str = "auto",
    kv_dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float32",
    packing: Literal["auto", "2bit", "base3"] = "auto",
) -> BitNetModel:
    """A BitNetModel that computes what a torch module does.

    module: a language model in the layout of Llama, BitNet or GPT-2: parameters named ``...embed_tokens.weight``,
        ``...layers.0.self_attn.q_proj.weight`` and so on, as transformers' LlamaForCausalLM, BitNetForCausalLM, MistralForCausalLM and
        Qwen2ForCausalLM have them, and `to_torch`'s; or ``...wte.weight``, ``...wpe.weight``, ``...h.0.attn.c_attn.weight`` and so on, as
        transformers' GPT2LMHeadModel has them, with matrices [in, out], and nanoGPT, with those of Linear. Layers are Linear, `BitLinear` or transformers' BitLinear and AutoBitLinear, in
        any float dtype, float64 being rounded to float32, or packed; norms are RMSNorm, those of GPT-2 LayerNorm. A module without a head has the embedding as its
        head.
    config: the model's BitNetConfig, or a dictionary of some of its fields, for modules that have no ``config`` of their own; sizes
        that the weights show may be left out, num_attention_heads may not.
    ternary: which of the projections of attention and feed-forward network become ternary. The rule "auto" takes the layers that
        are ternary in the module (BitLinear and its like, by the class's name, and packed weights); what is a plain Linear stays float, so that
        the model computes what the module does. "all" makes every projection ternary, as `replace_linear` does, from which a
        model of floats has to be trained again; "none" keeps the master weights of all as they are. A function of the layer's name, such as
        "model.layers.0.mlp.up_proj", and the module says it for each. Embedding and head are always float. GPT-2's c_attn is the layers
        q_proj, k_proj and v_proj, which quantize each by its own mean; by "auto" one that is ternary in the module keeps its codes and scale,
        unless the model is trainable.
    trainable: keep float32 master weights, for ``Trainer``; those of packed layers are made up, see `BitNetModel.from_pretrained`.
    head_dtype, kv_dtype, packing: as in ``BitNetModel.from_pretrained``.

    Weights are copied. The tokenizer is for you to set (``model.tokenizer = ...``).

    Raises ArgumentError for a layout that no BitNetModel has, and for a norm's eps or an activation of which the config or another module
    says something else; ConfigError for a config that does not fit, FormatError for a tensor that has no place.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"from_torch({type(module).__name__}): expected a torch.nn.Module")
    parts = _Parts(module)
    fields = parts.config(config, _rule(ternary))
    if ternary == "auto" and not trainable:
        parts.keep_fused_codes()
    state = {name: tensor(value) for name, value in parts.state.items()}
    return BitNetModel.from_state_dict(
        fields, state, head_dtype=head_dtype, kv_dtype=kv_dtype, packing=packing, trainable=trainable
    )


def _rule(ternary: Any) -> Callable[[str, nn.Module], bool]:
    if callable(ternary):
        rule: Callable[[str, nn.Module], bool] = ternary
        return rule
    if ternary not in ("auto", "all", "none"):
        raise ArgumentError(f'ternary = {ternary!r}: expected "auto", "all", "none" or a function of name and module')
    return {"auto": lambda _, part: _is_ternary(part), "all": lambda *_: True, "none": lambda *_: False}[ternary]


def _is_ternary(part: nn.Module) -> bool:
    weight = getattr(part, "weight", None)
    return "bitlinear" in type(part).__name__.lower() or getattr(weight, "dtype", None) == torch.uint8


class _Parts:
    """The tensors and layers of a module under the names of a Llama checkpoint."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        found = {_WRAPPERS.sub(r"\1", name): value for name, value in module.state_dict(keep_vars=True).items()}
        layers = {_WRAPPERS.sub(r"\1", name): part for name, part in module.named_modules(remove_duplicate=False)}
        prefix = gpt2.prefix_of(found)
        if prefix is not None:
            found, layers = gpt2.rename(found, layers, prefix)
        prefix = _prefix(found, module)
        rename = re.compile(rf"^{re.escape(prefix)}(?=(embed_tokens|embed_positions|layers|norm)\b)")
        self.state = {rename.sub("model.", name): value for name, value in found.items()}
        self.layers = {rename.sub("model.", name): part for name, part in layers.items()}
        self.is_gpt2 = "model.embed_positions.weight" in self.state
        if prefix and "lm_head.weight" not in self.state:  # beside a decoder that is itself part of something
            for name in [name for name in self.state if name.endswith(".lm_head.weight")]:
                self.state["lm_head.weight"] = self.state.pop(name)
        embedding = self.state["model.embed_tokens.weight"]
        head = self.state.get("lm_head.weight")
        self.tied = head is None or head.data_ptr() == embedding.data_ptr()
        if self.tied:
            self.state.pop("lm_head.weight", None)
        for name, value in self.state.items():  # copies, so after what looks at addresses
            if value.dtype == torch.float64:
                self.state[name] = value.detach().float()
        norms = {name: part for name, part in self.layers.items() if name.startswith("model.")}
        self.norms = {name: part for name, part in norms.items() if "norm" in type(part).__name__.lower()}
        self._complete_norms()
        self.depth = 1 + max(int(m[1]) for name in self.state if (m := _PROJECTION.match(name)))

    def config(self, given: Any, is_ternary: Callable[[str, nn.Module], bool]) -> dict[str, Any]:
        """The content of a config.json. It completes the biases of the state, of which a checkpoint has all or none."""
        self._check_norms()
        fields = self._given(given)
        projections = {name: part for name, part in self.layers.items() if _PROJECTION.fullmatch(name)}
        floats = [name for name, part in projections.items() if not is_ternary(name, part)]
        for name in floats:
            if self.state[f"{name}.weight"].dtype == torch.uint8:
                raise ArgumentError(f"{name} is packed: expected a rule (ternary=) by which it stays ternary")
        sub_norms = "model.layers.0.self_attn.attn_sub_norm.weight" in self.state
        quantization = self._quantization(fields.pop("quantization_config", None), projections, floats)
        if not self.is_gpt2 or len(floats) < len(projections):  # a GPT-2 of floats says nothing of it
            fields["quantization_config"] = quantization
        kind = "gpt2" if self.is_gpt2 else "bitnet" if sub_norms else "llama"
        fields |= {
            "architectures": [_CLASSES[kind]],
            "model_type": kind,
            "tie_word_embeddings": self.tied,
            "attention_bias": self._complete_biases("self_attn", _ATTENTION),
            "mlp_bias": self._complete_biases("mlp", _FEED_FORWARD),
        }
        return fields

    def keep_fused_codes(self) -> None:
        """Gives ternary layers that are one in the module master weights of the codes and the scale that they have in it."""
        names = [[f"model.layers.{i}.self_attn.{name}_proj" for name in "qkv"] for i in range(self.depth)]
        for parts in names:
            if self.layers[parts[0]] is self.layers[parts[1]] and _is_ternary(self.layers[parts[0]]):
                whole = torch.cat([self.state[f"{name}.weight"] for name in parts])
                for name, weight in zip(parts, gpt2.same_codes(whole, len(parts)), strict=True):
                    self.state[f"{name}.weight"] = weight

    def _given(self, given: Any) -> dict[str, Any]:
        """The module's own config or the caller's, with what the weights show."""
        own = given
        if own is None:  # the first on the way in: wrappers have none
            own = next((part.config for part in self.module.modules() if hasattr(part, "config")), None)
        if own is None:
            needed = "'n_head': ..." if self.is_gpt2 else "'num_attention_heads': ..., 'rope_theta': ..."
            raise ArgumentError(f"{type(self.module).__name__} has no config: pass config={{{needed}, ...}}")
        own = gpt2.config_fields(own) if self.is_gpt2 else own
        named = own.to_dict() if hasattr(own, "to_dict") else own
        if not isinstance(named, Mapping):
            raise ConfigError(
                f"config is of type {type(own).__name__}: expected a BitNetConfig or a dictionary of fields"
            )
        if self.is_gpt2:
            _check_type(named, ("gpt2",))
        else:
            _check_family(named)
        fields = json.loads(json.dumps(dict(named), default=_plain))
        fields["dtype"] = str(self.state["model.embed_tokens.weight"].dtype).removeprefix("torch.")
        fields.pop("torch_dtype", None)
        fields = {name: value for name, value in fields.items() if value is not None}
        return self._sizes() | fields | self._eps(fields) | self._activation(fields)

    def _sizes(self) -> dict[str, Any]:
        """What the weights and norms show of a config."""
        vocab, dim = self.state["model.embed_tokens.weight"].shape
        shown = {"vocab_size": vocab, "hidden_size": dim, "num_hidden_layers": self.depth}
        down = self.state.get("model.layers.0.mlp.down_proj.weight")
        if down is not None:
            shown["intermediate_size"] = down.shape[1]
        if self.is_gpt2:
            shown["max_position_embeddings"] = self.state["model.embed_positions.weight"].shape[0]
        return shown

    def _complete_norms(self) -> None:
        """Ones for the weight of a norm that has none, and zeros for the bias of a GPT-2's."""
        for name, part in self.norms.items():
            shape = getattr(part, "normalized_shape", None)
            if shape is not None and getattr(part, "weight", None) is None:
                self.state[f"{name}.weight"] = torch.ones(shape)
        if self.is_gpt2:
            for name in [name for name in self.state if name.endswith("norm.weight")]:
                self.state.setdefault(name.removesuffix("weight") + "bias", torch.zeros(self.state[name].shape))

    def _check_norms(self) -> None:
        """Refuses norms that compute something else, by their classes."""
        for name, part in self.norms.items():
            kind = type(part).__name__
            if self.is_gpt2:
                if "LayerNorm" not in kind or "RMS" in kind or "T5" in kind:  # T5's subtracts no mean
                    raise ArgumentError(f"{name} is a {kind}: expected LayerNorm, the norm of a GPT-2")
            elif "RMSNorm" not in kind or "Gemma" in kind:
                raise ArgumentError(f"{name} is a {kind}: expected RMSNorm, the norm of layers in this layout")

    def _eps(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """The one eps that a model's norms have, by the norms or, where they do not say it, by the config. nanoGPT's has torch's."""
        field = "layer_norm_epsilon" if "layer_norm_epsilon" in stated else "rms_norm_eps"
        norms = {name: part for name, part in self.norms.items() if not name.endswith(".rms_norm")}
        want = stated.get(field)
        if not isinstance(want, int | float | None):  # which the core refuses
            return {}
        want = _one_eps(norms, want, f"the config's {field}")
        if want is None and self.is_gpt2:
            want = 1e-5
        return {} if want is None else {field: want}

    def _activation(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """The activation of the feed-forward networks, by their modules or, where these do not say it, by the config."""
        field = "activation_function" if "activation_function" in stated else "hidden_act"
        want, whose = stated.get(field), f"the config's {field}"
        for name, part in self.layers.items():
            known = _activations(part) if ".mlp." in name else None
            if known is None or (want is not None and want not in _ACTIVATION_NAMES):  # which the core refuses
                continue
            if want is None and known:
                want, whose = known[0], f"that of {name}"
            if want not in known:
                expected = f"the module of {want!r}, {whose}" if want else f"one of {', '.join(_ACTIVATION_NAMES)}"
                raise ArgumentError(f"{name} is a {type(part).__name__}: expected {expected}")
        if want is None and self.is_gpt2:
            raise ArgumentError(
                'the module does not say which activation its feed-forward network has: pass config={"activation_function": "gelu_new", ...}'
            )
        return {} if want is None else {field: want}

    def _complete_biases(self, group: str, names: tuple[str, ...]) -> bool:
        """Whether the projections of a group have biases; zeros where only some have one, as in Qwen2, and where a GPT-2 has none."""
        paths = [f"model.layers.{i}.{group}.{name}" for i in range(self.depth) for name in names]
        if not self.is_gpt2 and not any(self.state.get(f"{path}.bias") is not None for path in paths):
            return False
        for path in paths:
            weight = self.state.get(f"{path}.weight")
            if weight is not None and self.state.get(f"{path}.bias") is None:
                rows = weight.shape[0] * (4 if weight.dtype == torch.uint8 else 1)
                self.state[f"{path}.bias"] = torch.zeros(rows)
        return True

    def _quantization(
        self, own: Mapping[str, Any] | None, projections: Mapping[str, nn.Module], floats: list[str]
    ) -> dict[str, Any]:
        """What the config says of ternary layers: transformers' own layers are what the module's config says, ours master weights."""
        ours = own is None or any(isinstance(part, BitLinear) for part in projections.values())
        made: dict[str, Any] = {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "online",
        }
        if not ours:
            made |= {name: value for name, value in dict(own or {}).items() if value is not None}
        norms = {
            f"{name}.rms_norm": norm
            for name, part in projections.items()
            if isinstance(norm := getattr(part, "rms_norm", None), nn.Module)
        }
        if norms:
            made |= {"use_rms_norm": True, "rms_norm_eps": _one_eps(norms)}
        return made | {"modules_to_not_convert": _patterns(floats, self.depth) or None}


def _eps(norm: Any) -> float | None:
    """The eps of a norm of transformers, of ours, or of torch, where None is that of an RMSNorm's dtype; None of one that does not say it."""
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if eps is None and hasattr(norm, "eps"):
        weight = getattr(norm, "weight", None)
        eps = torch.finfo(torch.get_default_dtype() if weight is None else weight.dtype).eps
    return None if eps is None else float(eps)


def _one_eps(norms: Mapping[str, nn.Module], want: float | None = None, whose: str = "") -> float | None:
    """The eps that is wanted, or else that all norms have that say one."""
    for name, part in norms.items():
        eps = _eps(part)
        if want is None:
            want, whose = eps, f"that of {name}"
        elif eps is not None and not math.isclose(eps, want, rel_tol=1e-6):
            raise ArgumentError(
                f"{name} has eps = {eps}: expected {want}, {whose}, as all norms of a model have one eps"
            )
    return want


def _activations(part: nn.Module) -> tuple[str, ...] | None:
    """What a config calls an activation module, nothing if no BitNetModel has it; None for other modules."""
    kind = type(part).__name__
    if isinstance(part, nn.GELU):
        return _ACTIVATIONS["GELUActivation" if part.approximate == "none" else "GELUTanh"]
    if kind in _ACTIVATIONS:
        return _ACTIVATIONS[kind]
    return () if type(part).__module__ == nn.GELU.__module__ or kind.endswith("Activation") else None


def _prefix(names: Mapping[str, Any], module: nn.Module) -> str:
    """What stands before "embed_tokens" and "layers"."""
    prefixes = [name.removesuffix("embed_tokens.weight") for name in names if name.endswith("embed_tokens.weight")]
    if len(prefixes) == 1 and f"{prefixes[0]}layers.0.self_attn.q_proj.weight" in names:
        return prefixes[0]
    kind = type(module).__name__
    shown = ", ".join(list(names)[:4])
    raise ArgumentError(
        f"{kind} has the parameters {shown}, ...: expected the layout of Llama or BitNet, one embed_tokens.weight beside "
        "layers.0.self_attn.q_proj.weight and so on, or that of GPT-2, wte.weight beside wpe.weight and h.0.attn.c_attn.weight"
    )


def _check_family(fields: Mapping[str, Any]) -> None:
    """Refuses families whose layers have a Llama's names and compute something else."""
    _check_type(fields, _FAMILIES)
    family = fields.get("model_type")
    window = fields.get("sliding_window")
    off = family == "qwen2" and not fields.get("use_sliding_window")
    if window is not None and not off and window < fields.get("max_position_embeddings", window + 1):
        raise ArgumentError(f"sliding_window = {window}: expected None, as a BitNetModel attends to all of its context")


def _check_type(fields: Mapping[str, Any], families: tuple[str, ...]) -> None:
    family = fields.get("model_type")
    if family not in (None, "", *families):
        raise ArgumentError(
            f"model_type = {family!r}: expected one of {', '.join(families)}; if the module computes what a {families[0]} does, pass its "
            "config as a dictionary without model_type"
        )


def _patterns(floats: list[str], depth: int) -> list[str]:
    """modules_to_not_convert for the layers that stay float: one pattern for a projection that does so in every layer."""
    kinds: dict[str, list[str]] = {}
    for name in floats:
        kinds.setdefault(name.split(".", 3)[3], []).append(name)
    return [pattern for kind, names in kinds.items() for pattern in ([kind] if len(names) == depth else names)]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
