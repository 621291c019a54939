"""Operations of layers on tensors; `Tensor` has the element-wise ones, reductions and so on."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..arrays import whole_number
from ..errors import ArgumentError
from ..tensor import Tensor, _call, _tensor
from . import random


def _op(name: str, *operands: Any, **params: Any) -> Tensor:
    """An operation of the core on tensors, or on what becomes tensors."""
    return Tensor._of(_call(name, *(_tensor(t)._handle for t in operands), **params))


def _seed(seed: int | None) -> int:
    return random.seed() if seed is None else whole_number(seed, "seed", range(2**64))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] times weight [out, in] transposed, plus bias [out]: the product of models' float layers and heads, whose
    weight is laid out for the kernels once and kept until it changes."""
    y = _op("linear", x, weight)
    return y if bias is None else y + bias


def bit_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    ste: Literal["identity", "clipped", "soft"] = "identity",
    clip: float = 1.5,
    temperature: float = 0.5,
) -> Tensor:
    """The linear layer of BitNet b1.58 (https://arxiv.org/abs/2402.17764): x [..., in] is quantized to int8 by row, weight
    [out, in] to -1, 0, 1 times its mean magnitude, and integers are multiplied. The quantized weight is kept until the
    weight changes.

    Gradients pass the quantizer of x unchanged, and that of weight by a straight-through estimator: unchanged
    ("identity"), only where |weight| is at most ``clip`` times the mean magnitude ("clipped"), or times the slope of a
    smooth ternary quantizer that ``temperature`` widens ("soft")."""
    params = {"ste": ste, "clip": float(clip), "temperature": float(temperature)}
    y = _op("bit_linear", x, weight, **params)
    return y if bias is None else y + bias


def embedding(ids: Any, weight: Tensor) -> Tensor:
    """The rows of weight [vocab, dim] for integer ids of any shape: [..., dim]."""
    return weight.embedding(ids)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (https://arxiv.org/abs/1910.07467)."""
    return _op("rms_norm", x, weight, eps=float(eps))


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis (https://arxiv.org/abs/1607.06450)."""
    x = _tensor(x)
    dim = x.shape[-1] if x.ndim else 1
    weight = Tensor.ones(dim) if weight is None else weight
    bias = Tensor.zeros(dim) if bias is None else bias
    return _op("layer_norm", x, weight, bias, eps=float(eps))


def dropout(x: Tensor, p: float = 0.5, training: bool = True, seed: int | None = None) -> Tensor:
    """In training each element becomes 0 with probability p and is divided by 1 - p otherwise. Which elements depends on the
    seed, by default the next one of `manual_seed`, and not on the number of threads."""
    if not 0 <= p < 1:
        raise ArgumentError(f"dropout: p = {p}: expected 0 <= p < 1")
    if not training or p == 0:
        return x
    return _op("dropout", x, p=float(p), seed=_seed(seed))


def rope(x: Tensor, theta: float = 10000.0, offset: int = 0, scaling: Mapping[str, Any] | None = None) -> Tensor:
    """Rotary positions (https://arxiv.org/abs/2104.09864), half-split as in Hugging Face: x [batch, length, heads,
    head_dim] is turned by the positions offset, offset + 1, ... ``scaling`` is a config's rope_scaling, such as
    {"rope_type": "linear", "factor": 2.0}."""
    params: dict[str, Any] = {"theta": float(theta), "offset": int(offset)}
    if scaling is not None:
        params["scaling"] = dict(scaling)
    return _op("rope", x, **params)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Sequence[int] | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    causal: bool = True,
) -> Tensor:
    """Attention softmax(q k^T / sqrt(head_dim)) v for q [batch, length, heads, head_dim] and k, v [batch, length,
    kv_heads, head_dim], where kv_heads divides heads (grouped queries, https://arxiv.org/abs/2305.13245).

    With ``causal`` a position attends to itself and those before it, otherwise to all of its sequence. ``lengths`` are
    those of the batch's sequences without padding, which stands at the end; rows of padding give 0. Memory grows with the
    length, not with its square. ``dropout_p`` is the share of the probabilities that is dropped."""
    params: dict[str, Any] = {"causal": bool(causal)}
    if lengths is not None:
        params["lengths"] = [int(n) for n in lengths]
    if dropout_p:
        params |= {"p": float(dropout_p), "seed": _seed(seed)}
    return _op("attention", q, k, v, **params)


Activation = Literal["relu2", "silu", "relu", "gelu", "gelu_tanh", "tanh", "sigmoid"]


def gated(gate: Tensor, up: Tensor, activation: Activation = "relu2") -> Tensor:
    """activation(gate) * up: squared ReLU as in BitNet b1.58 2B4T, SiLU, which makes it SwiGLU
    (https://arxiv.org/abs/2002.05202), or another."""
    return _op("gated", gate, up, activation=activation)


def activate(x: Tensor, activation: Activation = "relu2") -> Tensor:
    """activation(x), to the bits that models compute: those of feed-forward networks without a gate, as GPT-2's."""
    return _op("activate", x, activation=activation)


def cross_entropy(
    logits: Tensor, targets: Any, ignore_index: int = -100, reduction: Literal["mean", "sum", "none"] = "mean"
) -> Tensor:
    """-log softmax(logits)[target], in nats, for logits [..., classes] and integer targets [...]. The mean is over targets
    that are not ignore_index; if all are: ArgumentError."""
    params = {"ignore_index": int(ignore_index), "reduction": reduction}
    return _op("cross_entropy", logits, targets, **params)


def head_cross_entropy(
    x: Tensor,
    norm: Tensor,
    weight: Tensor,
    targets: Any,
    eps: float = 1e-5,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """`cross_entropy` of the logits rms_norm(x, norm) @ weight.T, which never exist all at once: x [..., dim], norm [dim],
    weight [classes, dim]. It is the end of a language model."""
    params = {"eps": float(eps), "ignore_index": int(ignore_index), "reduction": reduction}
    return _op("head_loss", x, norm, weight, targets, **params)


def mse_loss(x: Tensor, target: Any, reduction: Literal["mean", "sum", "none"] = "mean") -> Tensor:
    """(x - target) squared."""
    squares = (_tensor(x) - _tensor(target)).square()
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f'mse_loss: reduction = {reduction!r}: expected "mean", "sum" or "none"')
    return squares if reduction == "none" else squares.mean() if reduction == "mean" else squares.sum()


def gelu(x: Tensor, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """x Phi(x) (https://arxiv.org/abs/1606.08415), or its approximation by tanh."""
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f'gelu: approximate = {approximate!r}: expected "none" or "tanh"')
    return x.gelu_tanh() if approximate == "tanh" else x.gelu()
