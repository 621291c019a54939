"""Gradients of tensors: modes, several results at once, and a check against differences.

>>> from bitnet_rust import Tensor, autograd
>>> x = Tensor([3.0], requires_grad=True)
>>> with autograd.no_grad():
...     y = x * x
>>> y.requires_grad
False
"""

import json
import weakref
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from . import _bitnet
from .errors import ArgumentError, GradCheckError

if TYPE_CHECKING:
    from .tensor import Tensor

__all__ = [
    "HookHandle",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
]

Hook: TypeAlias = "Callable[[Tensor], Tensor | None]"

# Whether operations are recorded; each thread and each asyncio task has its own.
_recording: ContextVar[bool] = ContextVar("bitnet_rust_recording", default=True)


def is_grad_enabled() -> bool:
    """Whether operations are recorded here."""
    return _recording.get()


class set_grad_enabled(ContextDecorator):
    """A context, or a decorator of functions, in which operations are recorded or not."""

    def __init__(self, mode: bool) -> None:
        self._mode = bool(mode)
        self._tokens: list[Token[bool]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_recording.set(self._mode))
        return self

    def __exit__(self, *_: object) -> None:
        _recording.reset(self._tokens.pop())

    def _recreate_cm(self) -> Self:  # each call of a decorated function has a context of its own
        copy = type(self).__new__(type(self))
        set_grad_enabled.__init__(copy, self._mode)
        return copy


class no_grad(set_grad_enabled):
    """A context, or a decorator of functions, in which results have no history: for evaluation, and for changing
    parameters in place."""

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(set_grad_enabled):
    """A context, or a decorator of functions, in which operations are recorded, as they are by default."""

    def __init__(self) -> None:
        super().__init__(True)


# Hooks by number; the core tells which have gone with their tensors.
_hooks: dict[int, Hook] = {}


class HookHandle:
    """A registered hook; `remove` takes it away."""

    def __init__(self, tensor: "Tensor", hook: Hook) -> None:
        if not callable(hook):
            raise ArgumentError(f"hook = {hook!r}: expected a function of the gradient")
        for gone in json.loads(_bitnet.function("dropped_hooks", "", ())[0]) or ():
            _hooks.pop(gone, None)
        self._tensor = weakref.ref(tensor)
        self._id = int(tensor._function("add_hook")[0])
        _hooks[self._id] = hook

    def remove(self) -> None:
        """Takes the hook away; twice does nothing."""
        _hooks.pop(self._id, None)
        tensor = self._tensor()
        if tensor is not None:
            tensor._function("remove_hook", self._id)


def run_backward(
    tensors: Sequence["Tensor"], gradients: Sequence[Any], retain_graph: bool, inputs: Sequence["Tensor"] | None = None
) -> list[_bitnet.TensorHandle | None]:
    """A backward pass; the gradients of inputs, if there are some."""
    from .tensor import _tensor

    given = [None if g is None else _tensor(g)._handle for g in gradients]
    params = {
        "gradients": [g is not None for g in given],
        "inputs": -1 if inputs is None else len(inputs),
        "retain": bool(retain_graph),
    }
    operands = (
        *(t._handle for t in tensors),
        *(g for g in given if g is not None),
        *(t._handle for t in inputs or ()),
    )
    walk = _bitnet.object("backward", json.dumps(params), operands, ())
    while True:
        text, grad = walk.call("step", "", ())
        if text == "null":
            return [] if inputs is None else walk.call("gradients", "", ())[1]
        result = _run_hook(int(text), grad[0])
        walk.call("resume", "", () if result is None else (result,))


def _run_hook(number: int, grad: _bitnet.TensorHandle | None) -> _bitnet.TensorHandle | None:
    from .tensor import Tensor, _tensor

    hook = _hooks.get(number)
    if hook is None or grad is None:  # removed meanwhile
        return None
    result = hook(Tensor._of(grad))
    return None if result is None else _tensor(result)._handle


def backward(tensors: "Tensor | Sequence[Tensor]", gradients: Any = None, retain_graph: bool = False) -> None:
    """`Tensor.backward` of several tensors in one pass; gradients is one for each, None where a tensor has one element."""
    roots, given = _pairs(tensors, gradients, "gradients")
    run_backward(roots, given, retain_graph)


def grad(
    outputs: "Tensor | Sequence[Tensor]",
    inputs: "Tensor | Sequence[Tensor]",
    grad_outputs: Any = None,
    retain_graph: bool = False,
) -> "tuple[Tensor | None, ...]":
    """The gradients of outputs for inputs, which need not be leaves; None for an input that no output depends on. Nothing is
    added to any `Tensor.grad`."""
    from .tensor import Tensor

    roots, given = _pairs(outputs, grad_outputs, "grad_outputs")
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    handles = run_backward(roots, given, retain_graph, wanted)
    return tuple(None if h is None else Tensor._of(h) for h in handles)


def _pairs(tensors: Any, gradients: Any, name: str) -> tuple[list["Tensor"], list[Any]]:
    from .tensor import Tensor

    if isinstance(tensors, Tensor):
        return [tensors], [gradients[0] if isinstance(gradients, list | tuple) else gradients]
    roots = list(tensors)
    given = [None] * len(roots) if gradients is None else list(gradients)
    if len(given) != len(roots):
        raise ArgumentError(f"{name}: {len(given)} for {len(roots)} tensors, expected as many")
    return roots, given


def gradcheck(
    func: Callable[..., Any],
    inputs: "Tensor | Sequence[Tensor]",
    *,
    eps: float = 1 / 64,
    atol: float = 1e-3,
    rtol: float = 1e-2,
    raise_exception: bool = True,
) -> bool:
    """Whether the gradients of ``func(*inputs)`` agree with central differences of fourth order,

        (8 (f(x + eps) - f(x - eps)) - (f(x + 2 eps) - f(x - 2 eps))) / (12 eps)

    for every element of every input that requires a gradient. All outputs, weighted by fixed numbers, are summed in
    float64; values are float32, so eps is large. func must depend on nothing but the inputs, and within 2 eps of a kink, as
    that of relu at 0, differences say nothing. On disagreement raises GradCheckError with the worst element, or returns
    False without ``raise_exception``."""
    import numpy as np

    from .tensor import Tensor

    args = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, t in enumerate(args) if isinstance(t, Tensor) and t.requires_grad]
    if not checked:
        raise ArgumentError("gradcheck: no input requires a gradient")
    for i in checked:
        if not args[i].is_leaf or args[i].dtype != "float32":
            raise ArgumentError(f"gradcheck: input {i} is {args[i].dtype}, expected a leaf of float32")

    def results() -> list[Tensor]:
        out = func(*args)
        return [t for t in ([out] if isinstance(out, Tensor) else out) if t.requires_grad]

    outputs = results()
    if not outputs:
        raise ArgumentError("gradcheck: no output depends on an input that requires a gradient")
    sizes = np.cumsum([0] + [t.size for t in outputs])
    numbers = (0.5 + np.arange(sizes[-1]) * 0.6180339887498949 % 1).astype(np.float32)
    weights = [numbers[a:b].reshape(t.shape) for a, b, t in zip(sizes, sizes[1:], outputs, strict=False)]
    analytic = grad(outputs, [args[i] for i in checked], weights)

    def weighted() -> float:
        values = (t.numpy().astype(np.float64) for t in results())
        return float(sum((w * v).sum() for w, v in zip(weights, values, strict=True)))

    for i, computed in zip(checked, analytic, strict=True):
        x = args[i]
        values = x.numpy()
        numeric = np.zeros(x.shape)
        for at in np.ndindex(*x.shape):
            where = at if at else ...
            steps = [np.float32(values[at] + k * eps) for k in (1, -1, 2, -2)]
            f: list[float] = []
            try:
                for v in steps:
                    with no_grad():
                        x[where] = float(v)
                    f.append(weighted())
            finally:
                with no_grad():
                    x[where] = float(values[at])
            h = (float(steps[0]) - float(steps[1])) / 2
            numeric[at] = (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h)
        found = np.zeros(x.shape) if computed is None else computed.numpy().astype(np.float64)
        excess = np.abs(found - numeric) - (atol + rtol * np.abs(numeric))
        wrong = ~(excess <= 0)
        if wrong.any():
            if not raise_exception:
                return False
            worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), excess.shape)
            raise GradCheckError(
                f"gradcheck: input {i}: {int(wrong.sum())} of {x.size} elements are wrong, the worst at "
                f"{tuple(int(n) for n in worst)}: backward says {found[worst]:.6g}, central differences "
                f"{numeric[worst]:.6g} (atol {atol:g}, rtol {rtol:g})"
            )
    return True
