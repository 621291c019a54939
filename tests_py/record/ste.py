"""Records PyTorch's gradients of BitLinear under other straight-through estimators, for the tests of the engine's options.

    python tests_py/record/ste.py [FILE]        (default: tests_go/testdata/train/ste.npz)

needs torch. The quantizers are autograd functions written from the papers: clipping (Hubara et al. 2016), the derivative of a
sum of two tanh (Gong et al. 2019) and learned step size quantization (Esser et al. 2020, its appendix A in particular). The
forward pass of all is BitNet b1.58's, with int8 activations whose gradient passes straight through.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CASES = {"a": (48, 40, 33), "b": (17, 130, 5)}  # out, in, rows
CLIP, TEMPERATURE = 1.25, 0.3


def quantize_activations(x: Tensor) -> Tensor:
    s = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    return x + ((x * s).round().clamp(-128, 127) / s - x).detach()


def absmean(w: Tensor) -> Tensor:
    return w.abs().mean().clamp(min=1e-5).detach()


def clipped(w: Tensor) -> Tensor:
    m = absmean(w)
    u = w / m
    passed = torch.where(u.abs() <= CLIP, w, w.detach())
    return passed + (u.round().clamp(-1, 1) * m - w).detach()


def soft(w: Tensor) -> Tensor:
    m = absmean(w)
    u = w / m
    smooth = m * (torch.tanh((u - 0.5) / TEMPERATURE) + torch.tanh((u + 0.5) / TEMPERATURE)) / 2
    return smooth + (u.round().clamp(-1, 1) * m - smooth).detach()


def grad_scale(x: Tensor, scale: float) -> Tensor:
    return (x - x * scale).detach() + x * scale


def round_pass(x: Tensor) -> Tensor:
    return (x.round() - x).detach() + x


def learned_scale(w: Tensor, step: Tensor) -> Tensor:
    """LSQ with Qn = Qp = 1, as in the paper's listing."""
    s = grad_scale(step, 1.0 / math.sqrt(w.numel()))
    return round_pass((w / s).clamp(-1, 1)) * s


def main(path: str) -> None:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    out: dict[str, np.ndarray] = {"clip": np.float32(CLIP), "temperature": np.float32(TEMPERATURE)}
    for name, (rows_out, dim, rows) in CASES.items():
        w, x, g = torch.randn(rows_out, dim) * 0.05, torch.randn(rows, dim), torch.randn(rows, rows_out)
        out |= {f"{name}/W": w.numpy().copy(), f"{name}/X": x.numpy().copy(), f"{name}/G": g.numpy().copy()}
        step = torch.tensor([1.3 * float(absmean(w))])  # not what the mean would give
        out[f"{name}/step"] = step.numpy().copy()
        for ste in ("clipped", "soft", "learned_scale"):
            weight, scale, inputs = (t.clone().requires_grad_() for t in (w, step, x))
            quantized = {"clipped": clipped, "soft": soft}[ste](weight) if ste != "learned_scale" else learned_scale(weight, scale)
            y = F.linear(quantize_activations(inputs), quantized)
            (y * g).sum().backward()
            out[f"{name}/{ste}/Y"] = y.detach().numpy()
            out[f"{name}/{ste}/dW"] = weight.grad.numpy()
            out[f"{name}/{ste}/dX"] = inputs.grad.numpy()
            if scale.grad is not None:
                out[f"{name}/{ste}/dstep"] = scale.grad.numpy()
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests_go/testdata/train/ste.npz")
