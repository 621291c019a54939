"""A BitNetModel as a module of torch: the same layers, names and numbers."""

import json
from typing import Any, NamedTuple

import torch
from torch import nn

from .. import _bitnet
from ..config import BitNetConfig
from ..errors import ArgumentError, ShapeError
from ..model import BitNetModel
from ..nn import functional as F
from ..tensor import Tensor
from .bridge import apply, share
from .layers import BitLinear, Estimator, LayerNorm, Linear, RMSNorm, float_linear

# hidden_act of a config, as the core's functions call it.
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


class CausalLMOutput(NamedTuple):
    """What a `BitNetModule` returns.

    loss: the mean cross-entropy in nats; None without labels.
    logits: [batch, length, vocab_size], float32.
    """

    loss: torch.Tensor | None
    logits: torch.Tensor


class BitNetModule(nn.Module):
    """A causal language model whose parts are computed by the Go core, made by `to_torch`.

    The parameters have the names and the order of ``BitNetModel.parameters()``, those of a Hugging Face checkpoint of master weights; a
    GPT-2 has the same names, and not its own.
    Optimizers, hooks, ``torch.utils.checkpoint`` and ``safetensors.torch.save_file(module.state_dict(), path)`` work as with any
    module; `from_torch` makes it a BitNetModel again.

    config: the model's, with quantization_mode "online".
    model: embedding, layers and last norm.
    lm_head: the output layer; None where the embedding is that, too.
    """

    def __init__(self, config: BitNetConfig, ternary: set[str], *, ste: Estimator = "identity") -> None:
        super().__init__()
        self.config = config
        self.model = _Decoder(config, ternary, ste)
        tied = config.tie_word_embeddings
        self.lm_head = None if tied else Linear(config.hidden_size, config.vocab_size, False, device="meta")

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> CausalLMOutput:
        """Logits, and with labels the loss.

        input_ids: [batch, length], at most ``config.max_position_embeddings`` long.
        attention_mask: [batch, length], 1 for tokens and 0 for padding, which stands at the end.
        labels: [batch, length], usually input_ids: a label is predicted one position before, and -100 does not count.
        """
        if input_ids.ndim != 2 or not input_ids.numel():
            raise ShapeError(f"input_ids has shape {tuple(input_ids.shape)}: expected (batch, length)")
        if input_ids.shape[1] > self.config.max_position_embeddings:
            raise ArgumentError(
                f"input_ids: {input_ids.shape[1]} tokens: expected at most max_position_embeddings = {self.config.max_position_embeddings}"
            )
        lengths = None if attention_mask is None else _lengths(attention_mask, input_ids)
        hidden = self.model(input_ids, lengths)
        logits = float_linear(hidden, self.model.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)
        loss = None
        if labels is not None:
            if labels.shape != input_ids.shape:
                raise ShapeError(f"labels has shape {tuple(labels.shape)}: expected {tuple(input_ids.shape)}")
            flat = logits[:, :-1].flatten(0, 1).float()
            loss = nn.functional.cross_entropy(flat, labels[:, 1:].flatten().long())
        return CausalLMOutput(loss, logits)


class _Decoder(nn.Module):
    def __init__(self, config: BitNetConfig, ternary: set[str], ste: Estimator) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, device="meta")
        if _is_gpt2(config):
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size, device="meta")
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList(_Layer(config, f"model.layers.{i}.", ternary, ste) for i in layers)
        self.norm = _norm(config)

    def forward(self, input_ids: torch.Tensor, lengths: list[int] | None) -> torch.Tensor:
        x = self.embed_tokens(input_ids)
        if hasattr(self, "embed_positions"):
            x = x + self.embed_positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        for layer in self.layers:
            x = layer(x, lengths)
        normed: torch.Tensor = self.norm(x)
        return normed


class _Layer(nn.Module):
    def __init__(self, config: BitNetConfig, path: str, ternary: set[str], ste: Estimator) -> None:
        super().__init__()
        self.input_layernorm = _norm(config)
        self.self_attn = _Attention(config, path + "self_attn.", ternary, ste)
        self.post_attention_layernorm = _norm(config)
        self.mlp = _FeedForward(config, path + "mlp.", ternary, ste)

    def forward(self, x: torch.Tensor, lengths: list[int] | None) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), lengths)
        out: torch.Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class _Attention(nn.Module):
    def __init__(self, config: BitNetConfig, path: str, ternary: set[str], ste: Estimator) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.theta = None if _is_gpt2(config) else config.rope_theta
        self.scaling = config.get("rope_scaling")
        dim, q, kv = config.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim
        make = _Maker(config, path, ternary, ste, config.attention_bias)
        self.q_proj = make("q_proj", dim, q)
        self.k_proj = make("k_proj", dim, kv)
        self.v_proj = make("v_proj", dim, kv)
        self.attn_sub_norm = RMSNorm(q, config.rms_norm_eps, device="meta") if _sub_norms(config) else None
        self.o_proj = make("o_proj", q, dim)

    def forward(self, x: torch.Tensor, lengths: list[int] | None) -> torch.Tensor:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if self.theta is not None:
                q, k = F.rope(q, self.theta, scaling=self.scaling), F.rope(k, self.theta, scaling=self.scaling)
            return F.attention(q, k, v, lengths)

        heads = (part.unflatten(-1, (-1, self.head_dim)) for part in (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
        y = apply(attend, *heads).flatten(-2)
        if self.attn_sub_norm is not None:
            y = self.attn_sub_norm(y)
        out: torch.Tensor = self.o_proj(y)
        return out


class _FeedForward(nn.Module):
    def __init__(self, config: BitNetConfig, path: str, ternary: set[str], ste: Estimator) -> None:
        super().__init__()
        dim, hidden = config.hidden_size, config.intermediate_size
        make = _Maker(config, path, ternary, ste, config.mlp_bias)
        self.activation: Any = _ACTIVATIONS.get(config.hidden_act, config.hidden_act)
        self.gate_proj = None if _is_gpt2(config) else make("gate_proj", dim, hidden)
        self.up_proj = make("up_proj", dim, hidden)
        self.ffn_sub_norm = RMSNorm(hidden, config.rms_norm_eps, device="meta") if _sub_norms(config) else None
        self.down_proj = make("down_proj", hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.gate_proj is None:
            y = apply(lambda up: F.activate(up, self.activation), self.up_proj(x))
        else:
            y = apply(lambda gate, up: F.gated(gate, up, self.activation), self.gate_proj(x), self.up_proj(x))
        if self.ffn_sub_norm is not None:
            y = self.ffn_sub_norm(y)
        out: torch.Tensor = self.down_proj(y)
        return out


class _Maker:
    """Makes the projections of a module."""

    def __init__(self, config: BitNetConfig, path: str, ternary: set[str], ste: Estimator, bias: bool) -> None:
        self.config, self.path, self.ternary, self.ste, self.bias = config, path, ternary, ste, bias

    def __call__(self, name: str, dim: int, out: int) -> nn.Linear:
        if self.path + name not in self.ternary:
            return Linear(dim, out, self.bias, device="meta")
        quantization = self.config.quantization_config
        eps = quantization["rms_norm_eps"] if quantization["use_rms_norm"] else None
        return BitLinear(dim, out, self.bias, "meta", ste=self.ste, norm_eps=eps)


def _sub_norms(config: BitNetConfig) -> bool:
    return config.architectures[0] not in ("LlamaForCausalLM", "GPT2LMHeadModel")


def _is_gpt2(config: BitNetConfig) -> bool:
    return bool(config.architectures[0] == "GPT2LMHeadModel")


def _norm(config: BitNetConfig) -> RMSNorm | LayerNorm:
    kind = LayerNorm if _is_gpt2(config) else RMSNorm
    return kind(config.hidden_size, config.rms_norm_eps, device="meta")


def _lengths(mask: torch.Tensor, input_ids: torch.Tensor) -> list[int]:
    """How many leading tokens of each row the mask shows."""
    if mask.shape != input_ids.shape:
        raise ShapeError(f"attention_mask has shape {tuple(mask.shape)}: expected {tuple(input_ids.shape)}")
    shown = mask.bool()
    lengths = shown.sum(1)
    ends = torch.arange(shown.shape[1], device=shown.device) < lengths[:, None]
    if not bool((shown == ends).all()) or not bool(lengths.min()):
        raise ArgumentError("attention_mask: expected ones and then zeros in each row, padding at the end")
    return [int(n) for n in lengths]


def to_torch(model: BitNetModel, *, ste: Estimator = "identity") -> BitNetModule:
    """A torch module that computes what the model does, to be trained or taken apart by torch.

    Its weights are float32 copies: the master weights of a trainable model. Of another they are masters that quantize to the model's
    codes and scales, as with ``from_pretrained(trainable=True)``, and heads of int8 or int4 are widened. Its logits are the bits of
    the model's, whose head and float layers are float32 then. The module is in evaluation mode: call ``train()`` to train it.

    ste: the straight-through estimator of its `BitLinear` layers.
    """
    if not isinstance(model, BitNetModel):
        raise TypeError(f"to_torch({type(model).__name__}): expected a BitNetModel")
    weights = _bitnet.object("weights", "", (), (model._model,))
    listed = json.loads(weights.call("list", "", ())[0])
    fields = model.config.to_dict()
    names = {name for name, _, _ in listed}
    # Of quantization only what master weights have; what the file says of the head may differ from what was found in it.
    if "quantization_config" in fields:  # a GPT-2 of floats has none
        fields["quantization_config"] |= {"quantization_mode": "online", "linear_class": "autobitlinear"}
    fields |= {"tie_word_embeddings": "lm_head.weight" not in names, "dtype": "float32", "torch_dtype": "float32"}
    ternary = {name.removesuffix(".weight") for name, _, is_ternary in listed if is_ternary}
    module = BitNetModule(BitNetConfig.from_dict(fields), ternary, ste=ste)
    state = {}
    for name, shape, _ in listed:
        handle = weights.call("read", json.dumps(name), ())[1][0]
        assert handle is not None
        state[name] = share(Tensor._of(handle)).view(shape)
    module.load_state_dict(state, assign=True)
    module.eval()
    return module
