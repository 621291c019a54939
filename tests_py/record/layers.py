"""Records PyTorch's results and gradients of layers, for the tests of core/nn.

    python tests_py/record/layers.py [FILE]        (default: tests_go/testdata/train/layers.npz)

needs torch. Activations alone and as gates, LayerNorm and RMSNorm, and attention with grouped queries: causal or not, over
padded sequences, whose rows the file holds one sequence after the other without the padding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu2": lambda x: F.relu(x).square(),
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
LENGTHS, HEADS, KV_HEADS, HEAD_DIM = [70, 1, 23], 4, 2, 10

out: dict[str, np.ndarray] = {}


def record(name: str, function: Callable[..., Tensor], **inputs: Tensor) -> None:
    """Stores the inputs, the result y, a gradient g of it and the gradients of the inputs."""
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    y = function(**leaves)
    g = torch.randn_like(y)
    (y * g).sum().backward()
    values = (
        {k: v.detach() for k, v in leaves.items()}
        | {f"d_{k}": v.grad for k, v in leaves.items()}
        | {"y": y.detach(), "g": g}
    )
    out.update({f"{name}/{k}": v.numpy().astype(np.float32) for k, v in values.items()})


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Rows of all sequences, padded to the longest for PyTorch and taken out of the padding again."""

    def pad(x: Tensor, heads: int) -> Tensor:
        parts = [F.pad(p, (0, 0, 0, max(LENGTHS) - len(p))) for p in x.split(LENGTHS)]
        return torch.stack(parts).view(len(LENGTHS), max(LENGTHS), heads, HEAD_DIM).transpose(1, 2)

    size = max(LENGTHS)
    mask = (torch.arange(size)[None, :] < torch.tensor(LENGTHS)[:, None])[:, None, None, :].expand(-1, 1, size, size)
    if causal:
        mask = mask & torch.ones(size, size, dtype=torch.bool).tril()
    y = F.scaled_dot_product_attention(
        pad(q, HEADS), pad(k, KV_HEADS), pad(v, KV_HEADS), attn_mask=mask, enable_gqa=True
    )
    y = y.transpose(1, 2).reshape(len(LENGTHS), size, -1)
    return torch.cat([y[i, :n] for i, n in enumerate(LENGTHS)])


def main(path: str) -> None:
    torch.manual_seed(11)
    torch.set_num_threads(1)
    for name, function in ACTIVATIONS.items():
        record(f"act/{name}", lambda x, function=function: function(x), x=3 * torch.randn(7, 37))
        record(
            f"gate/{name}",
            lambda x, u, function=function: function(x) * u,
            x=3 * torch.randn(5, 21),
            u=torch.randn(5, 21),
        )
    x, weight, bias = 1 + 2 * torch.randn(70, 29), 1 + 0.2 * torch.randn(29), 0.2 * torch.randn(29)
    record("layer_norm", lambda x, w, b: F.layer_norm(x, (29,), w, b, 1e-5), x=x, w=weight, b=bias)
    record("layer_norm_plain", lambda x: F.layer_norm(x, (29,), eps=1e-5), x=x[:9])
    record("rms_norm", lambda x, w: F.rms_norm(x, (29,), w, 1e-5), x=x, w=weight)
    rows = sum(LENGTHS)
    for name, causal in (("causal", True), ("bidirectional", False)):
        record(
            f"attention/{name}",
            lambda q, k, v, causal=causal: attention(q, k, v, causal),
            q=torch.randn(rows, HEADS * HEAD_DIM),
            k=torch.randn(rows, KV_HEADS * HEAD_DIM),
            v=torch.randn(rows, KV_HEADS * HEAD_DIM),
        )
    out["lengths"] = np.array(LENGTHS, np.int64)
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests_go/testdata/train/layers.npz")
