"""Tensors over the same memory, and operations of the core as functions that torch differentiates."""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.utils.dlpack import from_dlpack

from ..autograd import run_backward, set_grad_enabled
from ..errors import DeviceError
from ..tensor import Tensor


def tensor(array: torch.Tensor) -> Tensor:
    """A Tensor over the memory of a torch tensor of the CPU, bfloat16 included: each side sees what the other writes (see
    `Tensor.from_dlpack`). It has no history: a gradient of one side does not reach the other."""
    if array.device.type != "cpu":
        raise DeviceError(f"the tensor is on {array.device}: expected one on the CPU: move it with .cpu()")
    return Tensor.from_dlpack(array.detach().resolve_conj().resolve_neg())


def share(array: Tensor) -> torch.Tensor:
    """A torch tensor over the memory of a Tensor, the other way round."""
    shared: torch.Tensor = from_dlpack(array.detach())
    return shared


def in_core(x: torch.Tensor) -> bool:
    """Whether the core can compute with x: there is something of it, on the CPU, and torch.compile is not looking on."""
    return bool(x.numel()) and x.device.type == "cpu" and not torch.compiler.is_compiling()


def apply(run: Callable[..., Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """run(*inputs), an operation of the core on Tensors that share the memory of the inputs, as an operation of torch: gradients
    are those of the core."""
    result: torch.Tensor = _Operation.apply(run, *inputs)
    return result


class _Operation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        wanted = ctx.needs_input_grad[1:]
        leaves = [tensor(x).requires_grad_(want) for x, want in zip(inputs, wanted, strict=True)]
        with set_grad_enabled(any(wanted)):
            out = run(*leaves)
        if any(wanted):
            ctx.out, ctx.leaves = out, leaves
            ctx.save_for_backward(*inputs)
        return share(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises where an input was changed in place since
        wanted = [leaf for leaf in ctx.leaves if leaf.requires_grad]
        # Torch decides when the graph goes.
        found = iter(run_backward([ctx.out], [tensor(gradient)], True, wanted))
        gradients = [_shared(next(found)) if leaf.requires_grad else None for leaf in ctx.leaves]
        return None, *gradients


def _shared(handle: Any) -> torch.Tensor | None:
    return None if handle is None else share(Tensor._of(handle))
