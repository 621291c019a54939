"""The two halves of a transformer layer."""

from collections.abc import Sequence
from typing import get_args

from ..errors import ArgumentError
from ..tensor import Tensor
from . import functional as F
from .layers import BitLinear, Linear, RMSNorm
from .module import Module


class MultiHeadAttention(Module):
    """Self-attention with grouped queries and rotary positions, as in BitNet models: ternary projections q, k, v and o, and
    with sub_norm an RMSNorm of the heads' outputs before o. ``ternary=False`` makes the projections float.

    num_heads, num_kv_heads, head_dim: heads of queries, heads of keys and values, of which num_heads is a multiple, and
        the size of each.
    rope_theta: base of the rotary positions; None leaves positions out.
    dropout: share of the attention probabilities that is dropped in training.
    causal: False lets each position see all of its sequence.
    q_proj, k_proj, v_proj: projections to the heads of queries, keys and values, BitLinear or Linear.
    o_proj: the projection from the heads back.
    sub_norm: the norm before o_proj, or None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        *,
        head_dim: int | None = None,
        rope_theta: float | None = 10000.0,
        sub_norm: bool = False,
        eps: float = 1e-5,
        dropout: float = 0.0,
        ternary: bool = True,
        bias: bool = False,
        causal: bool = True,
    ) -> None:
        super().__init__()
        kv = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads < 1 or kv < 1 or num_heads % kv:
            raise ArgumentError(f"num_heads = {num_heads}, num_kv_heads = {kv}: expected a multiple of the other")
        if head_dim is None:
            if dim % num_heads:
                raise ArgumentError(f"dim = {dim}: expected a multiple of num_heads = {num_heads}, or pass head_dim")
            head_dim = dim // num_heads
        if rope_theta is not None and head_dim % 2:
            raise ArgumentError(f"head_dim = {head_dim}: expected an even number with rotary positions")
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout = {dropout}: expected 0 <= dropout < 1")
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, kv, head_dim
        self.rope_theta, self.dropout, self.causal = rope_theta, dropout, causal
        make = BitLinear if ternary else Linear
        self.q_proj = make(dim, num_heads * head_dim, bias=bias)
        self.k_proj = make(dim, kv * head_dim, bias=bias)
        self.v_proj = make(dim, kv * head_dim, bias=bias)
        self.o_proj = make(num_heads * head_dim, dim, bias=bias)
        self.sub_norm = RMSNorm(num_heads * head_dim, eps) if sub_norm else None

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """x [batch, length, dim], the same shape; lengths are those of the sequences without padding at the end."""
        batch, length, _ = x.shape
        q = self.q_proj(x).reshape(batch, length, self.num_heads, self.head_dim)
        k = self.k_proj(x).reshape(batch, length, self.num_kv_heads, self.head_dim)
        v = self.v_proj(x).reshape(batch, length, self.num_kv_heads, self.head_dim)
        if self.rope_theta is not None:
            q, k = F.rope(q, self.rope_theta), F.rope(k, self.rope_theta)
        heads = F.attention(q, k, v, lengths, self.dropout if self.training else 0.0, causal=self.causal)
        heads = heads.reshape(batch, length, self.num_heads * self.head_dim)
        if self.sub_norm is not None:
            heads = self.sub_norm(heads)
        y: Tensor = self.o_proj(heads)
        return y


class FeedForward(Module):
    """The gated network down(act(gate(x)) * up(x)), with sub_norm an RMSNorm before down, as in BitNet models.

    activation: act, by its name in `functional.gated`.
    gate_proj, up_proj: [..., dim] to [..., hidden_dim], BitLinear or Linear.
    down_proj: [..., hidden_dim] to [..., dim].
    sub_norm: the norm before down_proj, or None.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        activation: F.Activation = "relu2",
        *,
        sub_norm: bool = False,
        eps: float = 1e-5,
        ternary: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if activation not in (names := get_args(F.Activation)):
            raise ArgumentError(f"activation = {activation!r}: expected one of {', '.join(names)}")
        self.activation: F.Activation = activation
        make = BitLinear if ternary else Linear
        self.gate_proj = make(dim, hidden_dim, bias=bias)
        self.up_proj = make(dim, hidden_dim, bias=bias)
        self.down_proj = make(hidden_dim, dim, bias=bias)
        self.sub_norm = RMSNorm(hidden_dim, eps) if sub_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """x [..., dim], the same shape."""
        h = F.gated(self.gate_proj(x), self.up_proj(x), self.activation)
        if self.sub_norm is not None:
            h = self.sub_norm(h)
        y: Tensor = self.down_proj(h)
        return y
