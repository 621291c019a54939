"""Layers for models and training loops of one's own, in the manner of torch.nn.

>>> from bitnet_rust import Tensor, nn, optim
>>> _ = nn.manual_seed(0)
>>> model = nn.Sequential(nn.BitLinear(4, 8), nn.ReLU2(), nn.Linear(8, 2))
>>> opt = optim.AdamW(model.parameters(), lr=1e-2)
>>> loss = nn.functional.cross_entropy(model(Tensor([[1.0, 2.0, 3.0, 4.0]])), Tensor([1]))
>>> loss.backward()
>>> opt.step()

`BitLinear`, norms, attention and losses are the layers of the Go core that `BitNetModel` is made of: the same integer
kernels, forward and backward.
"""

from . import functional
from .activations import GELU, ReLU, ReLU2, Sigmoid, SiLU, Tanh
from .blocks import FeedForward, MultiHeadAttention
from .layers import BitLinear, Dropout, Embedding, LayerNorm, Linear, RMSNorm
from .module import Module, ModuleList, Parameter, Sequential
from .random import manual_seed

__all__ = [
    "GELU",
    "BitLinear",
    "Dropout",
    "Embedding",
    "FeedForward",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "ReLU2",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "functional",
    "manual_seed",
]
