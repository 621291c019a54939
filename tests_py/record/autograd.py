"""Records what PyTorch computes for the operations of Tensor and bitnet_rust.nn and their gradients, for
tests_py/test_autograd_torch.py.

    python tests_py/record/autograd.py [FILE]        (default: tests_go/testdata/autograd/gradients.npz)

needs torch. The file is committed: run it again only to add cases. A case has inputs in0, in1, ...; results y0, ...; the
gradients g0, ... that they were given; and the gradients d0, ... of those inputs that are floats.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

rng = np.random.default_rng(20240229)
cases: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {}


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return rng.uniform(0.2, 3, size=shape).astype(np.float32)


def ids(high: int, *shape: int) -> np.ndarray:
    return rng.integers(0, high, size=shape)


def case(name: str, f: Callable[..., Any], *inputs: np.ndarray) -> None:
    cases[name] = (f, list(inputs))


for name in ("neg", "abs", "square", "relu", "exp", "expm1", "sin", "cos", "tanh", "erf", "sigmoid"):
    case(name, getattr(torch, name), normal(3, 4))
for name in ("sign", "floor", "ceil", "trunc", "round"):
    case(name, getattr(torch, name), normal(3, 4))
for name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal"):
    case(name, getattr(torch, name), positive(3, 4))
case("relu2", lambda x: torch.relu(x) ** 2, normal(3, 4))
case("silu", F.silu, normal(3, 4))
case("softplus", F.softplus, normal(3, 4))
case("gelu", F.gelu, normal(3, 4))
case("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), normal(3, 4))
case("kinks", lambda x: torch.relu(x) + torch.abs(x), np.array([-1, 0, 0, 2], np.float32))
case("clamp", lambda x: torch.clamp(x, -0.5, 0.75), normal(3, 4))

for name in ("add", "sub", "mul", "div", "maximum", "minimum"):
    case(name, getattr(torch, name), normal(2, 3, 4), normal(3, 1))
case("maximum_ties", torch.maximum, np.array([1, 2, 3], np.float32), np.array([1, 3, 2], np.float32))
case("mod", torch.remainder, normal(3, 4), positive(4))
case("floor_div", lambda a, b: torch.div(a, b, rounding_mode="floor"), normal(3, 4), positive(4))
case("pow", torch.pow, positive(3, 4), normal(4))
case("pow_edges", torch.pow, np.array([0, 0, 2, -3], np.float32), np.array([2, 0, 0, 3], np.float32))
case("where", torch.where, ids(2, 3, 4).astype(bool), normal(3, 4), normal(4))
case("mixed", lambda a, b: (a.half() * b).float(), normal(4), normal(3, 4))

case("matmul", torch.matmul, normal(3, 4), normal(4, 5))
case("matmul_batch", torch.matmul, normal(2, 1, 3, 4), normal(3, 4, 2))
case("matmul_shared", torch.matmul, normal(2, 3, 4), normal(4, 5))
case("matmul_vector", torch.matmul, normal(2, 3, 4), normal(4))
case("vector_matmul", torch.matmul, normal(4), normal(2, 4, 3))
case("vectors", torch.matmul, normal(4), normal(4))
case("outer", torch.outer, normal(3), normal(4))
case("dot", lambda a, b: torch.tensordot(a, b, dims=([2], [1])), normal(2, 3, 4), normal(3, 4, 2))

case("sum", torch.sum, normal(3, 4))
case("sum_axis", lambda x: x.sum(1), normal(2, 3, 4))
case("sum_keep", lambda x: x.sum((0, 2), keepdim=True), normal(2, 3, 4))
case("mean", torch.mean, normal(3, 4))
case("mean_axis", lambda x: x.mean((0, -1)), normal(2, 3, 4))
case("prod", lambda x: x.prod(-1), np.array([[1.5, 2, -1], [0, 2, 3], [0, 0, 1]], np.float32))
case("var", lambda x: x.var(1, correction=1), normal(3, 4))
case("std", lambda x: x.std(1, correction=0), normal(3, 4))
case("max", lambda x: x.amax(1), np.array([[1, 3, 3], [2, 1, 0]], np.float32))
case("min", lambda x: x.amin(), np.array([[1, 3, 0], [2, 1, 0]], np.float32))
for order in (0, 1, 2, 3, float("inf"), float("-inf")):
    case(f"norm_{order}", lambda x, p=order: torch.linalg.vector_norm(x, p, dim=1), normal(3, 4))
case("norm_zero", lambda x: torch.linalg.vector_norm(x, 2, dim=1), np.zeros((2, 3), np.float32))
case("softmax", lambda x: x.softmax(1), normal(2, 3, 4))
case("log_softmax", lambda x: x.log_softmax(-1), normal(3, 4))
case("cumsum", lambda x: x.cumsum(0), normal(3, 4))

case("gather", lambda x, i: x.gather(1, i), normal(3, 4), ids(4, 3, 6))
case("scatter_add", lambda x, i, s: x.scatter_add(1, i, s), normal(3, 4), ids(4, 3, 6), normal(3, 6))
case("topk", lambda x: x.topk(2, 1)[0], normal(3, 4))
case("embedding", lambda w, i: F.embedding(i, w), normal(5, 3), ids(5, 2, 4))
case("triu", lambda x: x.triu(1), normal(3, 4))
case("tril", lambda x: x.tril(), normal(3, 4))
case("concat", lambda a, b: torch.cat([a, b, a], 1), normal(2, 3), normal(2, 2))
case("stack", lambda a, b: torch.stack([a, b], 1), normal(2, 3), normal(2, 3))
case("split", lambda x: x.split([1, 3], 1)[1], normal(3, 4))
case("chunk", lambda x: x.chunk(2, 1), normal(3, 4))
case("reshape", lambda x: x.T.reshape(2, 6), normal(3, 4))
case("expand", lambda x: x.expand(2, 3, 4), normal(3, 1))
case("permute", lambda x: x.permute(2, 0, 1), normal(2, 3, 4))
case("squeeze", lambda x: x.squeeze(1), normal(3, 1, 4))
case("unsqueeze", lambda x: x.unsqueeze(-1), normal(3, 4))
case("index", lambda x: x[1, ..., ::2, None], normal(2, 3, 4))
case("cast", lambda x: x.half().float(), normal(3, 4))
case("bfloat16", lambda x: (x.bfloat16() * 3).float(), normal(3, 4))


def assigned(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[1] = v.exp()
    return y.square()


case("assign", assigned, normal(3, 4), normal(4))
case("reused", lambda x: (x.exp() * x).sum() * x.mean() + x, normal(3, 4))

case("linear", F.linear, normal(2, 3, 4), normal(5, 4), normal(5))
case("rms_norm", lambda x, w: F.rms_norm(x, (16,), w, 1e-5), normal(2, 3, 16), normal(16))
case("layer_norm", lambda x, w, b: F.layer_norm(x, (16,), w, b, 1e-5), normal(3, 16), normal(16), normal(16))
case("swiglu", lambda g, u: F.silu(g) * u, normal(3, 16), normal(3, 16))
case("relu2_gate", lambda g, u: torch.relu(g) ** 2 * u, normal(3, 16), normal(3, 16))
case("mse", F.mse_loss, normal(3, 4), normal(3, 4))


def bit_linear(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """BitNet b1.58 with straight-through gradients."""
    s = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    xq = x + ((x * s).round().clamp(-128, 127) / s - x).detach()
    m = w.abs().mean().clamp(min=1e-5)
    wq = w + ((w / m).round().clamp(-1, 1) * m - w).detach()
    return F.linear(xq, wq)


case("bit_linear", bit_linear, normal(2, 5, 32), normal(24, 32))


def rope(x: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    angles = torch.arange(3, 3 + x.shape[1])[:, None] * 100.0 ** (-torch.arange(half) / half)
    cos, sin = (torch.cat([a, a], -1)[None, :, None] for a in (angles.cos(), angles.sin()))
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


case("rope", rope, normal(2, 4, 3, 8))


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


case("attention", attention, normal(2, 70, 2, 8), normal(2, 70, 2, 8), normal(2, 70, 2, 8))
case("attention_grouped", attention, normal(1, 9, 4, 8), normal(1, 9, 2, 8), normal(1, 9, 2, 8))


def padded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    rows = [
        torch.cat(
            [
                attention(q[b : b + 1, :n], k[b : b + 1, :n], v[b : b + 1, :n]),
                torch.zeros(1, q.shape[1] - n, *q.shape[2:]),
            ],
            1,
        )
        for b, n in enumerate((3, 6))
    ]
    return torch.cat(rows)


case("attention_padded", padded, normal(2, 6, 2, 4), normal(2, 6, 1, 4), normal(2, 6, 1, 4))

targets = np.array([[0, -100, 4], [2, 1, -100]])
for reduction in ("mean", "sum", "none"):

    def cross_entropy(x: torch.Tensor, t: torch.Tensor, r: str = reduction) -> torch.Tensor:
        return F.cross_entropy(x.reshape(-1, 5), t.reshape(-1), reduction=r).reshape(t.shape if r == "none" else ())

    case(f"cross_entropy_{reduction}", cross_entropy, normal(2, 3, 5), targets)
case(
    "head_cross_entropy",
    lambda x, n, w, t: F.cross_entropy(F.linear(F.rms_norm(x, (8,), n, 1e-5), w), t),
    normal(6, 8),
    normal(8),
    normal(11, 8),
    ids(11, 6),
)


def record(f: Callable[..., Any], inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    leaves = [torch.from_numpy(x).clone() for x in inputs]
    floats = [x.requires_grad_() for x in leaves if x.is_floating_point()]
    y = f(*leaves)
    results = [y] if isinstance(y, torch.Tensor) else list(y)
    gradients = [torch.from_numpy(normal(*r.shape)) if r.ndim else torch.tensor(1.5) for r in results]
    torch.autograd.backward(results, gradients)
    out = {f"in{i}": x for i, x in enumerate(inputs)}
    out |= {f"y{i}": r.detach().numpy() for i, r in enumerate(results)}
    out |= {f"g{i}": g.numpy() for i, g in enumerate(gradients)}
    return out | {f"d{i}": (torch.zeros_like(x) if x.grad is None else x.grad).numpy() for i, x in enumerate(floats)}


def main() -> None:
    default = Path(__file__).resolve().parents[2] / "tests_go" / "testdata" / "autograd" / "gradients.npz"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{name}/{key}": v for name, (f, inputs) in cases.items() for key, v in record(f, inputs).items()}
    np.savez_compressed(path, **arrays)
    print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
