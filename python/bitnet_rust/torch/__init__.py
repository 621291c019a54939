"""BitNet models and layers in PyTorch, on the kernels of the Go core; needs ``pip install 'bitnet-rust[torch]'``.

    from bitnet_rust.torch import BitLinear, from_torch, replace_linear, to_torch

    module = to_torch(model)          # a torch.nn.Module that torch trains
    model = from_torch(module)        # a BitNetModel that generates
    replace_linear(other_module)      # its torch.nn.Linear layers become BitLinear

`share` and `tensor` put a Tensor and a torch.Tensor over the same memory; `transfer_optimizer` lets a run go on with an optimizer
of the other side.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as missing:
    from ..errors import missing_extra

    raise missing_extra("bitnet_rust.torch", "PyTorch", "torch") from missing

from .bridge import share, tensor
from .layers import BitLinear, LayerNorm, Linear, RMSNorm, replace_linear
from .loading import from_torch
from .module import BitNetModule, CausalLMOutput, to_torch
from .optim import transfer_optimizer

__all__ = [
    "BitLinear",
    "BitNetModule",
    "CausalLMOutput",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "from_torch",
    "replace_linear",
    "share",
    "tensor",
    "to_torch",
    "transfer_optimizer",
]
