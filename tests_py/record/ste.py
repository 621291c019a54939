"""Records PyTorch's gradients of BitLinear under other straight-through estimators and between float and ternary, for the
tests of the engine's options.

    python tests_py/record/ste.py [FILE]        (default: tests_go/testdata/train/ste.npz)

needs torch. The quantizers are autograd functions written from the papers: clipping (Hubara et al. 2016), the derivative of a
sum of two tanh (Gong et al. 2019) and learned step size quantization (Esser et al. 2020, its appendix A in particular). The
forward pass of all is BitNet b1.58's, with int8 activations whose gradient passes straight through.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CASES = {"a": (32, 24, 33), "b": (17, 70, 5)}  # out, in, rows
CLIP, TEMPERATURE = 1.25, 0.3
FLOAT = 0.3  # share of the unquantized weights and activations on the way to ternary ones


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


def identity(w: Tensor) -> Tensor:
    m = absmean(w)
    return w + ((w / m).round().clamp(-1, 1) * m - w).detach()


def grad_scale(x: Tensor, scale: float) -> Tensor:
    return (x - x * scale).detach() + x * scale


def round_pass(x: Tensor) -> Tensor:
    return (x.round() - x).detach() + x


def learned_scale(w: Tensor, step: Tensor) -> Tensor:
    """LSQ with Qn = Qp = 1, as in the paper's listing."""
    s = grad_scale(step, 1.0 / math.sqrt(w.numel()))
    return round_pass((w / s).clamp(-1, 1)) * s


ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda w, _: identity(w),
    "clipped": lambda w, _: clipped(w),
    "soft": lambda w, _: soft(w),
    "learned_scale": learned_scale,
}


def main(path: str) -> None:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    out: dict[str, np.ndarray] = {
        "clip": np.float32(CLIP),
        "temperature": np.float32(TEMPERATURE),
        "float": np.float32(FLOAT),
    }
    for name, (rows_out, dim, rows) in CASES.items():
        w, x, g = torch.randn(rows_out, dim) * 0.05, torch.randn(rows, dim), torch.randn(rows, rows_out)
        out |= {f"{name}/W": w.numpy().copy(), f"{name}/X": x.numpy().copy(), f"{name}/G": g.numpy().copy()}
        step = torch.tensor([1.3 * float(absmean(w))])  # not what the mean would give
        out[f"{name}/step"] = step.numpy().copy()
        for ste, part in [*((s, 0.0) for s in ESTIMATORS), *((s, FLOAT) for s in ESTIMATORS)]:
            if part == 0.0 and ste == "identity":
                continue  # golden/linear_cases.npz has it
            weight, scale, inputs = (t.clone().requires_grad_() for t in (w, step, x))
            quantized = ESTIMATORS[ste](weight, scale)
            mixed = part * inputs + (1 - part) * quantize_activations(inputs)
            y = F.linear(mixed, part * weight + (1 - part) * quantized)
            (y * g).sum().backward()
            key = f"{name}/{ste}" if part == 0.0 else f"{name}/blended/{ste}"
            out[f"{key}/Y"] = y.detach().numpy()
            out[f"{key}/dW"] = weight.grad.numpy()
            out[f"{key}/dX"] = inputs.grad.numpy()
            if scale.grad is not None:
                out[f"{key}/dstep"] = scale.grad.numpy()
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests_go/testdata/train/ste.npz")
