"""Functions of one element as modules."""

from typing import Literal

from ..tensor import Tensor
from . import functional as F
from .module import Module


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        return x.relu()


class ReLU2(Module):
    """max(x, 0) squared, BitNet's."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        return x.relu2()


class SiLU(Module):
    """x sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        return x.silu()


class GELU(Module):
    """x Phi(x), or its approximation by tanh.

    approximate: "none" for x Phi(x), "tanh" for the approximation.
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """The approximation."""
        return f"approximate={self.approximate!r}"


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        return x.tanh()


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        return x.sigmoid()
