"""Gradients in Python: what a graph promises, modes, hooks, gradcheck, threads, fork and memory."""

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bitnet_rust
from bitnet_rust import (
    ArgumentError,
    AutogradError,
    BitNetModel,
    DTypeError,
    GradCheckError,
    InternalError,
    ShapeError,
    Tensor,
    TrainingError,
    autograd,
    no_grad,
)
from bitnet_rust.nn import functional as F


def leaf(*values: float) -> Tensor:
    return Tensor(list(values), requires_grad=True)


def grads(x: Tensor) -> list[float]:
    assert x.grad is not None
    return [float(v) for v in x.grad.numpy().ravel()]


# --- graphs ----------------------------------------------------------------------------------------------------------


def test_gradients_add_up_over_uses_and_passes_until_they_are_forgotten() -> None:
    x = leaf(1.0, 2.0)
    (x * x + x).sum().backward()
    assert grads(x) == [3.0, 5.0]
    (2.0 * x).sum().backward()
    assert grads(x) == [5.0, 7.0]
    x.grad = None
    assert x.grad is None
    x.grad = np.array([1.0, 1.0], np.float32)
    x.sum().backward()
    assert grads(x) == [2.0, 2.0]


def test_what_a_tensor_says_of_its_history() -> None:
    x, c = leaf(1.0), Tensor([2.0])
    y = x * c
    assert (x.requires_grad, x.is_leaf, x.grad_fn) == (True, True, None)
    assert (y.requires_grad, y.is_leaf, y.grad_fn) == (True, False, "mul")
    assert (c.requires_grad, c.is_leaf) == (False, True)
    assert repr(x) == "Tensor([1.], dtype=float32, requires_grad=True)"
    assert repr(y) == "Tensor([2.], dtype=float32, grad_fn=mul)"
    assert repr(c) == "Tensor([2.], dtype=float32)"
    assert not y.detach().requires_grad
    assert not (x > c).requires_grad
    c.requires_grad = True
    assert (x * c).requires_grad
    assert c.requires_grad_(False).requires_grad is False
    with pytest.raises(AutogradError, match="detach"):
        y.requires_grad = False
    with pytest.raises(DTypeError, match="float32, float16 or bfloat16"):
        Tensor([1, 2], requires_grad=True)


def test_views_share_memory_and_gradients_reach_what_they_show() -> None:
    x = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3), requires_grad=True)
    (x.T[1:].reshape(-1) * Tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0, 3.0], [0.0, 2.0, 4.0]]


def test_backward_of_more_than_one_element_needs_a_gradient() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    with pytest.raises(AutogradError, match=r"shape \(2,\) needs a gradient"):
        y.backward()
    with pytest.raises(AutogradError, match="gradient of shape"):
        y.backward(Tensor([1.0, 2.0, 3.0]))
    y.backward([1.0, 10.0])
    assert grads(x) == [2.0, 40.0]


def test_a_second_pass_needs_a_retained_graph() -> None:
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert grads(x) == [12.0]
    with pytest.raises(AutogradError, match="retain_graph=True"):
        y.backward()
    with pytest.raises(AutogradError, match="requires a gradient"):
        Tensor([1.0]).backward()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.__setitem__(0, 9.0),
        lambda x: x[1:].__setitem__(0, 9.0),
        lambda x: x.reshape(1, 2).__setitem__((0, 0), 9.0),
        lambda x: x.detach().__setitem__(..., 9.0),
    ],
    ids=["itself", "a slice", "a reshaped view", "detached"],
)
def test_a_value_that_was_saved_and_then_changed_is_found(change: Callable[[Tensor], None]) -> None:
    x = leaf(1.0, 2.0)
    y = x.square().sum()
    with no_grad():
        change(x)
    with pytest.raises(AutogradError, match=r"square needs a float32 value .* changed in place"):
        y.backward()


def test_in_place_changes_that_history_cannot_follow_are_refused() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(AutogradError, match="no_grad"):
        x[0] = 3.0
    y = x * 1.0
    row = y[:1]
    with pytest.raises(AutogradError, match="clone"):
        row[0] = 3.0
    with pytest.raises(AutogradError, match="clone"):
        y[0] = 3.0
    buffer = Tensor.zeros(3)
    buffer[1:] = x.exp()  # a buffer takes over the history of what it is filled with
    buffer.sum().backward()
    np.testing.assert_allclose(grads(x), np.exp([1.0, 2.0]), rtol=1e-6)


def test_modes_are_contexts_and_decorators_of_their_thread() -> None:
    x = leaf(1.0)
    with no_grad():
        assert not autograd.is_grad_enabled()
        assert not (x * 2.0).requires_grad
        with autograd.enable_grad():
            assert (x * 2.0).requires_grad
        with autograd.set_grad_enabled(True), no_grad():
            assert not (x * 2.0).requires_grad
    assert autograd.is_grad_enabled()

    @no_grad()
    def double(t: Tensor, depth: int = 2) -> Tensor:
        return t * 2.0 if depth == 0 else double(t, depth - 1)

    assert not double(x).requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018
    assert autograd.is_grad_enabled()

    found: list[bool] = []
    with no_grad():
        thread = threading.Thread(target=lambda: found.append(autograd.is_grad_enabled()))
        thread.start()
        thread.join()
    assert found == [True]

    async def quiet() -> bool:
        with no_grad():
            await asyncio.sleep(0)
            return autograd.is_grad_enabled()

    async def loud() -> bool:
        await asyncio.sleep(0)
        return autograd.is_grad_enabled()

    async def both() -> list[bool]:
        return list(await asyncio.gather(quiet(), loud()))

    assert asyncio.run(both()) == [False, True]


def test_grad_returns_gradients_and_changes_no_leaf() -> None:
    x, unused = leaf(1.0, 2.0), leaf(1.0)
    y = x.exp()
    z = (y * y).sum()
    dx, dy, nothing = autograd.grad(z, [x, y, unused])
    assert dx is not None
    assert dy is not None
    assert nothing is None
    np.testing.assert_allclose(dy.numpy(), 2 * np.exp([1, 2]), rtol=1e-6)
    np.testing.assert_allclose(dx.numpy(), 2 * np.exp([2, 4]), rtol=1e-6)
    assert x.grad is None
    with pytest.raises(ArgumentError, match="expected as many"):
        autograd.backward([z, z], [None])
    a, b = x.sum(), (x * x).sum()
    autograd.backward([a, b])
    assert grads(x) == [3.0, 5.0]


def test_copies_and_pickles_of_leaves_are_leaves() -> None:
    x = leaf(1.0, 2.0)
    for made in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert made.is_leaf
        assert made.requires_grad
        assert made.tolist() == x.tolist()
    assert copy.copy(x).grad_fn == "clone"
    with pytest.raises(AutogradError, match="detach"):
        copy.deepcopy(x * 2.0)
    assert not pickle.loads(pickle.dumps(x * 2.0)).requires_grad
    assert not Tensor(x).requires_grad


# --- hooks -----------------------------------------------------------------------------------------------------------


def test_hooks_see_complete_gradients_and_may_replace_them() -> None:
    x = leaf(2.0)
    y = x * x
    seen: list[tuple[str, float]] = []

    def first(g: Tensor) -> Tensor:
        seen.append(("y", g.item()))
        return g * 10.0

    y.register_hook(first)
    handle = x.register_hook(lambda g: seen.append(("x", g.item())))
    y.retain_grad()
    (y + y).backward()
    assert seen == [("y", 2.0), ("x", 80.0)]
    assert grads(x) == [80.0]
    assert grads(y) == [20.0]
    handle.remove()
    handle.remove()
    (x * x).backward()
    assert len(seen) == 2


def test_an_exception_in_a_hook_ends_the_pass_and_is_raised() -> None:
    x = leaf(1.0)
    y = x * 3.0

    def fail(_: Tensor) -> None:
        raise KeyError("why")

    y.register_hook(fail)
    with pytest.raises(KeyError, match="why"):
        y.backward()
    assert x.grad is None
    z = x * 3.0
    z.register_hook(lambda g: Tensor([1.0, 2.0]))
    with pytest.raises(AutogradError, match="a hook returned"):
        z.backward()
    with pytest.raises(ArgumentError, match="expected a function"):
        x.register_hook(3)  # type: ignore[arg-type]
    with pytest.raises(AutogradError, match="does not require"):
        Tensor([1.0]).register_hook(print)


def test_hooks_are_forgotten_with_their_tensors() -> None:
    class Callback:
        def __call__(self, g: Tensor) -> None: ...

    x, gone = leaf(1.0), []
    for _ in range(20):
        hook = Callback()
        (x * 2.0).register_hook(hook)
        gone.append(weakref.ref(hook))
    del hook
    for _ in range(1000):
        Tensor(np.zeros(1 << 20, np.float32)) * 2.0  # the core's collector gets work
        (x * 2.0).register_hook(Callback())
        gc.collect()
        if all(r() is None for r in gone[:-1]):
            return
    raise AssertionError(f"{sum(r() is not None for r in gone)} of 20 hooks are still there")


# --- gradcheck -------------------------------------------------------------------------------------------------------

_SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": Tensor.tanh,
    "gelu": Tensor.gelu,
    "softmax": lambda x: x.softmax(-1),
    "norm": lambda x: (x.square() + 1.0).norm(axis=0),
    "mean": lambda x: x.mean(axis=-1, keepdims=True) * x,
    "matmul": lambda x: x @ x.mT,
    "rms_norm": lambda x: F.rms_norm(x, Tensor.ones(x.shape[-1]), 0.1),
    "swiglu": lambda x: F.gated(x, x * 0.5, "silu"),
}


@pytest.mark.parametrize("name", _SMOOTH)
@settings(max_examples=10, deadline=None)
@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 4)), seed=st.integers(0, 2**32 - 1))
def test_gradcheck_accepts_right_gradients(name: str, shape: tuple[int, int], seed: int) -> None:
    x = Tensor(np.random.default_rng(seed).normal(size=shape), dtype="float32", requires_grad=True)
    before = x.numpy()
    assert autograd.gradcheck(_SMOOTH[name], x)
    assert (x.numpy() == before).all()
    assert x.grad is None


def test_gradcheck_finds_wrong_gradients_and_names_the_worst_element() -> None:
    x = Tensor([[1.0, 2.0], [3.0, 0.5]], requires_grad=True)

    def wrong(t: Tensor) -> Tensor:
        return t * t.detach()  # half of the gradient of its square

    with pytest.raises(GradCheckError, match=r"input 0: 4 of 4 elements are wrong, the worst at \(\d, \d\)"):
        autograd.gradcheck(wrong, x)
    assert not autograd.gradcheck(wrong, x, raise_exception=False)
    assert autograd.gradcheck(lambda a, b: (a * b).sum(), [x, Tensor(2.0)])
    with pytest.raises(ArgumentError, match="no input"):
        autograd.gradcheck(wrong, Tensor([1.0]))
    with pytest.raises(ArgumentError, match="no output"):
        autograd.gradcheck(lambda t: t.detach(), x)


# --- errors of layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: F.rms_norm(x, Tensor.ones(4)),
            ShapeError,
            r"rms_norm: weight has shape (4,), expected (3,) for x (2, 3)",
        ),
        (lambda x: F.bit_linear(x, Tensor.ones((3, 4))), ShapeError, "expected (out, 3) for x (2, 3)"),
        (lambda x: F.bit_linear(x, Tensor.full((2, 3), float("inf"))), TrainingError, "row 0, column 0: found +Inf"),
        (lambda x: F.gated(x, Tensor.ones(3)), ShapeError, "gate (2, 3) and up (3,) differ"),
        (
            lambda x: F.cross_entropy(x, [0, 7]),
            ArgumentError,
            "target 7 at 1: expected 0 <= target < 3 or ignore_index = -100",
        ),
        (lambda x: F.cross_entropy(x, [-100, -100]), ArgumentError, "every target is ignored"),
        (lambda x: F.cross_entropy(x, [0.5, 1.0]), DTypeError, "targets: found float32, expected integers"),
        (lambda x: F.cross_entropy(x, [[0, 1]]), ShapeError, "targets (1, 2), expected (2,)"),
        (lambda x: F.cross_entropy(x, [0, 1], reduction="max"), ArgumentError, "reduction"),  # type: ignore[arg-type]
        (lambda x: F.mse_loss(x, x, reduction="max"), ArgumentError, "reduction"),  # type: ignore[arg-type]
        (lambda x: F.dropout(x, 1.0), ArgumentError, "p = 1.0"),
        (lambda x: F.dropout(x, 0.999999999), ArgumentError, "p = 0.999999999: expected 0 <= p < 1"),
        (lambda x: F.dropout(x, 0.5, seed=-1), ArgumentError, "seed = -1"),
        (
            lambda x: F.rms_norm(Tensor([[1, 2]]), Tensor.ones(2)),
            DTypeError,
            "operand 0: found int64, expected a float",
        ),
        (lambda x: F.rope(x), ShapeError, "expected (batch, length, heads, head_dim)"),
        (lambda x: F.attention(x, x, x), ShapeError, "expected (batch, length, heads, head_dim)"),
    ],
)
def test_layers_name_what_does_not_fit(call: Callable[[Tensor], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call(Tensor(np.ones((2, 3), np.float32)))


def test_layers_take_arrays_and_halves() -> None:
    x = np.ones((2, 3), np.float32)
    w = Tensor(np.eye(3, dtype=np.float32), requires_grad=True)
    assert (
        F.bit_linear(x, w).tolist()
        == F.bit_linear(Tensor(x, "bfloat16"), w).tolist()
        == F.bit_linear(Tensor(x.T).T, w).tolist()
    )
    half = Tensor(x, "float16", requires_grad=True)
    F.bit_linear(half, w).sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == "float16"


# --- threads, fork, panics, memory -----------------------------------------------------------------------------------


def test_threads_share_leaves_and_graphs() -> None:
    x = Tensor(np.ones((8, 16), np.float32), requires_grad=True)
    w = Tensor(np.tile([1.0, -1.0, 1.0, 1.0], (4, 4)), dtype="float32", requires_grad=True)
    shared = x * 2.0
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                F.bit_linear(shared, w).sum().backward(retain_graph=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert grads(x) == [80 * 2.0 * v for v in ([4.0, -4.0, 4.0, 4.0] * 4)] * 8
    assert grads(w) == [80 * 16.0] * 64


def test_a_fork_is_told_what_to_do() -> None:
    x = leaf(1.0)
    y = (x * x).sum()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            y.backward()
        except bitnet_rust.ForkError:
            os.write(write, b"told")
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    assert os.read(read, 10) == b"told"
    y.backward()
    assert grads(x) == [2.0]


def _spawned(queue: Any) -> None:
    x = Tensor([3.0], requires_grad=True)
    (x * x).backward()
    queue.put(x.grad.item())  # type: ignore[union-attr]


def test_a_spawned_process_computes_gradients() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_spawned, args=(queue,))
    process.start()
    assert queue.get(timeout=600) == 6.0
    process.join()


def test_a_defect_of_the_core_is_an_exception() -> None:
    with pytest.raises(InternalError):
        bitnet_rust._bitnet.function("operation", "", ())  # no operand, which only the package itself can do
    assert (leaf(1.0) * 2.0).item() == 2.0


def test_memory_that_waits_makes_room_within_the_budget() -> None:
    """Each shape keeps memory for its next step: together far more than the budget."""
    program = """if True:
        import numpy as np
        from bitnet_rust import OutOfMemoryError, Tensor
        from bitnet_rust.nn import functional as F

        for n in range(100, 115):
            x = Tensor(np.ones((n, 1024), np.float32), requires_grad=True)
            for _ in range(2):
                F.cross_entropy(F.gated(x, x, "silu"), [0] * n).backward()
        try:
            F.gated(Tensor.ones((5000, 1024)), Tensor.ones((5000, 1024)))
        except OutOfMemoryError as error:
            print(error)
        F.gated(x, x, "silu").sum().backward()
    """
    env = {**os.environ, "BITNET_MEMORY_BUDGET": "16MiB"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "budget exceeded" in done.stdout


def _rss() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cycle(model: BitNetModel, ids: Any, x: Tensor, w: Tensor) -> None:
    y = F.attention(*(F.bit_linear(x, w).reshape(1, 32, 2, 16) for _ in range(3)))
    y.sum().backward()
    F.bit_linear(x, w).relu()  # dropped
    model.loss(ids).backward()
    model(ids)  # dropped
    for p in (x, w, *model.parameters()):
        p.grad = None


@pytest.mark.parametrize("cycles", [40, pytest.param(2000, marks=pytest.mark.full)])
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_memory_stays_flat_over_passes_and_dropped_graphs(cycles: int) -> None:
    shape = {"preset": "char", "vocab_size": 64, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(32, 32)), dtype="float32", requires_grad=True)
    w = Tensor(rng.normal(size=(32, 32)), dtype="float32", requires_grad=True)
    ids = rng.integers(0, 64, (2, 32))
    with BitNetModel.from_config(shape, trainable=True) as model:
        for _ in range(max(20, cycles // 10)):
            _cycle(model, ids, x, w)
        gc.collect()
        pool, rss = bitnet_rust.memory_stats()["in_use"], _rss()
        for _ in range(cycles):
            _cycle(model, ids, x, w)
        gc.collect()
        assert bitnet_rust.memory_stats()["in_use"] <= pool
        assert _rss() - rss < (8 << 20)


def test_gradcheck_leaves_its_inputs_as_they_were() -> None:
    x = Tensor(np.array([1.0, 2.0, 3.0], np.float32), requires_grad=True)
    calls = 0

    def breaks(t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise RuntimeError("enough")
        return t * t

    with pytest.raises(RuntimeError, match="enough"):
        autograd.gradcheck(breaks, x)
    np.testing.assert_array_equal(x.numpy(), [1, 2, 3])
