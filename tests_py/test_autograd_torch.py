"""Results and gradients of every operation against PyTorch's, as tests_py/record/autograd.py recorded them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bitnet_rust import Tensor, autograd
from bitnet_rust.nn import functional as F
from conftest import REPO

RECORDED = np.load(REPO / "tests_go" / "testdata" / "autograd" / "gradients.npz")
CASES = list(dict.fromkeys(key.split("/")[0] for key in RECORDED.files))


def _assigned(x: Tensor, v: Tensor) -> Tensor:
    y = x * 2.0
    y[1] = v.exp()
    return y.square()


# How each case is written here; the others are methods of the same name.
OURS: dict[str, Callable[..., Any]] = {
    "kinks": lambda x: x.relu() + x.abs(),
    "clamp": lambda x: x.clamp(-0.5, 0.75),
    "maximum_ties": lambda a, b: a.maximum(b),
    "floor_div": lambda a, b: a // b,
    "pow_edges": lambda a, b: a**b,
    "where": Tensor.where,
    "mixed": lambda a, b: (a.astype("float16") * b).astype("float32"),
    "matmul_batch": lambda a, b: a @ b,
    "matmul_shared": lambda a, b: a @ b,
    "matmul_vector": lambda a, b: a @ b,
    "vector_matmul": lambda a, b: a @ b,
    "vectors": lambda a, b: a @ b,
    "sum_axis": lambda x: x.sum(1),
    "sum_keep": lambda x: x.sum((0, 2), keepdims=True),
    "mean_axis": lambda x: x.mean((0, -1)),
    "prod": lambda x: x.prod(-1),
    "var": lambda x: x.var(1, ddof=1),
    "std": lambda x: x.std(1),
    "max": lambda x: x.max(1),
    **{f"norm_{p}": (lambda x, p=p: x.norm(p, axis=1)) for p in (0, 1, 2, 3, float("inf"), float("-inf"))},
    "norm_zero": lambda x: x.norm(axis=1),
    "softmax": lambda x: x.softmax(1),
    "cumsum": lambda x: x.cumsum(0),
    "gather": lambda x, i: x.gather(i, 1),
    "scatter_add": lambda x, i, s: x.scatter_add(i, s, 1),
    "topk": lambda x: x.topk(2, 1)[0],
    "triu": lambda x: x.triu(1),
    "concat": lambda a, b: Tensor.concat([a, b, a], 1),
    "stack": lambda a, b: Tensor.stack([a, b], 1),
    "split": lambda x: x.split([1, 3], 1)[1],
    "chunk": lambda x: x.chunk(2, 1),
    "reshape": lambda x: x.T.reshape(2, 6),
    "expand": lambda x: x.expand(2, 3, 4),
    "permute": lambda x: x.permute(2, 0, 1),
    "squeeze": lambda x: x.squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "index": lambda x: x[1, ..., ::2, None],
    "cast": lambda x: x.astype("float16").astype("float32"),
    "bfloat16": lambda x: (x.astype("bfloat16") * 3).astype("float32"),
    "assign": _assigned,
    "reused": lambda x: (x.exp() * x).sum() * x.mean() + x,
    "linear": F.linear,
    "rms_norm": F.rms_norm,
    "layer_norm": F.layer_norm,
    "swiglu": lambda g, u: F.gated(g, u, "silu"),
    "relu2_gate": F.gated,
    "mse": F.mse_loss,
    "bit_linear": F.bit_linear,
    "rope": lambda x: F.rope(x, theta=100.0, offset=3),
    "attention": F.attention,
    "attention_grouped": F.attention,
    "attention_padded": lambda q, k, v: F.attention(q, k, v, lengths=[3, 6]),
    **{f"cross_entropy_{r}": (lambda x, t, r=r: F.cross_entropy(x, t, reduction=r)) for r in ("mean", "sum", "none")},
    "head_cross_entropy": F.head_cross_entropy,
}


def _recorded(case: str, key: str) -> list[np.ndarray[Any, Any]]:
    found = []
    while f"{case}/{key}{len(found)}" in RECORDED:
        found.append(RECORDED[f"{case}/{key}{len(found)}"])
    return found


@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_are_those_of_pytorch(case: str) -> None:
    inputs = [Tensor(x, requires_grad=x.dtype == np.float32) for x in _recorded(case, "in")]
    y = OURS.get(case, getattr(Tensor, case, None))(*inputs)
    results = [y] if isinstance(y, Tensor) else list(y)
    for found, want in zip(results, _recorded(case, "y"), strict=True):
        assert found.shape == want.shape
        np.testing.assert_allclose(found.numpy(), want, rtol=2e-5, atol=2e-6)
    if not any(r.requires_grad for r in results):
        pytest.fail("no result has a history")
    autograd.backward(results, _recorded(case, "g"))
    floats = [x for x in inputs if x.dtype == "float32"]
    for x, want in zip(floats, _recorded(case, "d"), strict=True):
        assert x.grad is not None
        assert x.grad.shape == x.shape
        assert x.grad.dtype == x.dtype
        # Integers of 16 bits carry a BitLinear's gradients: 2^-16 of a sum's largest term.
        scale = np.nanmax(np.abs(want), initial=0) * (1e-4 if case == "bit_linear" else 3e-6)
        np.testing.assert_allclose(x.grad.numpy(), want, rtol=3e-5, atol=max(scale, 2e-6))
