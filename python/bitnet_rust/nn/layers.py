"""Layers with weights, and dropout."""

from typing import Any, Literal

from ..errors import ArgumentError
from ..tensor import Tensor
from . import functional as F
from . import random
from .module import Module, Parameter


def _positive(**sizes: int) -> None:
    for name, n in sizes.items():
        if not isinstance(n, int) or n < 1:
            raise ArgumentError(f"{name} = {n!r}: expected a positive integer")


class Linear(Module):
    """x W^T + b in float32. Weights begin uniform in +-1/sqrt(in_features), as torch.nn.Linear's.

    in_features, out_features: sizes of the last axis before and after.
    weight: [out_features, in_features].
    bias: [out_features]; None without.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        _positive(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        bound = in_features**-0.5
        self.weight = Parameter(random.uniform(bound, (out_features, in_features)))
        self.register_parameter("bias", Parameter(random.uniform(bound, (out_features,))) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] to [..., out_features]."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class BitLinear(Linear):
    """The ternary layer of BitNet b1.58, see `functional.bit_linear`: weights are kept in float32 and quantized for every
    pass. It has no norm of its own.

    ste: its straight-through estimator: "identity", "clipped" or "soft".
    clip: of "clipped", in scales from zero, 1.5; may change between passes.
    temperature: of "soft", 0.5; may change between passes.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        ste: Literal["identity", "clipped", "soft"] = "identity",
    ) -> None:
        super().__init__(in_features, out_features, bias)
        if ste not in ("identity", "clipped", "soft"):
            raise ArgumentError(f'ste = {ste!r}: expected "identity", "clipped" or "soft"')
        self.ste: Literal["identity", "clipped", "soft"] = ste
        self.clip, self.temperature = 1.5, 0.5

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] to [..., out_features]."""
        options = {"clip": self.clip, "temperature": self.temperature}
        return F.bit_linear(x, self.weight, self.bias, ste=self.ste, **options)


class Embedding(Module):
    """A table of vectors [num_embeddings, embedding_dim], normal with standard deviation 1 at first.

    num_embeddings: ids are below it.
    embedding_dim: length of a vector.
    weight: [num_embeddings, embedding_dim].
    """

    weight: Parameter

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        _positive(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = Parameter(random.normal(1.0, (num_embeddings, embedding_dim)))

    def forward(self, ids: Any) -> Tensor:
        """Integer ids [...] to [..., embedding_dim]."""
        return F.embedding(ids, self.weight)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class RMSNorm(Module):
    """Root-mean-square normalization of the last axis with a weight.

    dim: size of the last axis.
    eps: added to the mean square.
    weight: [dim], ones at first.
    """

    weight: Parameter

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        _positive(dim=dim)
        self.dim, self.eps = dim, eps
        self.weight = Parameter(Tensor.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., dim], the same shape."""
        return F.rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Size and eps."""
        return f"{self.dim}, eps={self.eps}"


class LayerNorm(Module):
    """Normalization of mean and variance of the last axis, with a weight and a bias.

    dim: size of the last axis.
    eps: added to the variance.
    weight: [dim], ones at first.
    bias: [dim], zeros at first; None without.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, dim: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        _positive(dim=dim)
        self.dim, self.eps = dim, eps
        self.weight = Parameter(Tensor.ones(dim))
        self.register_parameter("bias", Parameter(Tensor.zeros(dim)) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., dim], the same shape."""
        return F.layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Size and eps."""
        return f"{self.dim}, eps={self.eps}, bias={self.bias is not None}"


class Dropout(Module):
    """In training, elements become 0 with probability p; `manual_seed` says which.

    p: share of the elements that become 0; the others are divided by 1 - p.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ArgumentError(f"p = {p}: expected 0 <= p < 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"
